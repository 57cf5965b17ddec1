"""Exact intervals of values that no resample moves: a bootstrap of 22 images, all correct, gives 1.000 to 1.000.

Each such value is a rising function of shares and AUROCs, and gets that function of their exact bounds. No correction
for several parts is needed: if the value of the whole lies outside its bounds, so does the value of a part.
"""

from collections.abc import Callable, Mapping
from statistics import fmean, harmonic_mean

import numpy as np

from pneumo.pipeline.evaluation.cases import Cases, Ints
from pneumo.pipeline.evaluation.results import Confusion, Estimate
from pneumo.serving.contracts.arrays import Mask

Bounds = tuple[float, float]

NO_WIDTH = 1e-12
"""Intervals up to this width are points."""

_STEPS = 1000


def widen(estimates: Mapping[str, Estimate], cases: Cases, classes: list[str], level: float) -> dict[str, Estimate]:
    """Give metrics of some images an exact interval if theirs has no width.

    Metrics that are no function of shares or ranks, such as a calibration error, stay as they are, and so do those
    without an interval.
    """
    exact = _Exact(cases, classes, level)
    return {
        name: _replace_bounds(estimate, exact.bounds(name, estimate.value)) if has_no_width(estimate) else estimate
        for name, estimate in estimates.items()
    }


def widen_auroc(estimate: Estimate, truth: Mask, patient: Ints, level: float) -> Estimate:
    """Give the AUROC of images with truth [N] of patients [N] an exact interval if its own has no width."""
    if not has_no_width(estimate):
        return estimate
    return _replace_bounds(estimate, auroc_bounds(estimate.value, count_pairs(truth, patient), level))


def widen_counts(confusion: Confusion, cases: Cases, level: float) -> Confusion:
    """Give counts that no resample moves the exact bounds of their share of the row, times the row."""
    if confusion.low is None or confusion.high is None:
        return confusion
    low, high = [row[:] for row in confusion.low], [row[:] for row in confusion.high]
    for row, counts in enumerate(confusion.counts):
        images, patients = sum(counts), cases.count_patients(cases.truth == row)
        for column, count in enumerate(counts):
            if images and high[row][column] - low[row][column] <= NO_WIDTH:
                bounds = share_bounds(count / images, patients, level)
                low[row][column], high[row][column] = (round(images * bound, 6) for bound in bounds)
    return confusion.model_copy(update={"low": low, "high": high})


def has_no_width(estimate: Estimate) -> bool:
    """Return whether an estimate has an interval that is a point."""
    return estimate.low is not None and estimate.high is not None and estimate.high - estimate.low <= NO_WIDTH


def share_bounds(share: float, patients: int, level: float) -> Bounds:
    """Return the bounds of a share, each missed with a chance of (1 - level) / 2 at most.

    Clopper and Pearson, Biometrika, 1934. The share is of `patients`, above 0: images of one patient are alike and
    count once.
    """
    from scipy.special import betaincinv

    tail, hits = (1 - level) / 2, share * patients
    low = 0.0 if share <= 0 else float(betaincinv(hits, patients - hits + 1, tail))
    high = 1.0 if share >= 1 else float(betaincinv(hits + 1, patients - hits, 1 - tail))
    return low, high


def auroc_bounds(auroc: float | None, pairs: int, level: float) -> Bounds | None:
    """Return the bounds of an AUROC of exactly 0 or 1, without an assumption about the scores; None for any other.

    Take pairs of a positive and a negative patient, with no patient in two of them. Each is in order with a chance that
    is the AUROC, so all are with a chance of AUROC ** pairs: the bound is that of a share of that many pairs (for the
    binormal case see Obuchowski and Lieber, Academic Radiology, 2002). No better bound holds for all scores: if the
    rarer class lies beyond the other except for a share of 1 - AUROC, the chance is exactly that.
    """
    if auroc is None or pairs < 1 or min(auroc, 1 - auroc) > NO_WIDTH:
        return None
    return share_bounds(round(auroc), pairs, level)


