"""`pneumo runs`."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.evaluate import format_estimate
from pneumo.pipeline.cli.output import Row, format_number, print_json, print_list, print_table, say, style_text
from pneumo.serving.contracts.csv_text import format_csv
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text

if TYPE_CHECKING:
    from rich.text import Text

    from pneumo.pipeline.comparing.side_by_side import RunComparison

app = typer.Typer(help="List, show and compare runs.", no_args_is_help=True)

_SHOWN = "status,validation/auroc,test/auroc,seconds"
_STYLES = {"done": "green", "running": "cyan", "interrupted": "yellow", "failed": "red", "damaged": "red"}


@app.command("list")
def list_(
    runs_dir: options.RunsDirOption = Path("runs"),
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help="Columns, with commas between: test/auroc, seed, config.trainer.epochs.", show_default=_SHOWN
        ),
    ] = None,
    sort: Annotated[
        list[str] | None, typer.Option(help="Column to sort by; with - before it, descending.", show_default="newest")
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="Only runs with status=done, test/auroc>0.9, or any value of a column."),
    ] = None,
    diff_config: Annotated[
        bool, typer.Option("--diff-config", help="Add the settings that differ between the listed runs.")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write the table as CSV; - for standard output.", show_default="none")
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """List and compare runs. A metric that was not measured has the value of the last round of training."""
    from pneumo.pipeline.comparing.run_list import Query, list_changed_settings, summarise_runs

    if csv == Path("-") and as_json:
        raise InputError("--csv - and --json: both write to standard output; leave one out")
    shown = [name.strip() for name in ",".join(columns or [_SHOWN]).split(",") if name.strip()]
    query = Query(shown, filters or (), [name.strip() for name in ",".join(sort or ()).split(",") if name.strip()])
    summaries = query.select(summarise_runs(runs_dir, settings=diff_config or query.needs_settings))
    shown = list(dict.fromkeys(("name", *shown, *(list_changed_settings(summaries) if diff_config else ()))))
    if csv is not None:
        _write_csv(csv, [shown, *([summary.value(name) for name in shown] for summary in summaries)])
    if as_json:
        wanted = {name.removeprefix("config.") for name in shown}
        rows = [summary.model_dump(mode="json") for summary in summaries]
        print_json([row | {"settings": {k: v for k, v in row["settings"].items() if k in wanted}} for row in rows])
    if csv is not None or as_json:
        return
    if not summaries:
        hint = "no run meets the filters" if filters else "train one: `pneumo train ludwig_configs/smoke.yaml`"
        say(f"no runs in {runs_dir} to list; {hint}")
        return
    right = [name for name in shown if name not in ("name", "status", "config", "started")]
    print_table(shown, ([_format_cell(name, each.value(name)) for name in shown] for each in summaries), right=right)
    for summary in summaries:
        if summary.error:
            say(f"{summary.name}: {summary.error}")


def _format_cell(column: str, value: object) -> "str | Text":
    from pneumo.serving.contracts.quantities import format_duration

    if value is None:
        return ""
    if column == "status":
        return style_text(str(value), _STYLES.get(str(value), ""))
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if not isinstance(value, float):
        return json.dumps(value) if isinstance(value, bool) else str(value)
    return format_duration(value) if column == "seconds" else format_number(value) if "/" in column else f"{value:g}"


def _write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    text = format_csv(rows)
    if path == Path("-"):
        sys.stdout.write(text)
        return
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(f"--csv {path}: cannot be written ({error.strerror})") from None
    say(f"written: {path}")


@app.command()
def show(
    run: options.RunArgument, runs_dir: options.RunsDirOption = Path("runs"), as_json: options.JsonOption = False
) -> None:
    """Show the provenance, status and metrics of a run."""
    from pneumo.pipeline.comparing.run_list import current_status
    from pneumo.pipeline.evaluation.results import read_metrics, title
    from pneumo.pipeline.runs.run import Run

    opened = Run.open(run, root=runs_dir)
    info = opened.info()
    facts = info.model_copy(update={"status": current_status(opened, info)}).model_dump(mode="json")
    metrics, problem = None, ""
    try:
        metrics = read_metrics(opened)
    except InputError as error:
        problem = str(error)
    if as_json:
        print_json({"run": facts, "metrics": metrics.model_dump(mode="json") if metrics else None})
        return
    print_list(
        [style_text(key.replace("_", " "), "bold"), _format_fact(value)]
        for key, value in facts.items()
        if value not in (None, {})
    )
    if metrics is None:
        say(problem)
        return
    splits = metrics.splits.values()
    rows = (
        [title(metric), *(format_estimate(split.metrics[metric]) for split in splits)]
        for metric in next(iter(splits)).metrics
    )
    print_table(["metric", *metrics.splits], rows)
    if opened.report.is_file():
        say(f"report: {opened.report}")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=options.RUN_HELP)],
    second: Annotated[str, typer.Argument(metavar="B", help="The other run.")],
    split: Annotated[options.SplitName, typer.Option(help="Split whose metrics are compared.")] = "test",
    html: Annotated[Path | None, typer.Option(help="Also write the comparison as a page.", show_default="none")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also show settings that are equal.")] = False,
    runs_dir: options.RunsDirOption = Path("runs"),
    as_json: options.JsonOption = False,
) -> None:
    """Compare two runs: configs and metrics. P-values are of a paired bootstrap over patients."""
    from pneumo.pipeline.comparing.side_by_side import compare_runs, write_page
    from pneumo.pipeline.runs.run import Run

    comparison = compare_runs(Run.open(first, root=runs_dir), Run.open(second, root=runs_dir), split=split)
    if html is not None:
        write_page(html, comparison)
    if as_json:
        print_json(comparison.model_dump(mode="json"))
        return
    print_list(zip(comparison.titles, (comparison.first, comparison.second), strict=True))
    _show_settings(comparison, every)
    _show_differences(comparison)
    if comparison.images:
        counts = Counter(flip.verdict for flip in comparison.flips)
        parts = "".join(f", {count} {verdict}" for verdict, count in sorted(counts.items(), reverse=True))
        print_list([[f"{len(comparison.flips)} images have another predicted class in B{parts}"]])
    for note in comparison.notes:
        say(f"note: {note}")
    if html is not None:
        say(f"page: {html}")


def _show_settings(comparison: "RunComparison", every: bool) -> None:
    settings = [*comparison.facts, *comparison.settings]
    rows: list[Row] = []
    for each in settings:
        if every or each.differs:
            values = ("" if value is None else str(value) for value in (each.first, each.second))
            rows.append([each.name, *(style_text(value, "bold" if each.differs else "") for value in values)])
    print_table(["", *comparison.titles], rows, whole=0)
    if not every:
        say(f"{sum(not each.differs for each in settings)} more are equal in both (--all shows them)")


def _show_differences(comparison: "RunComparison") -> None:
    from pneumo.pipeline.evaluation.results import title

    images = f"{comparison.images} {comparison.split} images of {comparison.patients} patients"
    right = [*comparison.titles, "difference", "", "p"]
    rows = []
    for each in comparison.differences:
        interval = "" if each.low is None or each.high is None else f"{each.low:+.3f} to {each.high:+.3f}"
        numbers = [format_number(each.first), format_number(each.second), format_number(each.value, "+")]
        style = "bold" if each.p is not None and each.p < 0.05 else ""
        cells = [title(each.metric), *numbers, interval, format_number(each.p)]
        rows.append([style_text(cell, style) for cell in cells])
    print_table(
        ["metric", *right],
        rows,
        right=right,
        title=f"{images if comparison.images else comparison.split}; differences with "
        f"{comparison.bootstrap.level:.0%} intervals",
    )


def _format_fact(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
