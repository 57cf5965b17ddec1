"""Intervals for values that no resample moves: a bootstrap of 22 images that are all right says 1.000 to 1.000.

Each such value is a rising function of shares and AUROCs, and gets that function of their exact bounds. That holds
without a correction for several parts: where the value of the whole lies outside its bounds, that of a part does.
"""

from collections.abc import Callable, Mapping
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.evaluation.cases import Cases
from pneumo.pipeline.evaluation.results import Bootstrap, Confusion, Estimate

Bounds = tuple[float, float]
Mask = NDArray[np.bool_]

_NO_WIDTH = 1e-12
_STEPS = 1000


def widen(found: Mapping[str, Estimate], cases: Cases, classes: list[str], settings: Bootstrap) -> dict[str, Estimate]:
    """Give metrics whose interval has no width an exact one.

    Args:
        found: Metrics by name, as the bootstrap left them; those without an interval stay without.
        cases: The images that they are of.
        classes: Class names, in column order.
        settings: The level.

    Returns:
        The same metrics. What is no function of shares or ranks, such as a calibration error, stays as it is.
    """
    stuck = {name for name, estimate in found.items() if has_no_width(estimate)}
    if not stuck:
        return dict(found)
    exact = _Exact(cases, classes, settings.level)
    return {
        name: _between(estimate, exact.bounds(name, estimate.value)) if name in stuck else estimate
        for name, estimate in found.items()
    }


def widen_auroc(estimate: Estimate, truth: Mask, patient: NDArray[np.int64], level: float) -> Estimate:
    """The same for the AUROC of images with truth [N] of patients [N]."""
    if not has_no_width(estimate):
        return estimate
    return _between(estimate, auroc_bounds(estimate.value, pairs(truth, patient), level))


def widen_counts(confusion: Confusion, cases: Cases, settings: Bootstrap) -> Confusion:
    """Give counts that no resample moves the bounds of their share of the row, times the row."""
    if confusion.low is None or confusion.high is None:
        return confusion
    low, high = [row[:] for row in confusion.low], [row[:] for row in confusion.high]
    for row, counts in enumerate(confusion.counts):
        images, patients = sum(counts), len(np.unique(cases.patient[cases.truth == row]))
        for column, count in enumerate(counts):
            if images and high[row][column] - low[row][column] <= _NO_WIDTH:
                bounds = share_bounds(count / images, patients, settings.level)
                low[row][column], high[row][column] = (round(images * bound, 6) for bound in bounds)
    return confusion.model_copy(update={"low": low, "high": high})


def has_no_width(estimate: Estimate) -> bool:
    """Whether there is an interval and it is a point."""
    return estimate.low is not None and estimate.high is not None and estimate.high - estimate.low <= _NO_WIDTH


def share_bounds(share: float, patients: int, level: float) -> Bounds:
    """Bounds of a share (Clopper and Pearson, Biometrika, 1934), each missed with a chance of (1 - level) / 2 at most.

    Args:
        share: In [0, 1].
        patients: How many there are in its denominator, above 0: images of one patient are alike, and count once.
        level: Of the interval, in (0, 1).
    """
    from scipy.special import betaincinv

    tail, hits = (1 - level) / 2, share * patients
    low = 0.0 if share <= 0 else float(betaincinv(hits, patients - hits + 1, tail))
    high = 1.0 if share >= 1 else float(betaincinv(hits + 1, patients - hits, 1 - tail))
    return low, high


def auroc_bounds(auroc: float | None, count: int, level: float) -> Bounds | None:
    """Bounds of an AUROC of exactly 0 or 1, without an assumption about the scores; None of any other.

    Of `count` pairs of a positive and a negative patient, no patient in two of them, each is in order with a chance
    that is the AUROC, so that all are with a chance of AUROC ** count: the bound is that of a share of `count` pairs
    (for the binormal case see Obuchowski and Lieber, Academic Radiology, 2002). It cannot be improved for all scores:
    where the rarer class lies beyond the other but for a share of 1 - AUROC, the chance is just that.

    Args:
        auroc: The value.
        count: Pairs, see `pairs`.
        level: Of the interval.
    """
    if auroc is None or count < 1 or min(auroc, 1 - auroc) > _NO_WIDTH:
        return None
    return share_bounds(round(auroc), count, level)


