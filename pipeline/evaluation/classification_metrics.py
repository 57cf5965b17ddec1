"""Metrics of one split, computed for many resamples of its patients at once.

Every metric except AUROC and average precision is a function of sums over images. A resample then needs only how often
each patient was drawn, times the sums of that patient: 1,000 resamples of 5,000 images take a second or two. A test
holds each value equal to scikit-learn's on the images repeated as often as they were drawn.
"""

import numpy as np

from pneumo.pipeline.evaluation.cases import Cases, Ints
from pneumo.pipeline.evaluation.results import ECE_BINS, display_rank
from pneumo.serving.contracts.arrays import Float64, Mask

Point = tuple[float | None, str | None]
"""A value, or None and the reason."""

_ALWAYS = ("accuracy", "ece", "ece_uncalibrated", "ece_change", "nll", "nll_uncalibrated", "coverage", "uncertain")
"""Metrics that images of any kind define."""


def point_values(cases: Cases, classes: list[str]) -> dict[str, Point]:
    """Compute every metric of a split, N >= 0 images; by metric name, in the order they are shown."""
    undefined = _undefined(cases, classes)
    if len(cases):
        values, _ = resample_metrics(cases, classes, np.ones((1, cases.patients), dtype=np.int64))
    else:
        undefined = dict.fromkeys(undefined, "no images in this split")
    return {
        name: (None, reason) if (reason := undefined[name]) else (float(values[name][0]), None)
        for name in sorted(undefined, key=display_rank)
    }


def _undefined(cases: Cases, classes: list[str]) -> dict[str, str | None]:
    """Return every metric of a split with the reason if it is undefined."""
    present = np.bincount(cases.truth, minlength=len(classes)) > 0
    absent = {
        name: None if found else f"no {name} images in this split" for name, found in zip(classes, present, strict=True)
    }
    one_class = next(filter(None, absent.values()), None)
    reasons = dict.fromkeys(_ALWAYS) | {"auroc": one_class, "balanced_accuracy": one_class}
    reasons |= {f"coverage:{name}": reason for name, reason in absent.items()}
    reasons["accuracy_certain"] = None if cases.certain.any() else "no image is certain"
    if cases.positive is None:
        return reasons | {f"sensitivity:{name}": reason for name, reason in absent.items()}
    name, other = classes[cases.positive], classes[1 - cases.positive]
    ppv, npv = (
        None if (cases.answer == classes.index(each)).any() else f"no image was called {each}" for each in (name, other)
    )
    return reasons | {
        "average_precision": one_class,
        "sensitivity": absent[name],
        "specificity": absent[other],
        "ppv": ppv,
        "npv": npv,
        "f1": absent[name] if ppv else None,
        "brier": None,
        "prevalence": None,
    }


def resample_metrics(cases: Cases, classes: list[str], drawn: Ints) -> tuple[dict[str, Float64], Float64]:
    """Compute every metric of N > 0 images for many resamples, given how often each patient was drawn, [R, patients].

    Returns:
        Values [R] by metric name, NaN if undefined; and confusion counts [R, K, K].
    """
    sums = _Sums(cases, drawn)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = _binary(cases, sums, drawn) if cases.positive is not None else _multiclass(cases, classes, sums, drawn)
        values |= {
            "ece": (after := sums.calibration_error(cases.probabilities)),
            "ece_uncalibrated": (before := sums.calibration_error(cases.uncalibrated)),
            "ece_change": after - before,
            "nll": sums.mean(_losses(cases, cases.probabilities)),
            "nll_uncalibrated": sums.mean(_losses(cases, cases.uncalibrated)),
            "coverage": sums.mean(cases.covered),
            "uncertain": sums.mean(~cases.certain),
            "accuracy_certain": sums.share(cases.correct, cases.certain),
        }
        for column, name in enumerate(classes):
            values[f"coverage:{name}"] = sums.share(cases.covered, cases.truth == column)
    return values, sums.cells


