"""Tables of images: a CSV with the columns `image,label[,patient,split]`, and others that may name groups."""

import csv
import io
import posixpath
from pathlib import Path

from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.sources.containers import (
    MAX_BYTES,
    Container,
    Skipped,
    UnreadableError,
    clean_name,
)
from pneumo.pipeline.data.sources.layouts import (
    SPLIT_NAMES,
    Item,
    Listing,
    is_hidden,
    select_images,
    too_large,
)
from pneumo.serving.contracts.errors import InputError

_TWICE = "listed twice"
_OWN = frozenset(("image", "label", "patient", "split"))

Records = list[tuple[int, dict[str, str]]]


class ListedFiles:
    """The files that a table on disk names, relative to the table; the folder around it is not walked."""

    def __init__(self, table: Path) -> None:
        self.sizes: dict[str, int] = {}
        self.skipped: list[Skipped] = []
        self.table = table.name
        self._folder = table.parent
        try:
            self._data = table.read_bytes()
        except OSError as error:
            raise InputError(f"{table}: cannot be read: {error.strerror}") from None
        for _, record in read_table(self._data, where=str(table)):
            for name in map(self.name, _spellings(record["image"])):
                path = self._folder / name
                if "\0" not in name and path.is_file():
                    self.sizes[name] = path.stat().st_size

    @staticmethod
    def name(stated: str) -> str:
        """The path a table states, in one spelling."""
        return posixpath.normpath(stated.replace("\\", "/"))

    def read(self, name: str) -> bytes:
        """The bytes of a listed file, or of the table."""
        if name == self.table and name not in self.sizes:
            return self._data
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise UnreadableError(f"cannot be read: {error.strerror}") from None

    def close(self) -> None:
        """Nothing stays open."""


def find_table(container: Container, *, where: str) -> str | None:
    """The table of a folder or archive: the topmost `.csv` with the columns `image` and `label`.

    Raises:
        InputError: Two stand at the same level.
    """
    tables = [name for name in container.sizes if name.lower().endswith(".csv") and _is_table(container, name)]
    tables.sort(key=lambda name: (name.count("/"), name))
    if len(tables) > 1 and tables[0].count("/") == tables[1].count("/"):
        raise InputError(f"{where}: {tables[0]} and {tables[1]} both list images; keep one of them")
    return tables[0] if tables else None


def from_table(container: Container, table: str, *, where: str) -> Listing:
    """Read which images a table lists.

    Args:
        container: What holds the table and the images.
        table: Name of the table in it.
        where: How messages call the table.

    Raises:
        InputError: A column lacks, a split is unknown, or one image has two labels.
    """
    items: dict[str, Item] = {}
    skipped: list[Skipped] = []
    told = {table}
    for line, record in read_table(container.read(table), where=where):
        stated, label = record["image"], record["label"]
        name = _find(container, table, stated)
        told.add(name)
        if name in items and label not in ("", items[name].label):
            first = items[name].label
            raise InputError(f"{where}:{line}: {stated!r} is {label!r} here and {first!r} further up; keep one row")
        if reason := _row_problem(stated, label, name, container, items):
            skipped.append(Skipped(stated or f"line {line}", reason, lost=reason != _TWICE))
            continue
        split = table_split(record.get("split", ""), where=f"{where}:{line}")
        others_of = {column: value for column, value in record.items() if value and column not in _OWN}
        items[name] = Item(name, label, split, record.get("patient") or None, container.sizes[name], others_of)
    unlisted, others = select_images(container, but=told)
    if unlisted:
        others.append(Skipped(unlisted[0], "not listed in the table", len(unlisted)))
    order = {name: position for position, name in enumerate(container.sizes)}
    ordered = sorted(items.values(), key=lambda item: order[item.name])
    return Listing(tuple(ordered), (*skipped, *others), "table")


def read_table(data: bytes, *, where: str) -> Records:
    """Parse a CSV with a header; column names in lower case, white space in values but those of `image` collapsed.

    Returns:
        Line number and values of each row.

    Raises:
        InputError: Not UTF-8, no rows, or a column lacks.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 at byte {error.start}; save the table as UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip().casefold() for name in next(reader, [])]
        for column in ("image", "label"):
            if column not in header:
                raise InputError(f"{where}:1: no column {column!r}; the columns are image,label[,patient,split]")
        empty = dict.fromkeys(header, "")
        rows = [
            (reader.line_num, empty | {name: _value(name, cell) for name, cell in zip(header, row, strict=False)})
            for row in reader
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise InputError(f"{where}:{reader.line_num}: not a CSV: {error}") from None
    if not rows:
        raise InputError(f"{where}: no rows under the header")
    return rows


def _value(column: str, cell: str) -> str:
    return cell.strip("\r\n") if column == "image" and cell.strip() else " ".join(cell.split())


def _spellings(stated: str) -> tuple[str, ...]:
    """A path as it stands, and without the blanks around it that people put after a comma."""
    return tuple(dict.fromkeys(spelling for spelling in (stated, stated.strip()) if spelling))


def table_split(value: str, *, where: str) -> Split | None:
    """The split a table states.

    Raises:
        InputError: An unknown word.
    """
    if not value:
        return None
    try:
        return SPLIT_NAMES[value.casefold()]
    except KeyError:
        raise InputError(f"{where}: unknown split {value!r}; use 0, 1, 2 or train, validation, test") from None


def _find(container: Container, table: str, stated: str) -> str:
    names = [_name(container, table, spelling) for spelling in _spellings(stated) or (stated,)]
    return next((name for name in names if name in container.sizes), names[0])


def _name(container: Container, table: str, stated: str) -> str:
    if isinstance(container, ListedFiles):
        return container.name(stated)
    return clean_name(posixpath.normpath(posixpath.join(posixpath.dirname(table), stated.replace("\\", "/"))))


def _row_problem(stated: str, label: str, name: str, container: Container, items: dict[str, Item]) -> str | None:
    if not stated:
        return "no image name"
    if not label:
        return "no label"
    if name in items:
        return _TWICE
    if name not in container.sizes:
        return "no such file"
    return None if container.sizes[name] <= MAX_BYTES else too_large(container.sizes[name])


def _is_table(container: Container, name: str) -> bool:
    if is_hidden(name):
        return False
    try:
        head = container.read(name)[:4096].decode("utf-8-sig", "replace")
    except UnreadableError:
        return False
    columns = {column.strip().strip('"').casefold() for column in head.split("\n", 1)[0].split(",")}
    return {"image", "label"} <= columns