def pairs(truth: Mask, patient: NDArray[np.int64]) -> int:
    """Most pairs of a positive and a negative image, truth [N], such that no patient [N] is in two of them."""
    positive, negative = set(patient[truth].tolist()), set(patient[~truth].tolist())
    return min(len(positive), len(negative), len(positive | negative) // 2)


def precision_bound(auroc: float, prevalence: float) -> float:
    """A bound of the average precision, given one of the AUROC, of images with a share of positive ones.

    At a recall of t the false positive rate is at most (1 - AUROC) / (1 - t), since it only rises and its mean is
    1 - AUROC. The precision that goes with it, averaged over t, is the bound.
    """
    recall = (np.arange(_STEPS) + 0.5) / _STEPS
    rate = np.minimum(1, (1 - auroc) / (1 - recall))
    return float(np.mean(recall * prevalence / (recall * prevalence + rate * (1 - prevalence))))


class _Exact:
    """Exact bounds of the metrics of some images."""

    def __init__(self, cases: Cases, classes: list[str], level: float) -> None:
        self._cases, self._level = cases, level
        every = np.ones(len(cases), dtype=np.bool_)
        self._among: dict[str, Mask] = {
            "accuracy": every,
            "prevalence": every,
            "coverage": every,
            "uncertain": every,
            "accuracy_certain": cases.certain,
        }
        for column, name in enumerate(classes):
            self._among |= {f"{metric}:{name}": cases.truth == column for metric in ("coverage", "sensitivity")}
        if cases.positive is not None:
            truth, answer = cases.truth == cases.positive, cases.answer == cases.positive
            self._among |= {"sensitivity": truth, "specificity": ~truth, "ppv": answer, "npv": ~answer}

    def bounds(self, name: str, value: float | None) -> Bounds | None:
        """Bounds of a metric; None where there are none."""
        if name in self._among and value is not None:
            return share_bounds(value, len(np.unique(self._cases.patient[self._among[name]])), self._level)
        if name == "balanced_accuracy":
            return _together(fmean, *(self._recall(column) for column in range(self._cases.classes)))
        if name == "f1":
            called = self._cases.answer == self._cases.positive
            return _together(_harmonic, self._recall(self._cases.positive or 0), self._right(called))
        if name == "auroc":
            return self._auroc(value)
        if name == "average_precision" and value is not None and (ranked := self._auroc(value)):
            return precision_bound(ranked[0], float((self._cases.truth == self._cases.positive).mean())), ranked[1]
        return None

    def _recall(self, column: int) -> Bounds:
        return self._right(self._cases.truth == column)

    def _right(self, among: Mask) -> Bounds:
        """Bounds of the share of images in `among` that are answered right; 0 to 1 of none."""
        if not among.any():
            return 0.0, 1.0
        cases = self._cases
        right = float((cases.truth == cases.answer)[among].mean())
        return share_bounds(right, len(np.unique(cases.patient[among])), self._level)

    def _auroc(self, value: float | None) -> Bounds | None:
        cases = self._cases
        columns = range(cases.classes) if cases.positive is None else [cases.positive]
        found = [auroc_bounds(value, pairs(cases.truth == column, cases.patient), self._level) for column in columns]
        known = [bounds for bounds in found if bounds is not None]
        return _together(fmean, *known) if len(known) == len(found) else None


def _together(function: Callable[[list[float]], float], *parts: Bounds) -> Bounds:
    return function([low for low, _ in parts]), function([high for _, high in parts])


def _harmonic(values: list[float]) -> float:
    return 2 * values[0] * values[1] / (values[0] + values[1]) if sum(values) else 0.0


def _between(estimate: Estimate, bounds: Bounds | None) -> Estimate:
    if bounds is None or estimate.value is None:
        return estimate
    low, high = bounds
    return estimate.model_copy(update={"low": min(low, estimate.value), "high": max(high, estimate.value)})
