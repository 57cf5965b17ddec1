"""Two models on the same images: what differs, with paired bootstrap intervals and p-values over patients.

Each resample draws patients once for both models, so that what is hard about an image cancels out. The gate of
`pneumo promote` and `pneumo runs compare` both rest on it.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.evaluation.bootstrap import draw_patients, resample_metrics
from pneumo.pipeline.evaluation.cases import Cases
from pneumo.pipeline.evaluation.classification_metrics import point_values
from pneumo.pipeline.evaluation.exact_intervals import Bounds, auroc_bounds, pairs, share_bounds
from pneumo.pipeline.evaluation.results import Bootstrap, place
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.models import FrozenModel

_NO_WIDTH = 1e-12
_SAME_PROBABILITY = 1e-4
"""Probabilities this close are of the same network: it is what an export may differ by."""


class Difference(FrozenModel):
    """One metric of two models on the same images.

    Attributes:
        metric: Its name, as in `metrics.json`.
        first: Its value for the first model; None where it is undefined.
        second: Its value for the second.
        value: Second minus first.
        low: Lower end of the interval of `value`.
        high: Upper end.
        p: Two-sided p-value of no difference, by the share of resamples on either side of none.
        reason: Why something is missing.
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
    """Compare two models metric by metric.

    Args:
        first: The images under the first model.
        second: The same images, in the same order, under the second.
        classes: Class names, in column order of both.
        settings: Resamples, seed and level of the intervals.
        metrics: Which metrics; all where None.

    Raises:
        InputError: The images are not the same.
    """
    if first.image != second.image or not np.array_equal(first.truth, second.truth):
        raise InputError("the two models were not measured on the same images and labels")
    points = [point_values(cases, classes) for cases in (first, second)]
    wanted = sorted((name for name in points[0] if metrics is None or name in set(metrics)), key=place)
    if first.patients < 2:
        why = "fewer than two patients: no interval"
        return [_point(name, points[0][name][0], points[1][name][0], why) for name in wanted]
    drawn = [_resample(first, second, classes, counts, wanted) for counts in draw_patients(first, settings)]
    exact = _Exact(first, second, classes, settings.level)
    found = []
    for name in wanted:
        (before, reason), (after, other_reason) = points[0][name], points[1][name]
        if before is None or after is None:
            found.append(_point(name, before, after, reason or other_reason))
            continue
        values = np.concatenate([part[name] for part in drawn])
        found.append(_estimate(name, before, after, values[np.isfinite(values)], exact, settings))
    return found


def p_value(values: Float64) -> float:
    """Two-sided p-value of no difference from resampled differences [R], never 0: of R resamples none proves more."""
    low, high = int((values <= 0).sum()), int((values >= 0).sum())
    return min(1.0, 2 * (min(low, high) + 1) / (len(values) + 1))


def _resample(
    first: Cases, second: Cases, classes: list[str], drawn: NDArray[np.int64], metrics: list[str]
) -> dict[str, Float64]:
    before, after = (resample_metrics(cases, classes, drawn)[0] for cases in (first, second))
    return {name: after[name] - before[name] for name in metrics}


def _point(name: str, before: float | None, after: float | None, reason: str | None) -> Difference:
    value = None if before is None or after is None else after - before
    return Difference(metric=name, first=before, second=after, value=value, reason=reason)


def _estimate(
    name: str, before: float, after: float, values: Float64, exact: "_Exact", settings: Bootstrap
) -> Difference:
    value = after - before
    if not len(values):
        return _point(name, before, after, "undefined in every resample: no interval")
    tail = (1 - settings.level) / 2
    low, high = map(float, np.quantile(values, (tail, 1 - tail)))
    if high - low <= _NO_WIDTH and (bounds := exact.bounds(name, before, after)):
        low, high = bounds
    low, high = min(low, value), max(high, value)
    return Difference(metric=name, first=before, second=after, value=value, low=low, high=high, p=p_value(values))


class _Exact:
    """Intervals where all resamples agree: few images that both models call alike do not prove that they are alike."""

    def __init__(self, first: Cases, second: Cases, classes: list[str], level: float) -> None:
        self._first, self._level = first, level
        near = np.allclose(first.uncalibrated, second.uncalibrated, rtol=0, atol=_SAME_PROBABILITY)
        self._one_network = near and np.array_equal(first.answer, second.answer)
        self._among = {"accuracy": np.ones(len(first), dtype=np.bool_)}
        self._among |= {f"sensitivity:{name}": first.truth == column for column, name in enumerate(classes)}
        if first.positive is not None:
            truth = first.truth == first.positive
            self._among |= {"sensitivity": truth, "specificity": ~truth}

    def bounds(self, name: str, before: float, after: float) -> Bounds | None:
        """Bounds of a difference; None where the bootstrap's stand."""
        if self._one_network:
            return None
        if name in self._among:
            # The share of images on which just one model is right bounds the difference either way.
            patients = len(np.unique(self._first.patient[self._among[name]]))
            low, high = share_bounds(abs(after - before), patients, self._level)
            return (-high, high) if after == before else (low, high) if after > before else (-high, -low)
        if name == "auroc" and self._first.positive is not None and before == after == 1:
            count = pairs(self._first.truth == self._first.positive, self._first.patient)
            found = auroc_bounds(1.0, count, self._level)
            return None if found is None else (found[0] - 1, 1 - found[0])
        return None
