"""Tables of images: a row for each with its file and class, and perhaps its patient, its split and other facts."""

import csv
import difflib
import io
import re
from dataclasses import dataclass
from itertools import islice

from pneumo.pipeline.data.sources.items import clean_label
from pneumo.pipeline.data.sources.source_options import NONE, SourceOptions
from pneumo.serving.contracts.csv_text import unescape_formula
from pneumo.serving.contracts.errors import InputError

MISSING = frozenset(("", "nan", "none", "null", "na", "n/a", "#n/a", "-", "--"))
"""Cells that hold no value, in lower case."""
ROLES = {"image": "image file path", "label": "label class finding diagnosis", "patient": "patient", "split": "split"}
"""The columns that are read, each with words that a column of another name may have."""

_PATIENTS = re.compile(r"(patient|subject|person)s?[\W_]*(id|no|nr|num|number|key|name)?")
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;|\t]*\r?(\n|\Z)', re.IGNORECASE)
_QUOTED_AFTER_BLANK = re.compile(r'[,;|\t] +"')
_SAMPLE = 200


@dataclass(frozen=True)
class Table:
    """A parsed table: its name in messages, its columns, and line number and cells of each row."""

    where: str
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def find_columns(self, options: SourceOptions) -> dict[str, int]:
        """Return the position of each of `ROLES` that the table has.

        Raises:
            InputError: A column that is needed or named is missing, or there are two of it.
        """
        columns: dict[str, int] = {}
        missing: list[str] = []
        for role in ROLES:
            option: str | None = getattr(options, f"{role}_column")
            if option == NONE and role in ("patient", "split"):
                continue
            name = clean_label(option or role)
            same = [i for i, column in enumerate(self.header) if column.casefold() == name.casefold()]
            places = (option and [i for i in same if self.header[i] == name]) or same
            if len(places) > 1:
                raise InputError(f"{self.where}:1: {len(places)} columns {name!r}; keep one, or rename the others")
            if places:
                columns[role] = places[0]
            elif option or role in ("image", "label"):
                missing.append(role)
        if missing:
            names = " and ".join(repr(getattr(options, f"{role}_column") or role) for role in missing)
            fixes = " ".join(f"--{role}-column {self._suggest(role)}" for role in missing)
            has = ", ".join(map(repr, filter(None, self.header)))
            raise InputError(f"{self.where}:1: no column {names}; it has {has}. Name yours: {fixes}")
        return columns

    def find_patient_column(self) -> str | None:
        """Return a column that is named as if it held patients, such as `Patient ID`."""
        return next((name for name in self.header if _PATIENTS.fullmatch(name.casefold())), None)

    def _suggest(self, role: str) -> str:
        folded = {name.casefold(): name for name in self.header if name}
        near = [name for word in ROLES[role].split() for name in folded if word in name]
        near += difflib.get_close_matches(role, folded, n=1)
        return f'"{folded[near[0]]}"' if near else "NAME"


def parse_table(data: bytes, *, where: str, sample: bool = False) -> Table:
    """Parse a table in UTF-8, or in UTF-16 with its byte order mark, with cells set apart by `,`, `;`, `|` or tabs.

    A `sample` is a few rows, with what is wrong overlooked, to see whether the table lists images.

    Raises:
        InputError: It is no such table, a row has too many cells, or there is none.
    """
    text = _decode(data, where=where, errors="replace" if sample else "strict")
    first = _SEPARATOR_LINE.match(text)
    body = text[first.end() :] if first else text
    try:
        delimiter = first[1] if first else max(",;\t|", key=lambda mark: len(_read_header(body, mark)))
        blanks = bool(_QUOTED_AFTER_BLANK.search(body.partition("\n")[0]))
        reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, skipinitialspace=blanks)
        header = tuple(clean_label(name) for name in next((row for row in reader if any(row)), []))
        rows = []
        for row in islice(reader, _SAMPLE if sample else None):
            line = reader.line_num + (1 if first else 0)
            if any(cell.strip() for cell in row[len(header) :]) and not sample:
                fix = f"put each cell that holds {delimiter!r} into quotes"
                raise InputError(f"{where}:{line}: {len(row)} cells under {len(header)} columns; {fix}")
            if any(cell.strip() for cell in row):
                cells = [*map(unescape_formula, row[: len(header)]), *[""] * (len(header) - len(row))]
                rows.append((line, tuple(cells)))
    except (csv.Error, ValueError) as error:
        raise InputError(f"{where}: not a CSV: {error}; save the table as CSV") from None
    if not rows and not sample:
        raise InputError(f"{where}: no rows under the header; add one for each image")
    return Table(where, header, tuple(rows))


def _read_header(text: str, delimiter: str) -> list[str]:
    return next((row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)), [])


def _decode(data: bytes, *, where: str, errors: str) -> str:
    if data.startswith(_SPREADSHEETS):
        raise InputError(f"{where}: a spreadsheet; save it as CSV in UTF-8")
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 at byte {error.start}; save the table as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{where}: not UTF-8, since it holds NUL characters; save the table as UTF-8")
    return text
