"""The report of a run: one HTML file that needs nothing else, for a screen or for paper."""

from datetime import UTC, datetime
from pathlib import Path

from pneumo.pipeline.evaluation.cases import SPLITS, Cases, Scores, positive_column
from pneumo.pipeline.evaluation.report import plots
from pneumo.pipeline.evaluation.report.history import read_curves
from pneumo.pipeline.evaluation.report.mistakes import worst_mistakes
from pneumo.pipeline.evaluation.report.template import render
from pneumo.pipeline.evaluation.results import Metrics, by_section, remarks
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.files import write_text

_TEMPLATE = "report.html"
_HEADLINE = ("auroc", "sensitivity", "specificity", "balanced_accuracy", "accuracy", "ece")
_SUBGROUP = ("auroc", "sensitivity", "specificity", "accuracy", "coverage", "uncertain")
"""What is shown of a subgroup, as far as it has it."""

_TILES = 4


def write_report(path: Path, run: Run, metrics: Metrics, scores: Scores, *, lead: str, images: Path) -> None:
    """Write the report, atomically.

    Args:
        path: Where to.
        run: The run: config, provenance and learning curves come from it.
        metrics: What was measured.
        scores: The predictions that were measured.
        lead: Name of the split to lead with.
        images: Folder of the data set, for thumbnails; need not be there.
    """
    from markupsafe import Markup

    info = run.info()
    positive = positive_column(metrics.classes, metrics.positive)
    parts = {name: Cases.make(scores.select(name), metrics.decisions, positive) for name in metrics.splits}
    mistakes, wrong, missing = worst_mistakes(parts[lead], metrics.classes, images, metrics.data_fingerprint)
    curves = read_curves(run)
    result = metrics.splits[lead]
    page = render(
        _TEMPLATE,
        info=info,
        metrics=metrics,
        lead=lead,
        result=result,
        splits=[name for name in reversed(SPLITS) if name in metrics.splits],
        sections=by_section(name for part in metrics.splits.values() for name in part.metrics),
        remarks=remarks(metrics),
        headline=[name for name in _HEADLINE if name in result.metrics][:_TILES],
        subgroup_metrics=[name for name in _SUBGROUP if any(name in part.metrics for part in result.subgroups)],
        shares=[_shares(row) for row in result.confusion.counts],
        roc=Markup(plots.plot_roc(parts, metrics.classes, lead)),
        precision_recall=Markup(plots.plot_precision_recall(parts, metrics.classes, lead)),
        reliability=Markup(plots.plot_reliability(parts[lead], metrics.classes)),
        learning=Markup(plots.plot_learning(curves)) if curves else None,
        mistakes=mistakes,
        wrong=wrong,
        missing=missing,
        config=run.config.read_text(encoding="utf-8") if run.config.is_file() else None,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    write_text(path, page)


def _shares(row: list[int]) -> list[float]:
    return [count / sum(row) if sum(row) else 0.0 for count in row]
