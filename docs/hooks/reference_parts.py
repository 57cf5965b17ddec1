"""Shared parts of the generated references: Markdown tables, attributes from docstrings."""

import inspect
import re
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; an empty text if there are no rows."""
    lines = [f"| {' | '.join(cell.replace(chr(10), ' ') for cell in row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}", *lines])


def attributes(docstring: str) -> dict[str, str]:
    """Return the description of each attribute in the section `Attributes:` of a Google docstring."""
    section = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)*)", inspect.cleandoc(docstring), flags=re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def summary(docstring: str) -> str:
    """Return the text of a docstring before its sections."""
    return re.split(r"^(?:Attributes|Args|Returns|Raises):$", inspect.cleandoc(docstring), flags=re.MULTILINE)[
        0
    ].strip()
