"""The report of a run: one HTML file that loads nothing, for a screen or for paper."""

from pathlib import Path

from pneumo.pipeline.data.shortcuts import EXPLANATION, describe_shortcuts
from pneumo.pipeline.evaluation.cases import SPLITS, Cases, Scores, positive_column
from pneumo.pipeline.evaluation.report import plots
from pneumo.pipeline.evaluation.report.history import read_curves
from pneumo.pipeline.evaluation.report.mistakes import worst_mistakes
from pneumo.pipeline.evaluation.report.template import render
from pneumo.pipeline.evaluation.results import Metrics, by_section, list_remarks
from pneumo.pipeline.evaluation.run_dataset import read_unchanged
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.files import write_text

_HEADLINE = ("auroc", "sensitivity", "specificity", "balanced_accuracy", "accuracy", "ece")
_SUBGROUP = ("auroc", "sensitivity", "specificity", "accuracy", "coverage", "uncertain")
_TILES = 4


def write_report(path: Path, run: Run, metrics: Metrics, scores: Scores, *, lead: str, images: Path) -> None:
    """Write the report of predictions atomically, led by one split.

    Thumbnails come from the data set in the folder `images`, which may be gone; config, provenance and learning curves
    from the run.
    """
    from markupsafe import Markup

    positive = positive_column(metrics.classes, metrics.positive)
    parts = {name: Cases.make(scores.select(name), metrics.decisions, positive) for name in metrics.splits}
    dataset, missing = read_unchanged(images, metrics.data_fingerprint)
    mistakes, wrong = worst_mistakes(parts[lead], metrics.classes, None if missing else images)
    curves = read_curves(run)
    result = metrics.splits[lead]
    page = render(
        "report.html",
        info=run.info(),
        metrics=metrics,
        lead=lead,
        result=result,
        splits=[name for name in reversed(SPLITS) if name in metrics.splits],
        sections=by_section(name for part in metrics.splits.values() for name in part.metrics),
        remarks=list_remarks(metrics),
        headline=[name for name in _HEADLINE if name in result.metrics][:_TILES],
        subgroup_metrics=[name for name in _SUBGROUP if any(name in part.metrics for part in result.subgroups)],
        shares=[[count / (sum(row) or 1) for count in row] for row in result.confusion.counts],
        roc=Markup(plots.plot_roc(parts, metrics.classes, lead)),
        precision_recall=Markup(plots.plot_precision_recall(parts, metrics.classes, lead)),
        reliability=Markup(plots.plot_reliability(parts[lead], metrics.classes)),
        learning=Markup(plots.plot_learning(curves)) if curves else None,
        shortcuts=describe_shortcuts(dataset.info.shortcuts) if dataset else [missing],
        explanation=EXPLANATION,
        mistakes=mistakes,
        wrong=wrong,
        missing=missing,
        config=run.config.read_text(encoding="utf-8") if run.config.is_file() else None,
    )
    write_text(path, page)
