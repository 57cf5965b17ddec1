"""Curves of a split as points, for pages, tables and trackers."""

import numpy as np

from pneumo.pipeline.evaluation.cases import Cases, positive_column, to_scores
from pneumo.pipeline.evaluation.classification_metrics import calibration_bins
from pneumo.pipeline.evaluation.results import read_metrics
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.arrays import Float64

Points = list[tuple[float, float]]


def read_cases(run: Run, split: str) -> Cases:
    """The images of one split of a run that was measured, with its decisions.

    Raises:
        InputError: The run was not measured.
    """
    import pandas as pd

    metrics = read_metrics(run)
    scores = to_scores(pd.read_parquet(run.predictions), metrics.classes, place=str(run.predictions)).select(split)
    return Cases.make(scores, metrics.decisions, positive_column(metrics.classes, metrics.positive))


def roc_points(cases: Cases) -> Points:
    """False positive rate and sensitivity; none with more than two classes, or where all images are of one."""
    from sklearn.metrics import roc_curve

    if cases.positive is None:
        return []
    truth = cases.truth == cases.positive
    if truth.all() or not truth.any():
        return []
    false, found, _ = roc_curve(truth, cases.probabilities[:, cases.positive])
    return list(zip(false.tolist(), found.tolist(), strict=True))


def reliability_points(cases: Cases, probabilities: Float64) -> Points:
    """Mean claimed probability and the share that came true, by bin that holds images.

    Args:
        cases: The images, which must not be none.
        probabilities: Those of `cases`, calibrated or not, [N, K].
    """
    confidence, hit = cases.confidence(probabilities)
    bins = calibration_bins(confidence)
    return [(float(confidence[bins == number].mean()), float(hit[bins == number].mean())) for number in np.unique(bins)]
