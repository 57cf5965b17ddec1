"""`pneumo evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import Row, format_number, print_json, print_lines, print_table, say, style_text
from pneumo.pipeline.cli.progress import ConsoleReporter, count_bar
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.contracts.figures import format_interval
from pneumo.serving.contracts.quantities import format_count
from pneumo.serving.contracts.setting_types import parse_root

if TYPE_CHECKING:
    from pneumo.pipeline.evaluation import EvaluationReport, SplitResult
    from pneumo.pipeline.evaluation.results import Estimate
    from pneumo.pipeline.evaluation.stress.stress_test import StressReport
    from pneumo.pipeline.release.site_evaluation import SiteReport
    from pneumo.pipeline.runs.run import Run

_OF_SUBGROUPS = ("auroc", "sensitivity", "specificity", "accuracy")


def evaluate(
    context: typer.Context,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_BUNDLE",
            help=f"{options.RUN_HELP} With --data also an alias, version, or path of a bundle (with a slash).",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labelled images of another site, made by `pneumo data import`: measures the bundle.",
            show_default="that of the run",
        ),
    ] = None,
    split: Annotated[
        options.SplitName | None,
        typer.Option(
            help="Split to show, and to show first in the report.",
            show_default="test, if there is one, or all images with --data",
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="Policy of the decision threshold, fitted on validation and kept in the run: "
            "'max balanced accuracy', 'max accuracy', 'sensitivity >= 95%', 'specificity >= 90%', 'cost FN:FP = 5:1'. "
            "With --data: shown beside the shipped threshold, cross-fitted.",
            show_default="the run's own, at first that of its config",
        ),
    ] = None,
    stress: Annotated[
        bool,
        typer.Option(
            "--stress",
            help="Run the stress test instead: predict validation images under changes of scanner and operator. "
            "Takes minutes; writes stress.json.",
        ),
    ] = False,
    stress_images: Annotated[
        int, typer.Option(min=2, help="With --stress: most images to change, each in every way.")
    ] = 200,
    tables: Annotated[
        Path | None,
        typer.Option(help="Folder for metrics and curves as JSON and CSV, for `dvc metrics` and `dvc plots`."),
    ] = None,
    limits: Annotated[
        Path | None, typer.Option(help="With --data: gate.yaml with limits; exits 1 if one is not met.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="With --data: folder of the report, HTML and JSON.", show_default="evaluations")
    ] = Path("evaluations"),
    runs_dir: options.RunsDirOption = Path("runs"),
    models_dir: options.ModelsDirOption = "models",
    as_json: options.JsonOption = False,
) -> None:
    """Evaluate a run, or a bundle at a site, and write a report.

    A run is measured on its own data set, a bundle on that of --data. Intervals are by patient. The threshold is fitted
    on validation; at a site none is, but that of --policy.
    """
    from pneumo.pipeline import training
    from pneumo.pipeline.data.manifest import Split, read_dataset
    from pneumo.pipeline.decisions.policies import Policy
    from pneumo.pipeline.evaluation import evaluate_run
    from pneumo.pipeline.runs.run import Run, Status

    if data is None:
        options.refuse_options(context, {"limits", "out", "models_dir"}, because="a site needs --data")
    else:
        options.refuse_options(context, {"tables"}, because="--tables holds results of the run's own data set")
    if stress:
        because = "--stress uses the run's own validation images and threshold"
        options.refuse_options(context, {"data", "split", "policy", "tables"}, because=because)
    else:
        options.refuse_options(context, {"stress_images"}, because="--stress-images needs --stress")
    if policy is not None:
        Policy.parse(policy)  # before work of minutes
    chosen = Split[split.upper()] if split else None
    if data is not None:
        from pneumo.pipeline.release.registry import find_bundle
        from pneumo.pipeline.release.site_evaluation import evaluate_bundle
        from pneumo.serving.model.bundle import Bundle

        dataset = read_dataset(data)  # before a run is exported, which takes minutes
        bundle = find_bundle(run, root=parse_root(models_dir), runs=runs_dir, reporter=ConsoleReporter())
        with ConsoleReporter().waiting(f"evaluating {run} on {data}"):
            site = evaluate_bundle(Bundle.open(bundle), dataset, out=out, split=chosen, policy=policy, limits=limits)
        _show_site(site, as_json)
        return
    try:
        source = Run.open(run, root=runs_dir)
    except InputError as error:
        raise InputError(f"{error}; a bundle needs --data") from None
    is_done = source.info().status is Status.DONE
    if is_done and not source.predictions.is_file():  # a sweep predicts only its best trials
        training.complete(source, reporter=ConsoleReporter())
    if stress:
        _run_stress_test(source, images=stress_images, as_json=as_json)
        return
    with ConsoleReporter().waiting(f"evaluating {source.name}"):
        report = evaluate_run(source, split=chosen, policy=policy)
    if tables is not None:
        from pneumo.pipeline.evaluation.report.metric_tables import write_tables

        write_tables(source, tables, lead=report.split)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _show(report)


def _show_site(site: "SiteReport", as_json: bool) -> None:
    """Print the evaluation of a bundle; raise a `CheckFailedError` if a limit is not met."""
    if as_json:
        print_json(site.model_dump(mode="json"))
    else:
        print_lines("What these images can show:", *site.power, "")
        _show(site)
        print_lines(*(f"{fact}." for fact in site.facts))
        if site.refit:
            print_lines(f"with the policy, {site.positive} at or above {site.refit_threshold:.4g}, cross-fitted:")
            _show_metrics(site.refit)
    if site.objections:
        raise CheckFailedError(f"{site.run} does not meet its limits on {site.data}: {'; '.join(site.objections)}")


def _show(report: "EvaluationReport") -> None:
    result, decisions = report.result, report.decisions
    counts = ", ".join(f"{count:,} {name}" for name, count in result.counts.items())
    lines = [
        f"{report.run}: {report.split} of {report.data}",
        f"{format_count(result.images, 'image')} of {format_count(result.patients, 'patient')}: {counts}",
    ]
    if decisions.threshold is not None:
        others = "" if decisions.equivalent is None else "; {:.4g} to {:.4g} are as good".format(*decisions.equivalent)
        lines.append(
            f"{report.positive} at or above {decisions.threshold:.4g} ({decisions.policy}, fitted on "
            f"{decisions.fitted_on}{others}), temperature {decisions.temperature:.3f}"
        )
    print_lines(*lines)
    _show_metrics(result)
    if result.subgroups:
        _show_subgroups(result)
        if result.worst_group:
            print_lines(f"worst-group AUROC: {result.worst_group}")
    for remark in report.remarks:
        say(f"note: {remark}")
    for file in report.files:
        say(f"wrote {file}")
    say("Research software, not a medical device.")


def _show_metrics(result: "SplitResult") -> None:
    from pneumo.pipeline.evaluation.report.template import format_value
    from pneumo.pipeline.evaluation.results import by_section, title

    rows: list[Row] = []
    for section, names in by_section(result.metrics).items():
        rows += [[], [style_text(section, "bold"), "", ""]]
        for name in names:
            estimate = result.metrics[name]
            interval = format_interval(estimate) or estimate.reason or ""
            rows.append([f"  {title(name)}", format_value(estimate), interval])
    print_table(["metric", "value", "95% interval"], rows, right=["value"])


def _show_subgroups(result: "SplitResult") -> None:
    from pneumo.pipeline.evaluation.results import title

    names = [name for name in _OF_SUBGROUPS if any(name in part.metrics for part in result.subgroups)]
    rows = (
        [
            f"{part.group}: {part.value}",
            f"{part.images:,} ({part.patients:,})",
            *(format_estimate(part.metrics.get(name)) for name in names),
        ]
        for part in result.subgroups
    )
    print_table(["subgroup", "images (patients)", *map(title, names)], rows, right=["images (patients)"])


def format_estimate(estimate: "Estimate | None") -> str:
    """Return a value with its interval; nothing for None."""
    from pneumo.pipeline.evaluation.report.template import format_value

    return "" if estimate is None else f"{format_value(estimate)}  {format_interval(estimate)}".strip()


def _run_stress_test(run: "Run", *, images: int, as_json: bool) -> None:
    from pneumo.pipeline.evaluation.stress.shifts import list_shifts
    from pneumo.pipeline.evaluation.stress.stress_test import FILE, run_stress_test

    with count_bar("predicting changed images", len(list_shifts()) + 3) as bar:
        report = run_stress_test(run, images=images, progress=bar.begin)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _show_stress_test(report)
    say(f"wrote {run.folder / FILE}")
    say("Research software, not a medical device.")


def _show_stress_test(report: "StressReport") -> None:
    from pneumo.pipeline.evaluation.report.template import format_value
    from pneumo.pipeline.evaluation.results import title
    from pneumo.pipeline.evaluation.stress.coverage import describe_lowest_coverage
    from pneumo.pipeline.evaluation.stress.stress_test import FAMILY_COLUMNS, REPORT_ONLY, list_families

    names = [name for name in report.unchanged.metrics if not name.startswith(("auroc", "coverage"))]
    right = ["AUROC", "95% interval", *map(title, names), "Share flagged"]
    kinds = ["family", "used for"]
    rows: list[list[str]] = []
    for result in (report.unchanged, *report.shifts):
        auroc = result.metrics["auroc"]
        rows.append(
            [
                result.title,
                result.family or "",
                result.use or "",
                format_value(auroc),
                format_interval(auroc),
                *(format_value(result.metrics[name]) for name in names),
                format_number(result.flagged) or "-",
            ]
        )
    rows.insert(1, [])
    print_table(["change", *kinds, *right], rows, right=right, title=f"{report.run}: {report.split} of {report.data}")
    print_table(FAMILY_COLUMNS, list_families(report), right=FAMILY_COLUMNS[1:-1])
    images, patients = format_count(report.images, "image"), format_count(report.patients, "patient")
    lines = [f"{images} of {patients}, unchanged and changed", REPORT_ONLY]
    if coverage := describe_lowest_coverage(report):
        lines.append(coverage)
    print_lines(*lines)
