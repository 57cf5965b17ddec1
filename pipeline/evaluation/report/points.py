"""Curves of a split as points, for pages, tables and experiment tracking."""

import numpy as np

from pneumo.pipeline.evaluation.cases import Cases, positive_column, read_predictions, to_scores
from pneumo.pipeline.evaluation.classification_metrics import calibration_bins
from pneumo.pipeline.evaluation.results import read_metrics
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.arrays import Float64, Mask

Points = list[tuple[float, float]]

THRESHOLDS = np.linspace(0.01, 0.99, 99)
"""Threshold probabilities of a decision curve, [T]."""


def read_cases(run: Run, split: str) -> Cases:
    """Return the images of one split of an evaluated run, with its decisions.

    Raises:
        InputError: The run was not evaluated.
    """
    metrics = read_metrics(run)
    scores = to_scores(read_predictions(run), metrics.classes, place=str(run.predictions)).select(split)
    return Cases.make(scores, metrics.decisions, positive_column(metrics.classes, metrics.positive))


def roc_points(cases: Cases) -> Points:
    """Return false positive rates and sensitivities; empty with more than two classes or only one."""
    from sklearn.metrics import roc_curve

    truth = cases.truth == cases.positive
    if cases.positive is None or truth.all() or not truth.any():
        return []
    false_positive_rate, sensitivity, _ = roc_curve(truth, cases.probabilities[:, cases.positive])
    return list(zip(false_positive_rate.tolist(), sensitivity.tolist(), strict=True))


def net_benefit(called: Mask, truth: Mask) -> Float64:
    """Return the net benefit [T] of calling images positive, [T, N] at each of `THRESHOLDS`, given positive ones [N].

    True positives per image, less false positives per image times the odds of the threshold (Vickers and Elkin,
    Decision Curve Analysis, 2006).
    """
    odds = THRESHOLDS / (1 - THRESHOLDS)
    return np.asarray((called & truth).mean(axis=1) - odds * (called & ~truth).mean(axis=1))


def reliability_points(cases: Cases, probabilities: Float64) -> Points:
    """Return mean predicted probability and observed rate of each bin with images, for probabilities [N, K]."""
    confidence, hit = cases.confidence(probabilities)
    bins = calibration_bins(confidence)
    return [(float(confidence[bins == number].mean()), float(hit[bins == number].mean())) for number in np.unique(bins)]
