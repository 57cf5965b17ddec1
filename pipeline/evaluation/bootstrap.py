"""Confidence intervals by a bootstrap of whole patients, since images of one patient are alike.

If all resamples agree, as on a few images that are all correct, the interval is exact (`exact_intervals`).
"""

from collections.abc import Iterator

import numpy as np

from pneumo.pipeline.evaluation import exact_intervals
from pneumo.pipeline.evaluation.cases import Cases, Ints
from pneumo.pipeline.evaluation.classification_metrics import point_values, resample_metrics
from pneumo.pipeline.evaluation.results import Bootstrap, Confusion, Estimate
from pneumo.serving.contracts.arrays import Float64

_CELLS = 4_000_000
"""Resamples times images that are held at once: a few arrays of 32 MB."""


def estimate_metrics(cases: Cases, classes: list[str], settings: Bootstrap) -> tuple[dict[str, Estimate], Confusion]:
    """Compute every metric of a split, N >= 0 images, with its interval; and the confusion matrix."""
    points = point_values(cases, classes)
    counts = np.zeros((cases.classes, cases.classes), dtype=np.int64)
    np.add.at(counts, (cases.truth, cases.answer), 1)
    confusion = Confusion(counts=counts.tolist())
    if cases.patients < 2 or settings.resamples < 1:
        why = "one patient only: no interval" if cases.patients == 1 else "no resamples: no interval"
        return {
            name: Estimate(value=value, reason=reason or why) for name, (value, reason) in points.items()
        }, confusion
    parts = [resample_metrics(cases, classes, drawn) for drawn in draw_patients(cases, settings)]
    estimates = {
        name: summarise_draws(*points[name], np.concatenate([values[name] for values, _ in parts]), settings)
        for name in points
    }
    low, high = np.quantile(np.concatenate([cells for _, cells in parts]), settings.tails, axis=0)
    confusion = confusion.model_copy(update={"low": low.tolist(), "high": high.tolist()})
    return (
        exact_intervals.widen(estimates, cases, classes, settings.level),
        exact_intervals.widen_counts(confusion, cases, settings.level),
    )


def draw_patients(cases: Cases, settings: Bootstrap) -> Iterator[Ints]:
    """Draw patients with replacement; yield how often each was drawn, [some resamples, patients]."""
    random = np.random.default_rng(settings.seed)
    chunk = max(1, _CELLS // len(cases))
    for start in range(0, settings.resamples, chunk):
        size = min(chunk, settings.resamples - start)
        picked = random.integers(0, cases.patients, (size, cases.patients))
        picked += np.arange(size)[:, None] * cases.patients
        yield np.bincount(picked.ravel(), minlength=size * cases.patients).reshape(size, cases.patients)


def percentile_interval(values: Float64, settings: Bootstrap) -> tuple[float, float] | None:
    """Return the percentile interval of resampled values [R]; NaN is left out, None if there is nothing else."""
    valid = values[np.isfinite(values)]
    if not len(valid):
        return None
    low, high = np.quantile(valid, settings.tails)
    return float(low), float(high)


def summarise_draws(value: float | None, reason: str | None, values: Float64, settings: Bootstrap) -> Estimate:
    """Return a value with the percentile interval of its resampled values [R], some of them NaN."""
    dropped = int((~np.isfinite(values)).sum())
    if value is None:
        return Estimate(value=None, reason=reason, dropped=dropped)
    interval = percentile_interval(values, settings)
    if interval is None:
        return Estimate(value=value, reason="undefined in every resample: no interval", dropped=dropped)
    # Resampling adds noise to biased metrics such as ECE, whose percentiles may miss the value itself.
    return Estimate(value=value, low=min(interval[0], value), high=max(interval[1], value), dropped=dropped)