def count_pairs(truth: Mask, patient: Ints) -> int:
    """Return the most pairs of a positive and a negative image, truth [N], with no patient [N] in two of them."""
    positive, negative = set(patient[truth].tolist()), set(patient[~truth].tolist())
    return min(len(positive), len(negative), len(positive | negative) // 2)


def precision_bound(auroc: float, prevalence: float) -> float:
    """Return the lower bound of the average precision that follows from one of the AUROC.

    At a recall of t the false positive rate is at most (1 - AUROC) / (1 - t), since it only rises and its mean is
    1 - AUROC. The precision at that rate, averaged over t, is the bound.
    """
    recall = (np.arange(_STEPS) + 0.5) / _STEPS
    rate = np.minimum(1, (1 - auroc) / (1 - recall))
    return float(np.mean(recall * prevalence / (recall * prevalence + rate * (1 - prevalence))))


def accuracy_denominators(cases: Cases, classes: list[str]) -> dict[str, Mask]:
    """Return the images [N] in the denominator of accuracy, sensitivity and specificity, by metric."""
    masks = {"accuracy": np.ones(len(cases), dtype=np.bool_)}
    masks |= {f"sensitivity:{name}": cases.truth == column for column, name in enumerate(classes)}
    if cases.positive is not None:
        truth = cases.truth == cases.positive
        masks |= {"sensitivity": truth, "specificity": ~truth}
    return masks


class _Exact:
    """Exact bounds of the metrics of some images."""

    def __init__(self, cases: Cases, classes: list[str], level: float) -> None:
        self._cases, self._level = cases, level
        self._denominators = accuracy_denominators(cases, classes) | {"accuracy_certain": cases.certain}
        for name in ("prevalence", "coverage", "uncertain"):
            self._denominators[name] = np.ones(len(cases), dtype=np.bool_)
        self._denominators |= {f"coverage:{name}": cases.truth == column for column, name in enumerate(classes)}
        if cases.positive is not None:
            called = cases.answer == cases.positive
            self._denominators |= {"ppv": called, "npv": ~called}

    def bounds(self, name: str, value: float | None) -> Bounds | None:
        """Return the bounds of a metric, None if there are none."""
        cases = self._cases
        if name in self._denominators and value is not None:
            return share_bounds(value, cases.count_patients(self._denominators[name]), self._level)
        if name == "balanced_accuracy":
            return _combine(fmean, *(self._accuracy(cases.truth == column) for column in range(cases.classes)))
        if name == "f1":
            parts = self._accuracy(cases.truth == cases.positive), self._accuracy(cases.answer == cases.positive)
            return _combine(harmonic_mean, *parts)
        if name == "auroc":
            return self._auroc(value)
        if name == "average_precision" and value is not None and (ranked := self._auroc(value)):
            return precision_bound(ranked[0], float((cases.truth == cases.positive).mean())), ranked[1]
        return None

    def _accuracy(self, among: Mask) -> Bounds:
        """Return the bounds of the accuracy on some images [N]; 0 to 1 without images."""
        if not among.any():
            return 0.0, 1.0
        return share_bounds(float(self._cases.correct[among].mean()), self._cases.count_patients(among), self._level)

    def _auroc(self, value: float | None) -> Bounds | None:
        cases = self._cases
        columns = range(cases.classes) if cases.positive is None else [cases.positive]
        parts = [auroc_bounds(value, count_pairs(cases.truth == k, cases.patient), self._level) for k in columns]
        bounds = [part for part in parts if part is not None]
        return _combine(fmean, *bounds) if len(bounds) == len(parts) else None


def _combine(function: Callable[[list[float]], float], *parts: Bounds) -> Bounds:
    return function([low for low, _ in parts]), function([high for _, high in parts])


def _replace_bounds(estimate: Estimate, bounds: Bounds | None) -> Estimate:
    if bounds is None or estimate.value is None:
        return estimate
    low, high = bounds
    return estimate.model_copy(update={"low": min(low, estimate.value), "high": max(high, estimate.value)})
