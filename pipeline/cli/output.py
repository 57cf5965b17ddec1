"""Output of the commands: lines and tables for people, one JSON document for programs."""

import json
import sys
from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:  # importing rich takes half of the time of `pneumo --help`
    from rich.console import Console
    from rich.text import Text

NOTICE = "research software, not a medical device"

type Row = Sequence[str | Text]


def stdout(file: TextIO | None = None) -> "Console":
    """Return the console for results, standard output by default: as wide as the terminal, or 160 columns."""
    from rich.console import Console

    console = Console(file=file, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160
    return console


def stderr() -> "Console":
    """Return the console for progress and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False)


def print_json(document: object) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")


def print_lines(*lines: str) -> None:
    """Print results on standard output, without wrapping long lines."""
    for line in lines:
        stdout().print(line, soft_wrap=True)


def say(text: str) -> None:
    """Tell a person on standard error how far a command is."""
    stderr().print(text, soft_wrap=True)


def style_text(text: str, style: str) -> "Text":
    """Return a table cell in a style of rich, such as `bold` or `red`."""
    from rich.text import Text

    return Text(text, style=style)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Row],
    *,
    right: Container[str] = (),
    whole: int = 1,
    title: str | None = None,
    file: TextIO | None = None,
) -> None:
    """Print a table on standard output or into a text file; an empty row begins a section.

    Columns named in `right` are aligned to the right. The first `whole` columns are never wrapped, so that their text
    can be copied.
    """
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        justify = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=number < whole)  # type: ignore[arg-type]
    for row in rows:
        if row:
            table.add_row(*row)
        else:
            table.add_section()
    stdout(file).print(table)


def print_list(rows: Iterable[Row]) -> None:
    """Print rows in columns without lines and titles; only the last column is wrapped."""
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for row in rows:
        table.add_row(*row)
    for column in table.columns:
        column.no_wrap = column is not table.columns[-1]
        column.overflow = "fold"
    stdout().print(table)


def format_number(value: float | None, sign: str = "") -> str:
    """Return three decimals, with a sign if `sign` is `+`; nothing for None."""
    return "" if value is None else f"{value:{sign}.3f}"
