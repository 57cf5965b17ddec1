"""Tables of images: a CSV with the columns `image,label[,patient,split]`, and others that may name groups."""

import csv
import io
import posixpath
from collections.abc import Callable
from pathlib import Path

from pneumo.pipeline.data.sources.containers import MAX_BYTES, Container, Skipped, UnreadableError, clean_name
from pneumo.pipeline.data.sources.layouts import SPLIT_NAMES, Item, Listing, describe_excess, is_hidden, select_images
from pneumo.serving.contracts.errors import InputError

_DUPLICATE = "duplicate row"
_OWN = frozenset(("image", "label", "patient", "split"))

Records = list[tuple[int, dict[str, str]]]
"""Line number and values of each row."""


def open_table(path: Path) -> tuple[Container, Listing]:
    """Open a table on disk with the files that it lists, relative to it; the folder around it is not walked.

    Raises:
        InputError: The table cannot be read, or as for `list_table`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check its permissions") from None
    records = _parse_table(data, where=str(path))
    container = Container()
    for name in dict.fromkeys(_normalize(name) for _, record in records for name in _spellings(record["image"])):
        file = path.parent / name
        if "\0" not in name and file.is_file():
            container.add(name, file.stat().st_size, file.read_bytes)
    return container, _list_records(container, records, _normalize, table=path.name, where=str(path))


def find_table(container: Container, *, where: str) -> str | None:
    """Return the table of a folder or archive: the topmost `.csv` with the columns `image` and `label`.

    Raises:
        InputError: There are two at the same level.
    """
    tables = [name for name in container.sizes if name.lower().endswith(".csv") and _is_table(container, name)]
    tables.sort(key=lambda name: (name.count("/"), name))
    if len(tables) > 1 and tables[0].count("/") == tables[1].count("/"):
        raise InputError(f"{where}: {tables[0]} and {tables[1]} both list images; keep one of them")
    return tables[0] if tables else None


def list_table(container: Container, table: str, *, where: str) -> Listing:
    """List the images in a table of a container; messages call the table `where`.

    Raises:
        InputError: A column is missing, a split is unknown, or one image has two labels.
        UnreadableError: The table is damaged.
    """

    def resolve(name: str) -> str:
        return clean_name(_normalize(posixpath.join(posixpath.dirname(table), name)))

    records = _parse_table(container.read(table), where=where)
    return _list_records(container, records, resolve, table=table, where=where)


def _list_records(
    container: Container, records: Records, resolve: Callable[[str], str], *, table: str, where: str
) -> Listing:
    items: dict[str, Item] = {}
    skipped: list[Skipped] = []
    listed = {table}
    for line, record in records:
        image, label = record["image"], record["label"]
        names = [resolve(spelling) for spelling in _spellings(image) or (image,)]
        name = next((name for name in names if name in container.sizes), names[0])
        listed.add(name)
        if name in items and label not in ("", items[name].label):
            first = items[name].label
            raise InputError(f"{where}:{line}: {image!r} is {label!r} here and {first!r} in a row above; keep one row")
        if reason := _find_problem(image, label, name, container, items):
            skipped.append(Skipped(image or f"line {line}", reason, lost=reason != _DUPLICATE))
            continue
        split = record.get("split", "").casefold()
        if split and split not in SPLIT_NAMES:
            raise InputError(f"{where}:{line}: unknown split {split!r}; use 0, 1, 2 or train, validation, test")
        others = {column: value for column, value in record.items() if value and column not in _OWN}
        patient = record.get("patient") or None
        items[name] = Item(name, label, SPLIT_NAMES.get(split), patient, container.sizes[name], others)
    unlisted, other_files = select_images(container, but=listed)
    if unlisted:
        other_files.append(Skipped(unlisted[0], "not listed in the table", len(unlisted)))
    ordered = tuple(items[name] for name in container.sizes if name in items)
    return Listing(ordered, (*skipped, *other_files))


def _parse_table(data: bytes, *, where: str) -> Records:
    """Parse a CSV with a header; column names in lower case; white space is collapsed except in `image`.

    Raises:
        InputError: It is not UTF-8, has no rows, or lacks a column.
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
            (reader.line_num, empty | {name: _clean_value(name, cell) for name, cell in zip(header, row, strict=False)})
            for row in reader
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise InputError(f"{where}:{reader.line_num}: not a CSV: {error}; save the table as CSV") from None
    if not rows:
        raise InputError(f"{where}: no rows under the header; add one for each image")
    return rows


def _clean_value(column: str, cell: str) -> str:
    return cell.strip("\r\n") if column == "image" and cell.strip() else " ".join(cell.split())


def _normalize(name: str) -> str:
    return posixpath.normpath(name.replace("\\", "/"))


def _spellings(name: str) -> tuple[str, ...]:
    """Return a path unchanged, and without the blanks around it that people put after a comma."""
    return tuple(dict.fromkeys(spelling for spelling in (name, name.strip()) if spelling))


def _find_problem(image: str, label: str, name: str, container: Container, items: dict[str, Item]) -> str | None:
    if not image:
        return "no image name"
    if not label:
        return "no label"
    if name in items:
        return _DUPLICATE
    if name not in container.sizes:
        return "no such file"
    return None if container.sizes[name] <= MAX_BYTES else describe_excess(container.sizes[name])


def _is_table(container: Container, name: str) -> bool:
    if is_hidden(name):
        return False
    try:
        head = container.read(name)[:4096].decode("utf-8-sig", "replace")
    except UnreadableError:
        return False
    columns = {column.strip().strip('"').casefold() for column in head.split("\n", 1)[0].split(",")}
    return {"image", "label"} <= columns
