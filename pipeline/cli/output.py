"""Output of the commands: lines and tables for people, one JSON document for programs."""

import json
import shlex
import sys
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:  # importing rich takes half of the time of `pneumo --help`
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

NOTICE = "research software, not a medical device"

_WIDEST = 10_000

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


def join_words(*words: str | Path) -> str:
    """Return words as a line for a shell, with quotes where one needs them."""
    return shlex.join(map(str, words))


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

    Columns named in `right` are aligned to the right. The first `whole` columns are never wrapped. No word is broken,
    so that paths can be copied: a table that needs more than the width of the terminal is wider.
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
    _print_unbroken(table, stdout(file))


def _print_unbroken(table: "Table", console: "Console") -> None:
    """Print a table in which only columns of several words are wrapped, and no word of theirs is broken."""
    from rich.cells import cell_len
    from rich.measure import Measurement

    longest = []
    for column in table.columns:
        texts = [str(cell) for cell in (column.header, *column.cells)]
        lines = [cell_len(line) for text in texts for line in text.splitlines()]
        words = [cell_len(word) for text in texts for word in text.split()]
        longest.append(max(lines, default=0))
        column.width = longest[-1] if column.no_wrap else max(words, default=0)
    spare = console.width - Measurement.get(console, console.options.update(max_width=_WIDEST), table).minimum
    if spare < 0:  # a terminal wraps its lines, which frames would make unreadable
        table.box, console.size = None, (console.width - spare, console.height)
    for column, most in zip(table.columns, longest, strict=True):
        assert column.width is not None
        more = min(max(spare, 0), most - column.width)
        column.width, spare = column.width + more, spare - more
    console.print(table)


def print_list(rows: Iterable[Row]) -> None:
    """Print rows in columns without lines and titles; only the last column is wrapped."""
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for row in rows:
        table.add_row(*row)
    for column in table.columns:
        column.no_wrap = column is not table.columns[-1]
        column.overflow = "fold"
    _print_unbroken(table, stdout())


def format_number(value: float | None, sign: str = "") -> str:
    """Return three decimals, with a sign if `sign` is `+`; nothing for None."""
    return "" if value is None else f"{value:{sign}.3f}"
