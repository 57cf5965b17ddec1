"""`pneumo evaluate`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.output import JsonOption, print_json, say, stdout

if TYPE_CHECKING:
    from pipeline.evaluation import EvaluationReport


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
            "'max balanced accuracy', 'sensitivity >= 0.95', "
            "'specificity >= 0.9'.",
            show_default="the run's own",
        ),
    ] = None,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="Folder of the runs.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Measure a run and draw its report. Intervals are by patient, threshold and calibration come from validation."""
    from pipeline.data.manifest import Split
    from pipeline.evaluation import evaluate_folder, evaluate_run
    from pipeline.runs import Run

    found = Run.open(run, root=runs_dir)
    chosen = Split[split.name] if split else None
    say(f"evaluating {found.name} ...")
    report = (
        evaluate_run(found, split=chosen, policy=policy)
        if data is None
        else evaluate_folder(found, data, split=chosen, policy=policy)
    )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _show(report)


def _show(report: "EvaluationReport") -> None:
    from rich.table import Table
    from rich.text import Text

    from pipeline.evaluation.report import figure, interval
    from pipeline.evaluation.results import title

    result, decisions = report.result, report.decisions
    counts = ", ".join(f"{count:,} {name}" for name, count in result.counts.items())
    table = Table(
        title=Text(f"{report.run}: {report.split} of {report.data}"), title_justify="left", title_style="bold"
    )
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("95 % interval")
    for name, estimate in result.metrics.items():
        table.add_row(Text(title(name)), figure(estimate), Text(interval(estimate) or estimate.reason or ""))
    console = stdout()
    console.print(table)
    console.print(f"{result.images:,} images of {result.patients:,} patients: {counts}", markup=False)
    if decisions.threshold is not None:
        console.print(
            f"{report.positive} from {decisions.threshold:.4g} on ({decisions.policy}, chosen on "
            f"{decisions.fitted_on}), temperature {decisions.temperature:.3f}",
            markup=False,
        )
    for note in decisions.notes:
        say(f"note: {note}")
    for file in report.files:
        say(f"wrote {file}")
    say("Research software, not a medical device.")
