"""What commands print: tables for people, one JSON document for programs, errors in a line."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pneumo.pipeline.runs.reporter import Reporter, TrackingMode

if TYPE_CHECKING:  # rich is imported where it prints: it would be half of the time that `pneumo --help` takes
    from rich.console import Console
    from rich.progress import Progress

WandbOption = Annotated[
    TrackingMode | None, typer.Option("--wandb", help="Track with Weights & Biases.", show_default="disabled")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def stdout() -> "Console":
    """The console for results: as wide as the terminal, and wide enough for a table where there is none."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def stderr() -> "Console":
    """The console for progress and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")


def say(text: str) -> None:
    """Tell a person how far a command is, on standard error."""
    stderr().print(text, soft_wrap=True, markup=False)


class ConsoleReporter(Reporter):
    """Prints messages and warnings on standard error."""

    def __init__(self) -> None:
        super().__init__(say)


@contextmanager
def progress_bar(description: str, total: int | None) -> Iterator["Progress"]:
    """A progress bar with one task on a terminal; one line at the start elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    console = stderr()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        if not console.is_terminal:
            say(f"{description} ...")
        bar.add_task(description, total=total)
        yield bar
