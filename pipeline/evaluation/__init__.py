"""Evaluation of a run: metrics with confidence intervals, subgroups, stress test and report."""

from pneumo.pipeline.evaluation.measure import evaluate_run
from pneumo.pipeline.evaluation.results import Bootstrap, Estimate, EvaluationReport, Metrics, SplitResult, read_metrics

__all__ = [
    "Bootstrap",
    "Estimate",
    "EvaluationReport",
    "Metrics",
    "SplitResult",
    "evaluate_run",
    "read_metrics",
]