class _Sums:
    """Sums over the images of each resample."""

    def __init__(self, cases: Cases, drawn: Ints) -> None:
        self._cases, self._drawn = cases, drawn.astype(np.float64)
        k = cases.classes
        ones = np.ones(len(cases))
        self.cells = self.of(ones, cases.truth * k + cases.answer, k * k).reshape(-1, k, k)
        self.images = self.of(ones)[:, 0]

    def of(self, values: Mask | Float64, groups: Ints | None = None, number: int = 1) -> Float64:
        """Sum values [N] in each resample, by group if groups [N] are given; [R, number of groups]."""
        patient, patients = self._cases.patient, self._cases.patients
        index = patient * number + (0 if groups is None else groups)
        per_patient = np.bincount(index, weights=values, minlength=patients * number).reshape(patients, number)
        return np.asarray(self._drawn @ per_patient)

    def mean(self, values: Mask | Float64) -> Float64:
        """Return the mean of values [N] over the images of each resample, [R]."""
        return self.of(values)[:, 0] / self.images

    def share(self, values: Mask, among: Mask) -> Float64:
        """Return the share of `values` [N] in the images of `among` [N] in each resample, [R]; NaN without images."""
        return self.of(values & among)[:, 0] / self.of(among)[:, 0]

    def calibration_error(self, probabilities: Float64) -> Float64:
        """Return the expected calibration error of each resample, [R]."""
        confidence, hit = self._cases.confidence(probabilities)
        gaps = self.of(confidence - hit, calibration_bins(confidence), ECE_BINS + 1)
        return np.asarray(np.abs(gaps).sum(axis=1) / self.images)


def _binary(cases: Cases, sums: _Sums, drawn: Ints) -> dict[str, Float64]:
    yes = cases.positive or 0
    no = 1 - yes
    tp, fn = sums.cells[:, yes, yes], sums.cells[:, yes, no]
    tn, fp = sums.cells[:, no, no], sums.cells[:, no, yes]
    truth, scores = cases.truth == yes, cases.probabilities[:, yes]
    auroc, precision = rank_scores(scores, truth, drawn, cases.patient)
    return {
        "auroc": auroc,
        "average_precision": precision,
        "accuracy": (tp + tn) / sums.images,
        "balanced_accuracy": (tp / (tp + fn) + tn / (tn + fp)) / 2,
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "ppv": tp / (tp + fp),
        "npv": tn / (tn + fn),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "brier": sums.mean((scores - truth) ** 2),
        "prevalence": (tp + fn) / sums.images,
    }


def _multiclass(cases: Cases, classes: list[str], sums: _Sums, drawn: Ints) -> dict[str, Float64]:
    columns = range(cases.classes)
    correct = np.diagonal(sums.cells, axis1=1, axis2=2)
    recall = correct / sums.cells.sum(axis=2)
    aurocs = [rank_scores(cases.probabilities[:, k], cases.truth == k, drawn, cases.patient)[0] for k in columns]
    return {
        "auroc": np.mean(aurocs, axis=0),
        "accuracy": correct.sum(axis=1) / sums.images,
        "balanced_accuracy": recall.mean(axis=1),
        **{f"sensitivity:{name}": recall[:, k] for k, name in enumerate(classes)},
    }


def rank_scores(scores: Float64, truth: Mask, drawn: Ints, patient: Ints) -> tuple[Float64, Float64]:
    """Compute AUROC [R] and average precision [R] of many resamples, ties included; NaN if only one class was drawn.

    Scores and positive images `truth` are [N], with the number of each image's `patient`; `drawn` [R, patients] says
    how often each patient was drawn.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    weights = drawn[:, patient[order]]
    images = np.add.reduceat(weights, starts, axis=1)  # of each distinct score, from the highest
    positives = np.add.reduceat(weights * truth[order], starts, axis=1)
    true_positives, called = np.cumsum(positives, axis=1), np.cumsum(images, axis=1)
    total, others = true_positives[:, -1], called[:, -1] - true_positives[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        auroc = np.sum((images - positives) * (true_positives - positives / 2), axis=1) / (total * others)
        # A score that was not drawn adds nothing, even above the first one that was: `called` is 0 there.
        precision = np.sum(positives * (true_positives / np.maximum(called, 1)), axis=1) / total
    one_class = (total == 0) | (others == 0)
    return np.where(one_class, np.nan, auroc), np.where(one_class, np.nan, precision)


def _losses(cases: Cases, probabilities: Float64) -> Float64:
    tiny = np.finfo(np.float64).eps  # scikit-learn's limit
    return np.asarray(-np.log(np.clip(cases.truth_probability(probabilities), tiny, 1 - tiny)))


def calibration_bins(confidence: Float64) -> Ints:
    """Return the number [N] of the equally wide bin of each confidence [N].

    A confidence of exactly 1 has a bin of its own, number `ECE_BINS`, as in torchmetrics.
    """
    edges = np.linspace(0, 1, ECE_BINS + 1)
    return np.searchsorted(edges, np.clip(confidence, 0, 1), side="right") - 1
