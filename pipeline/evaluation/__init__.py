"""How good a run is: metrics with intervals, the decisions that go with them, and a report to read."""

from pneumo.pipeline.evaluation.measure import evaluate, evaluate_data, evaluate_folder, evaluate_run
from pneumo.pipeline.evaluation.results import (
    Bootstrap,
    Estimate,
    EvaluationReport,
    Metrics,
    SplitResult,
    read_metrics,
)

__all__ = [
    "Bootstrap",
    "Estimate",
    "EvaluationReport",
    "Metrics",
    "SplitResult",
    "evaluate",
    "evaluate_data",
    "evaluate_folder",
    "evaluate_run",
    "read_metrics",
]
