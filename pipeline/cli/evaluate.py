"""`pneumo evaluate`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli.output import ConsoleReporter, JsonOption, print_json, say, stdout
from pneumo.pipeline.cli.stress import stress_run
from pneumo.serving.contracts.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from pneumo.pipeline.decisions import Decisions
    from pneumo.pipeline.evaluation import EvaluationReport, SplitResult

_OF_SUBGROUPS = ("auroc", "sensitivity", "specificity", "accuracy")


class SplitName(StrEnum):
    """The splits by the names that people use."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(
    run: Annotated[str, typer.Argument(help="Run folder, name, unique start of a name, or 'latest'.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Another data set made by `pneumo data import`; the run's own by default."),
    ] = None,
    split: Annotated[
        SplitName | None,
        typer.Option("--split", help="What to show and lead the report with.", show_default="test, where there is one"),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            help="Rule for the threshold, fitted on validation and kept in the run: "
            "'max balanced accuracy', 'max accuracy', 'sensitivity >= 0.95', 'specificity >= 0.9', 'cost FN:FP = 5:1'.",
            show_default="the run's own, at first that of its config",
        ),
    ] = None,
    stress: Annotated[
        bool,
        typer.Option(
            "--stress",
            help="Instead: predict validation images changed as another scanner or operator would, in some "
            "minutes; writes stress.json.",
        ),
    ] = False,
    stress_images: Annotated[
        int | None,
        typer.Option(
            "--stress-images",
            min=2,
            help="With --stress: most images to change, each in 40 ways.",
            show_default="200",
        ),
    ] = None,
    tables: Annotated[
        Path | None,
        typer.Option(
            "--tables", help="Also write metrics and curves as JSON and CSV here, for `dvc metrics` and `dvc plots`."
        ),
    ] = None,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="Folder of the runs.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Measure a run and draw its report. Intervals are by patient, threshold and calibration come from validation."""
    from pneumo.pipeline.data.manifest import Split
    from pneumo.pipeline.evaluation import evaluate_folder, evaluate_run
    from pneumo.pipeline.runs.run import Run, Status

    if tables is not None and (stress or data is not None):
        raise InputError("--tables: are of the run's own data set; leave out --data and --stress")
    found = Run.open(run, root=runs_dir)
    if not found.predictions.is_file() and found.info().status is Status.DONE:  # a sweep measures its best trials only
        from pneumo.pipeline import training

        training.complete(found, reporter=ConsoleReporter())
    if stress:
        if data is not None or split is not None or policy is not None:
            raise InputError(
                "--stress: takes the run's own validation images and threshold; leave out --data, --split and --policy"
            )
        stress_run(found, images=stress_images, as_json=as_json)
        return
    if stress_images is not None:
        raise InputError("--stress-images: is for --stress; add that or leave this out")
    chosen = Split[split.name] if split else None
    say(f"evaluating {found.name} ...")
    report = (
        evaluate_run(found, split=chosen, policy=policy)
        if data is None
        else evaluate_folder(found, data, split=chosen, policy=policy)
    )
    if tables is not None:
        from pneumo.pipeline.evaluation.report.metric_tables import write_tables

        write_tables(found, tables, lead=report.split)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _show(report)


def _show(report: "EvaluationReport") -> None:
    from rich.text import Text

    result, decisions = report.result, report.decisions
    counts = ", ".join(f"{count:,} {name}" for name, count in result.counts.items())
    console = stdout()
    console.print(Text(f"{report.run}: {report.split} of {report.data}", style="bold"))
    console.print(f"{result.images:,} images of {result.patients:,} patients: {counts}", markup=False)
    if decisions.threshold is not None:
        console.print(
            f"{report.positive} from {decisions.threshold:.4g} on ({decisions.policy}, chosen on "
            f"{decisions.fitted_on}{_others(decisions)}), temperature {decisions.temperature:.3f}",
            markup=False,
        )
    console.print(_metrics(result))
    if result.subgroups:
        console.print(_subgroups(result))
        if result.worst_group:
            console.print(f"worst-group AUROC is that of {result.worst_group}", markup=False)
    for remark in report.remarks:
        say(f"note: {remark}")
    for file in report.files:
        say(f"wrote {file}")
    say("Research software, not a medical device.")


def _others(decisions: "Decisions") -> str:
    """Which other thresholds are as good as far as anyone can tell."""
    if decisions.equivalent is None:
        return ""
    low, high = decisions.equivalent
    return f", where {low:.4g} to {high:.4g} did as well"


def _metrics(result: "SplitResult") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from pneumo.pipeline.evaluation.report.template import figure, interval
    from pneumo.pipeline.evaluation.results import by_section, title

    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % interval")
    for section, names in by_section(result.metrics).items():
        table.add_section()
        table.add_row(Text(section, style="bold"))
        for name in names:
            estimate = result.metrics[name]
            table.add_row(Text(f"  {title(name)}"), figure(estimate), Text(interval(estimate) or estimate.reason or ""))
    return table


def _subgroups(result: "SplitResult") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from pneumo.pipeline.evaluation.report.template import figure, interval
    from pneumo.pipeline.evaluation.results import title

    shown = [name for name in _OF_SUBGROUPS if any(name in part.metrics for part in result.subgroups)]
    table = Table()
    table.add_column("subgroup")
    table.add_column("images (patients)", justify="right")
    for name in shown:
        table.add_column(title(name))
    for part in result.subgroups:
        cells = []
        for name in shown:
            estimate = part.metrics.get(name)
            cells.append(f"{figure(estimate)}  {interval(estimate)}".strip() if estimate else "")
        table.add_row(Text(f"{part.group}: {part.value}"), f"{part.images:,} ({part.patients:,})", *cells)
    return table
