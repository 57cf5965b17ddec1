"""Predictions for tests of metrics, and the metrics of scikit-learn for them."""

import warnings
from typing import Any

import numpy as np
from sklearn import metrics

from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.evaluation.cases import Cases


def make_decisions(**changes: Any) -> Decisions:
    """Make decisions of temperature 1 and threshold 0.5."""
    values: dict[str, Any] = {
        "temperature": 1,
        "threshold": 0.5,
        "policy": "",
        "conformal_level": 0.9,
        "conformal_limit": 0.4,
        "outlier_quantile": 0.99,
        "fitted_on": "validation",
        "images": 1,
    }
    return Decisions(**(values | changes))


def make_binary_cases(probability: np.ndarray, truth: np.ndarray) -> Cases:
    """Make one image per patient from probabilities of the positive class."""
    columns, number = np.stack([1 - probability, probability], axis=1), np.arange(len(truth))
    answer, sets = (probability >= 0.5).astype(np.int64), np.ones(columns.shape, dtype=np.bool_)
    return Cases(
        [str(each) for each in number], number, len(truth), truth.astype(np.int64), columns, columns, answer, sets, 1
    )


def reference_metrics(cases: Cases, classes: list[str]) -> dict[str, float]:
    """Compute the metrics of a split with scikit-learn, but for calibration errors; NaN if undefined."""
    truth, answer, columns = cases.truth, cases.answer, range(len(classes))
    one_class = len(set(truth.tolist())) < len(classes)
    nan = float("nan")

    def share(values: np.ndarray) -> float:
        return float(values.mean()) if len(values) else nan

    def loss(probabilities: np.ndarray) -> float:
        return float(metrics.log_loss(truth, probabilities, labels=list(columns)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {
            "accuracy": metrics.accuracy_score(truth, answer),
            "balanced_accuracy": nan if one_class else metrics.balanced_accuracy_score(truth, answer),
            "nll": loss(cases.probabilities),
            "nll_uncalibrated": loss(cases.uncalibrated),
            "coverage": share(cases.covered),
            "uncertain": share(~cases.certain),
            "accuracy_certain": share(cases.correct[cases.certain]),
        }
        found |= {f"coverage:{name}": share(cases.covered[truth == k]) for k, name in enumerate(classes)}
        if cases.positive is None:
            aurocs = [
                nan if one_class else metrics.roc_auc_score(truth == k, cases.probabilities[:, k]) for k in columns
            ]
            found |= {f"sensitivity:{name}": share(answer[truth == k] == k) for k, name in enumerate(classes)}
            return found | {"auroc": float(np.mean(aurocs))}
        truth, answer, scores = truth == 1, answer == 1, cases.probabilities[:, 1]
        return found | {
            "auroc": nan if one_class else metrics.roc_auc_score(truth, scores),
            "average_precision": nan if one_class else metrics.average_precision_score(truth, scores),
            "sensitivity": metrics.recall_score(truth, answer, zero_division=nan),
            "specificity": metrics.recall_score(truth, answer, pos_label=False, zero_division=nan),
            "ppv": metrics.precision_score(truth, answer, zero_division=nan),
            "npv": metrics.precision_score(truth, answer, pos_label=False, zero_division=nan),
            "f1": metrics.f1_score(truth, answer, zero_division=nan),
            "brier": metrics.brier_score_loss(truth, scores, pos_label=True),
            "prevalence": share(truth),
        }
