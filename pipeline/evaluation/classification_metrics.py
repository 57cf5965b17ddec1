"""Metrics of one split. scikit-learn computes; what is added here says when a value is undefined, and why."""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.evaluation.cases import Cases
from pneumo.pipeline.evaluation.results import ECE_BINS, place
from pneumo.serving.contracts.arrays import Float64

Point = tuple[float | None, str | None]
"""A value, or None and the reason."""


def point_values(cases: Cases, classes: list[str]) -> dict[str, Point]:
    """Compute every metric on the images as they are.

    Args:
        cases: The images of a split, N >= 0.
        classes: Class names, in column order.

    Returns:
        Values by metric name, in the order they are shown.
    """
    recipes = _binary(cases, classes) if cases.positive is not None else _several(cases, classes)
    recipes |= _shared(cases, classes)
    empty = None if len(cases) else "no images in this split"
    names = sorted(recipes, key=place)
    return {name: _call(recipes[name][0], empty or recipes[name][1]) for name in names}


Recipe = tuple[Callable[[], float], str | None]
"""How to compute a metric, and the reason it is undefined, if it is."""


def _binary(cases: Cases, classes: list[str]) -> dict[str, Recipe]:
    from sklearn import metrics

    yes = cases.positive or 0
    name, other = classes[yes], classes[1 - yes]
    truth, answer, scores = cases.truth == yes, cases.answer == yes, cases.probabilities[:, yes]
    no_positive = None if truth.any() else f"no {name} images in this split"
    no_negative = None if not truth.all() else f"no {other} images in this split"
    one_class = no_positive or no_negative
    never = None if answer.any() else f"no image was called {name}"
    always = None if not answer.all() else f"no image was called {other}"
    return {
        "auroc": (lambda: metrics.roc_auc_score(truth, scores), one_class),
        "average_precision": (lambda: metrics.average_precision_score(truth, scores), one_class),
        "accuracy": (lambda: metrics.accuracy_score(truth, answer), None),
        "balanced_accuracy": (lambda: metrics.balanced_accuracy_score(truth, answer), one_class),
        "sensitivity": (lambda: metrics.recall_score(truth, answer), no_positive),
        "specificity": (lambda: metrics.recall_score(truth, answer, pos_label=False), no_negative),
        "ppv": (lambda: metrics.precision_score(truth, answer), never),
        "npv": (lambda: metrics.precision_score(truth, answer, pos_label=False), always),
        "f1": (lambda: metrics.f1_score(truth, answer), no_positive if never else None),
        "brier": (lambda: metrics.brier_score_loss(truth, scores, pos_label=True), None),
        "prevalence": (lambda: truth.mean(), None),
    }


def _several(cases: Cases, classes: list[str]) -> dict[str, Recipe]:
    from sklearn import metrics

    truth, answer = cases.truth, cases.answer
    absent = [name for column, name in enumerate(classes) if not (truth == column).any()]
    reason = f"no {absent[0]} images in this split" if absent else None

    def auroc() -> float:
        columns = range(cases.classes)
        return float(np.mean([metrics.roc_auc_score(truth == k, cases.probabilities[:, k]) for k in columns]))

    recipes: dict[str, Recipe] = {
        "auroc": (auroc, reason),
        "accuracy": (lambda: metrics.accuracy_score(truth, answer), None),
        "balanced_accuracy": (lambda: metrics.balanced_accuracy_score(truth, answer), reason),
    }
    for column, name in enumerate(classes):
        recipes[f"sensitivity:{name}"] = (
            lambda column=column: metrics.recall_score(truth == column, answer == column),  # type: ignore[misc]
            f"no {name} images in this split" if name in absent else None,
        )
    return recipes


def _shared(cases: Cases, classes: list[str]) -> dict[str, Recipe]:
    from sklearn import metrics

    columns = list(range(cases.classes))
    sure, covered = cases.certain, cases.covered

    def loss(probabilities: Float64) -> float:
        return float(metrics.log_loss(cases.truth, probabilities, labels=columns))

    def error(probabilities: Float64) -> float:
        return calibration_error(*cases.confidence(probabilities))

    recipes: dict[str, Recipe] = {
        "ece": (lambda: error(cases.probabilities), None),
        "ece_uncalibrated": (lambda: error(cases.uncalibrated), None),
        "ece_change": (lambda: error(cases.probabilities) - error(cases.uncalibrated), None),
        "nll": (lambda: loss(cases.probabilities), None),
        "nll_uncalibrated": (lambda: loss(cases.uncalibrated), None),
        "coverage": (lambda: metrics.accuracy_score(np.ones(len(cases)), covered), None),
        "uncertain": (lambda: metrics.zero_one_loss(np.ones(len(cases)), sure), None),
        "accuracy_certain": (
            lambda: metrics.accuracy_score(cases.truth[sure], cases.answer[sure]),
            None if sure.any() else "no image is certain",
        ),
    }
    for column, name in enumerate(classes):
        own = cases.truth == column
        recipes[f"coverage:{name}"] = (
            lambda own=own: metrics.recall_score(own, covered & own),  # type: ignore[misc]
            None if own.any() else f"no {name} images in this split",
        )
    return recipes


def calibration_bins(confidence: Float64) -> NDArray[np.int64]:
    """Number of the equally wide bin of each confidence, [N].

    A confidence of exactly 1 has a bin of its own, number `ECE_BINS`, as in torchmetrics.
    """
    edges = np.linspace(0, 1, ECE_BINS + 1)
    return np.searchsorted(edges, np.clip(confidence, 0, 1), side="right") - 1


def calibration_error(confidence: Float64, hit: NDArray[np.bool_]) -> float:
    """Expected calibration error with equally wide bins (Naeini et al., 2015).

    The same figure as torchmetrics' `binary_calibration_error` (a test compares them), without loading torch.

    Args:
        confidence: [N] in [0, 1].
        hit: Whether the confident claim was true, [N].
    """
    gap = np.bincount(calibration_bins(confidence), weights=confidence - hit, minlength=ECE_BINS + 1)
    return float(np.abs(gap).sum() / len(confidence))


def _call(compute: Callable[[], float], reason: str | None) -> Point:
    if reason:
        return None, reason
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of zero divisions that the reasons above have handled
        return float(compute()), None
