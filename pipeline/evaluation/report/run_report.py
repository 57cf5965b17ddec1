"""The report of a run, or of a bundle at a site: one HTML file that loads nothing, for a screen or for paper."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pneumo.pipeline.data.shortcuts import EXPLANATION, describe_shortcuts
from pneumo.pipeline.evaluation.bootstrap import estimate_metrics
from pneumo.pipeline.evaluation.cases import Cases
from pneumo.pipeline.evaluation.report import plots
from pneumo.pipeline.evaluation.report.history import describe_kept_round, read_curves
from pneumo.pipeline.evaluation.report.mistakes import make_thumbnail, worst_mistakes
from pneumo.pipeline.evaluation.report.template import render
from pneumo.pipeline.evaluation.results import Metrics, by_section, list_remarks
from pneumo.pipeline.evaluation.run_dataset import read_unchanged
from pneumo.pipeline.evaluation.stress.coverage import describe_lowest_coverage, rank_by_coverage
from pneumo.pipeline.evaluation.stress.stress_test import read_stress_report
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.files import write_text

_HEADLINE = ("auroc", "sensitivity", "specificity", "balanced_accuracy", "accuracy", "ece")
_SUBGROUP = ("auroc", "sensitivity", "specificity", "accuracy", "coverage", "uncertain")
_BY_CLASS = ("auroc", "sensitivity", "specificity", "ppv", "npv", "ece")
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
    facts: Sequence[str] = (),
) -> None:
    """Write the report of predictions by split atomically, led by one split.

    Thumbnails come from the data set in the folder `images`, which may be gone; config, provenance and learning curves
    from the run if it is one. `power` says what the images can show; `facts` are further sentences of the summary.
    """
    from markupsafe import Markup

    dataset, missing = read_unchanged(images, metrics.data_fingerprint)
    cases, classes = parts[lead], metrics.classes
    mistakes, wrong = worst_mistakes(cases, classes)
    curves, kept = (read_curves(run), describe_kept_round(run)) if run else ([], None)
    result = metrics.splits[lead]
    rest = {} if metrics.positive else {name: cases.against_rest(column) for column, name in enumerate(classes)}
    stress = read_stress_report(run) if run else None
    page = render(
        "report.html",
        filters={"thumbnail": lambda image: None if missing else make_thumbnail(images, image)},
        info=run.info() if run else None,
        power=power,
        metrics=metrics,
        lead=lead,
        result=result,
        splits=[*reversed(metrics.splits)],
        facts=[*facts, *filter(None, [kept])],
        dropped=max(each.dropped for part in metrics.splits.values() for each in part.metrics.values()),
        by_class={
            name: estimate_metrics(one, [f"not {name}", name], metrics.bootstrap)[0] for name, one in rest.items()
        },
        class_metrics=_BY_CLASS,
        sections=by_section(name for part in metrics.splits.values() for name in part.metrics),
        remarks=list_remarks(metrics),
        headline=[name for name in _HEADLINE if name in result.metrics][:_TILES],
        subgroup_metrics=[name for name in _SUBGROUP if any(name in part.metrics for part in result.subgroups)],
        stress=stress,
        least_covered=[shift for _, shift in rank_by_coverage(stress)[:_CHANGES]] if stress else [],
        lowest_coverage=describe_lowest_coverage(stress) if stress else None,
        shares=[[count / (sum(row) or 1) for count in row] for row in result.confusion.counts],
        roc=Markup(plots.plot_roc(parts, classes, lead)),
        precision_recall=Markup(plots.plot_precision_recall(parts, classes, lead)),
        decisions=[
            Markup(plots.plot_decision_curve(one, name, f"decision-{number}"))
            for number, (name, one) in enumerate((rest or {metrics.positive or "": cases}).items())
        ],
        reliability=Markup(plots.plot_reliability(cases, classes)),
        reliabilities=[
            Markup(plots.plot_reliability(one, [f"not {name}", name], f"reliability-{number}"))
            for number, (name, one) in enumerate(rest.items())
        ],
        learning=Markup(plots.plot_learning(curves)) if curves else None,
        kept=kept,
        shortcuts=describe_shortcuts(dataset.info.shortcuts) if dataset else [missing],
        explanation=EXPLANATION,
        mistakes=mistakes,
        wrong=wrong,
        missing=missing,
        config=run.config.read_text(encoding="utf-8") if run and run.config.is_file() else None,
    )
    write_text(path, page)
