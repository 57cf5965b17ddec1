"""`pneumo runs`: what was tried."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.output import JsonOption, print_json, say, stdout
from serving.errors import InputError

app = typer.Typer(help="What was trained so far.", no_args_is_help=True)

RunsDirOption = Annotated[Path, typer.Option("--runs-dir", help="Folder of the runs.")]

_STYLES = {"done": "green", "running": "cyan", "interrupted": "yellow", "failed": "red", "damaged": "red"}


@app.command("list")
def list_(runs_dir: RunsDirOption = Path("runs"), as_json: JsonOption = False) -> None:
    """List the runs, newest first."""
    from rich.table import Table
    from rich.text import Text

    from pipeline.run_list import summaries

    found = summaries(runs_dir)
    if as_json:
        print_json([summary.model_dump(mode="json") for summary in found])
        return
    if not found:
        say(f"No runs in {runs_dir} yet. Train one: `pneumo train ludwig_configs/smoke.yaml`")
        return
    table = Table()
    table.add_column("run", no_wrap=True, min_width=max(len(summary.name) for summary in found))  # to be copied
    table.add_column("status")
    for column in ("AUROC validation", "AUROC test"):
        table.add_column(column, justify="right")
    table.add_column("took")
    for summary in found:
        table.add_row(
            Text(summary.name),
            Text(summary.status, style=_STYLES.get(summary.status, "")),
            _number(summary.auroc_validation),
            _number(summary.auroc_test),
            _duration(summary.seconds),
        )
    stdout().print(table)
    for summary in found:
        if summary.error:
            say(f"{summary.name}: {summary.error}")


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="Run folder, name, unique start of a name, or 'latest'.")],
    runs_dir: RunsDirOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Show where a run came from, how it went and how good it is."""
    from pipeline.evaluation.results import read_metrics
    from pipeline.run_list import standing
    from pipeline.runs import Run

    found = Run.open(run, root=runs_dir)
    info = found.info()
    info = info.model_copy(update={"status": standing(found, info)})
    metrics, why = None, ""
    try:
        metrics = read_metrics(found)
    except InputError as error:
        why = str(error)
    if as_json:
        measured = metrics.model_dump(mode="json") if metrics else None
        print_json({"run": info.model_dump(mode="json"), "metrics": measured})
        return
    console = stdout()
    console.print(_facts(info.model_dump(mode="json")))
    if metrics is None:
        say(why)
        return
    from rich.table import Table
    from rich.text import Text

    from pipeline.evaluation.report import figure, interval
    from pipeline.evaluation.results import title

    table = Table()
    table.add_column("metric")
    for name in metrics.splits:
        table.add_column(name)
    for metric in next(iter(metrics.splits.values())).metrics:
        cells = []
        for part in metrics.splits.values():
            estimate = part.metrics[metric]
            cells.append(f"{figure(estimate)}  {interval(estimate)}".strip())
        table.add_row(Text(title(metric)), *cells)
    console.print(table)
    if found.report.is_file():
        say(f"report: {found.report}")


def _facts(document: dict[str, object]) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in document.items():
        if value is None or value == {}:
            continue
        shown = (
            ", ".join(f"{name} {part}" for name, part in value.items())
            if isinstance(value, dict)
            else (" ".join(map(str, value)) if isinstance(value, list) else str(value))
        )
        table.add_row(key.replace("_", " "), Text(shown))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
