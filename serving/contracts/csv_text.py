"""CSV that people open in a spreadsheet: no text in it becomes a formula, and every text can be read back."""

import re
from collections.abc import Iterable

_FORMULA = re.compile(r"'*(?:[\t-\r \xa0]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")
"""Text that a spreadsheet runs (OWASP, CSV injection), behind any apostrophes; full-width signs count in some."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_QUOTED = re.compile(r'[",\r\n]')


def format_csv(rows: Iterable[Iterable[object]]) -> str:
    r"""Return rows as CSV (RFC 4180, but `\n` at line ends) without formulas; None and NaN become empty cells."""
    return "".join(f"{','.join(map(_format_cell, row))}\n" for row in rows)


def escape_formula(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula; numbers stay numbers.

    A text that begins with such an apostrophe gets one more, so that `unescape_formula` returns every text unchanged.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape_formula(cell: str) -> str:
    """Return the text that `escape_formula` made this cell from."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _format_cell(value: object) -> str:
    if value is None or value != value:  # NaN
        return ""
    text = escape_formula(value) if isinstance(value, str) else str(value)
    return '"{}"'.format(text.replace('"', '""')) if _QUOTED.search(text) else text
