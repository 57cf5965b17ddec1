"""The report of a run, or of a bundle at a site: one HTML file that loads nothing, for a screen or for paper."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pneumo.pipeline.data.shortcuts import EXPLANATION, describe_shortcuts
from pneumo.pipeline.evaluation.cases import Cases
from pneumo.pipeline.evaluation.report import plots
from pneumo.pipeline.evaluation.report.history import read_curves
from pneumo.pipeline.evaluation.report.mistakes import worst_mistakes
from pneumo.pipeline.evaluation.report.template import render
from pneumo.pipeline.evaluation.results import Metrics, by_section, list_remarks
from pneumo.pipeline.evaluation.run_dataset import read_unchanged
from pneumo.pipeline.evaluation.stress.coverage import describe_lowest_coverage, rank_by_coverage
from pneumo.pipeline.evaluation.stress.stress_test import read_stress_report
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.files import write_text

_HEADLINE = ("auroc", "sensitivity", "specificity", "balanced_accuracy", "accuracy", "ece")
_SUBGROUP = ("auroc", "sensitivity", "specificity", "accuracy", "coverage", "uncertain")
_TILES = 4
_CHANGES = 8


def write_report(
    path: Path,
    metrics: Metrics,
    parts: Mapping[str, Cases],
    *,
    lead: str,
    images: Path,
    run: Run | None = None,
    power: Sequence[str] = (),
) -> None:
    """Write the report of predictions by split atomically, led by one split.

    Thumbnails come from the data set in the folder `images`, which may be gone; config, provenance and learning curves
    from the run if it is one. `power` says what the images can show.
    """
    from markupsafe import Markup

    dataset, missing = read_unchanged(images, metrics.data_fingerprint)
    mistakes, wrong = worst_mistakes(parts[lead], metrics.classes, None if missing else images)
    curves = read_curves(run) if run else []
    result = metrics.splits[lead]
    stress = read_stress_report(run) if run else None
    page = render(
        "report.html",
        info=run.info() if run else None,
        power=power,
        metrics=metrics,
        lead=lead,
        result=result,
        splits=[*reversed(metrics.splits)],
        sections=by_section(name for part in metrics.splits.values() for name in part.metrics),
        remarks=list_remarks(metrics),
        headline=[name for name in _HEADLINE if name in result.metrics][:_TILES],
        subgroup_metrics=[name for name in _SUBGROUP if any(name in part.metrics for part in result.subgroups)],
        stress=stress,
        least_covered=[shift for _, shift in rank_by_coverage(stress)[:_CHANGES]] if stress else [],
        lowest_coverage=describe_lowest_coverage(stress) if stress else None,
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
        config=run.config.read_text(encoding="utf-8") if run and run.config.is_file() else None,
    )
    write_text(path, page)
