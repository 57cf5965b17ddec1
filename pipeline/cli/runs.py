"""`pneumo runs`: what was tried."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli.evaluate import SplitName
from pneumo.pipeline.cli.output import JsonOption, print_json, say, stdout
from pneumo.serving.contracts.errors import InputError

if TYPE_CHECKING:
    from pneumo.pipeline.comparing.side_by_side import RunComparison

app = typer.Typer(help="What was trained so far.", no_args_is_help=True)

RunsDirOption = Annotated[Path, typer.Option("--runs-dir", help="Folder of the runs.")]

_STYLES = {"done": "green", "running": "cyan", "interrupted": "yellow", "failed": "red", "damaged": "red"}


@app.command("list")
def list_(runs_dir: RunsDirOption = Path("runs"), as_json: JsonOption = False) -> None:
    """List the runs, newest first."""
    from rich.table import Table
    from rich.text import Text

    from pneumo.pipeline.comparing.run_list import summarise_runs

    found = summarise_runs(runs_dir)
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
    from pneumo.pipeline.comparing.run_list import standing
    from pneumo.pipeline.evaluation.results import read_metrics
    from pneumo.pipeline.runs.run import Run

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

    from pneumo.pipeline.evaluation.report.template import figure, interval
    from pneumo.pipeline.evaluation.results import title

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


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Run folder, name, unique start of a name, or 'latest'.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The other run.")],
    split: Annotated[SplitName, typer.Option("--split", help="Images that both held back.")] = SplitName.TEST,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page, too.", show_default="none")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also what both have in common.")] = False,
    runs_dir: RunsDirOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Show two runs side by side: configs, and metrics with paired bootstrap p-values over patients."""
    from pneumo.pipeline.comparing.side_by_side import compare_runs, write_page
    from pneumo.pipeline.runs.run import Run

    found = compare_runs(Run.open(first, root=runs_dir), Run.open(second, root=runs_dir), split=split.value)
    if html is not None:
        write_page(html, found)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    _print_settings(found, every)
    _print_differences(found)
    for note in found.notes:
        say(f"note: {note}")
    if html is not None:
        say(f"page: {html}")


def _print_settings(found: "RunComparison", every: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in ("", found.first, found.second):
        table.add_column(Text(column), overflow="fold")
    shown = [each for each in (*found.facts, *found.settings) if every or each.differs]
    for each in shown:
        cells = ["" if value is None else str(value) for value in (each.first, each.second)]
        table.add_row(Text(each.name), *(Text(cell, style="bold" if each.differs else "") for cell in cells))
    stdout().print(table)
    alike = sum(not each.differs for each in (*found.facts, *found.settings))
    if not every:
        say(f"{alike} more are the same in both (--all shows them)")


def _print_differences(found: "RunComparison") -> None:
    from rich.table import Table
    from rich.text import Text

    from pneumo.pipeline.evaluation.results import title

    images = f"{found.images} {found.split} images of {found.patients} patients" if found.images else found.split
    table = Table(title=f"{images}; differences with {found.bootstrap.level:.0%} intervals")
    table.add_column("metric")
    for column in (found.first, found.second, "difference", "", "p"):
        table.add_column(Text(column), justify="right")
    for each in found.differences:
        span = "" if each.low is None or each.high is None else f"{each.low:+.3f} to {each.high:+.3f}"
        change = "" if each.value is None else f"{each.value:+.3f}"
        p = "" if each.p is None else f"{each.p:.3f}"
        style = "bold" if each.p is not None and each.p < 0.05 else ""
        cells = [_number(each.first), _number(each.second), change, span, p]
        table.add_row(Text(title(each.metric), style=style), *(Text(cell, style=style) for cell in cells))
    stdout().print(table)


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
