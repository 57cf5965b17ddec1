"""Paired comparison of two models on the same images: bootstrap intervals and p-values over patients.

Each resample draws patients once for both models, so that the difficulty of an image cancels out. The gate of
`pneumo promote` and `pneumo runs compare` both use it.
"""

from collections.abc import Iterable

import numpy as np

from pneumo.pipeline.evaluation.bootstrap import draw_patients, percentile_interval
from pneumo.pipeline.evaluation.cases import Cases
from pneumo.pipeline.evaluation.classification_metrics import point_values, resample_metrics
from pneumo.pipeline.evaluation.exact_intervals import (
    NO_WIDTH,
    Bounds,
    accuracy_denominators,
    auroc_bounds,
    count_pairs,
    share_bounds,
)
from pneumo.pipeline.evaluation.results import Bootstrap, display_rank
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.models import FrozenModel

_SAME_PROBABILITY = 1e-4
"""Probabilities this close come from the same network: an export may differ by as much."""


class Difference(FrozenModel):
    """One metric of two models on the same images: both values, and the second minus the first with its interval.

    `p` is the two-sided p-value of no difference, from the resamples above and below zero. `reason` says why something
    is missing.
    """

    metric: str
    first: float | None
    second: float | None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    reason: str | None = None


def compare_models(
    first: Cases, second: Cases, classes: list[str], settings: Bootstrap, *, metrics: Iterable[str] | None = None
) -> list[Difference]:
    """Compare two models in all or some metrics on the same images (else an `InputError`), columns as in `classes`."""
    if first.image != second.image or not np.array_equal(first.truth, second.truth):
        raise InputError("the two models were not measured on the same images and labels")
    points = [point_values(cases, classes) for cases in (first, second)]
    chosen = set(points[0] if metrics is None else metrics)
    names = sorted((name for name in points[0] if name in chosen), key=display_rank)
    draws: dict[str, list[Float64]] = {name: [] for name in names}
    if first.patients > 1:
        for drawn in draw_patients(first, settings):
            before, after = (resample_metrics(cases, classes, drawn)[0] for cases in (first, second))
            for name in names:
                draws[name].append(after[name] - before[name])
    exact = _Exact(first, second, classes, settings.level)
    differences = []
    for name in names:
        (one, reason), (other, other_reason) = points[0][name], points[1][name]
        difference = Difference(metric=name, first=one, second=other, reason=reason or other_reason)
        if one is not None and other is not None:
            difference = _estimate(difference, other - one, draws[name], exact, settings)
        differences.append(difference)
    return differences


def p_value(values: Float64) -> float:
    """Return the two-sided p-value of no difference from resampled differences [R]; it is never 0."""
    low, high = int((values <= 0).sum()), int((values >= 0).sum())
    return min(1.0, 2 * (min(low, high) + 1) / (len(values) + 1))


def _estimate(
    difference: Difference, value: float, draws: list[Float64], exact: "_Exact", settings: Bootstrap
) -> Difference:
    """Add value, interval and p-value to a difference, from the resampled differences in `draws`."""
    if not draws:
        return difference.model_copy(update={"value": value, "reason": "fewer than two patients: no interval"})
    values = np.concatenate(draws)
    interval = percentile_interval(values, settings)
    if interval is None:
        return difference.model_copy(update={"value": value, "reason": "undefined in every resample: no interval"})
    if interval[1] - interval[0] <= NO_WIDTH:
        interval = exact.bounds(difference) or interval
    low, high = min(interval[0], value), max(interval[1], value)
    p = p_value(values[np.isfinite(values)])
    return difference.model_copy(update={"value": value, "low": low, "high": high, "p": p})


class _Exact:
    """Exact intervals if all resamples agree: equal answers to a few images do not prove equal models."""

    def __init__(self, first: Cases, second: Cases, classes: list[str], level: float) -> None:
        self._first, self._level = first, level
        near = np.allclose(first.uncalibrated, second.uncalibrated, rtol=0, atol=_SAME_PROBABILITY)
        self._one_network = near and np.array_equal(first.answer, second.answer)
        self._denominators = accuracy_denominators(first, classes)

    def bounds(self, difference: Difference) -> Bounds | None:
        """Return the bounds of a difference; None if the bootstrap's are right."""
        before, after = difference.first or 0.0, difference.second or 0.0
        if self._one_network:
            return None
        if difference.metric in self._denominators:
            # The share of images on which exactly one model is correct bounds the difference on either side.
            patients = self._first.count_patients(self._denominators[difference.metric])
            low, high = share_bounds(abs(after - before), patients, self._level)
            return (-high, high) if after == before else (low, high) if after > before else (-high, -low)
        if difference.metric == "auroc" and self._first.positive is not None and before == after == 1:
            pairs = count_pairs(self._first.truth == self._first.positive, self._first.patient)
            bounds = auroc_bounds(1.0, pairs, self._level)
            return None if bounds is None else (bounds[0] - 1, 1 - bounds[0])
        return None
