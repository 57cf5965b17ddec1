"""List the images that a table names."""

import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from pneumo.pipeline.data.sources.containers import (
    MAX_BYTES,
    Container,
    Skipped,
    UnreadableError,
    clean_name,
    walk_folder,
)
from pneumo.pipeline.data.sources.file_names import FileNames
from pneumo.pipeline.data.sources.items import (
    Item,
    Listing,
    clean_label,
    describe_excess,
    is_hidden,
    parse_split,
    select_images,
    suffix_of,
)
from pneumo.pipeline.data.sources.masks import find_masks
from pneumo.pipeline.data.sources.source_options import SourceOptions
from pneumo.pipeline.data.sources.tables import MISSING, Table, parse_table
from pneumo.serving.contracts.csv_text import unescape_formula
from pneumo.serving.contracts.errors import InputError

TABLE_SUFFIXES = (".csv", ".tsv")
_DUPLICATE = "duplicate row"


def open_table(path: Path, options: SourceOptions) -> tuple[Container, Listing]:
    """Open a table on disk with the files that it lists, relative to it; raise as `list_table`.

    The folder around it is walked only if it lists names that are no files.
    """
    table = parse_table(read_file(path), where=str(path))
    column = table.find_columns(options)["image"]
    container = Container()
    missing: list[str] = []
    for name in dict.fromkeys(_normalize(name) for _, cells in table.rows for name in _spell(cells[column])):
        file = path.parent / name
        if "\0" not in name and file.is_file():
            container.add(name, file.stat().st_size, file.read_bytes)
        else:
            missing.append(name)
    if missing:
        around = walk_folder(path.parent)
        names = FileNames(select_images(around)[0])
        for name in dict.fromkeys(found for each in missing for found in names.find(clean_name(each))):
            if name not in container.sizes:
                container.add(name, around.sizes[name], (path.parent / name).read_bytes)
    return container, list_table(container, table, options, locate=_normalize, own=path.name)


def read_file(path: Path) -> bytes:
    """Return the bytes of a file on disk; raise an `InputError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check its name and permissions") from None


def find_tables(container: Container, options: SourceOptions) -> list[str]:
    """Return the tables of a folder or archive that list its images, those nearest to the top first.

    They have the columns of images and labels, or one whose cells are mostly names of its images.
    """
    found = []
    candidates = [name for name in container.sizes if suffix_of(name) in TABLE_SUFFIXES and not is_hidden(name)]
    files = FileNames(select_images(container)[0] if candidates else ())
    needed = {(options.image_column or "image").casefold(), (options.label_column or "label").casefold()}
    for name in candidates:
        try:
            table = parse_table(container.read(name), where=name, sample=True)
        except (InputError, UnreadableError):
            continue
        columns = zip(*(cells for _, cells in table.rows), strict=True)
        if needed <= {column.casefold() for column in table.header} or any(_is_list(cells, files) for cells in columns):
            found.append(name)
    return sorted(found, key=lambda name: (name.count("/"), name))


def _is_list(cells: Sequence[str], files: FileNames) -> bool:
    values = [clean_name(_normalize(cell.strip())) for cell in cells if cell.strip()]
    return sum(bool(files.find(value)) for value in values) > len(values) / 2


def list_inner_table(container: Container, name: str, options: SourceOptions, *, where: str) -> Listing:
    """List the images in a table of a container, which messages call `where`; raise as `list_table`."""

    def locate(image: str) -> str:
        return clean_name(_normalize(posixpath.join(posixpath.dirname(name), image)))

    return list_table(container, parse_table(container.read(name), where=where), options, locate=locate, own=name)


def list_table(
    container: Container, table: Table, options: SourceOptions, *, locate: Callable[[str], str], own: str
) -> Listing:
    """List the images in a table called `own`; `locate` returns the name in the container of a name in the table.

    Raises:
        InputError: A column is missing, a split is unknown, a name can mean several files, or one image has two labels.
    """
    reader = _RowReader(container, table, options, locate)
    for line, cells in table.rows:
        reader.read(line, cells)
    unlisted, other_files = select_images(container, but={own, *reader.listed})
    if unlisted:
        other_files.append(Skipped(unlisted[0], "not listed in the table", len(unlisted)))
    ambiguities = []
    if options.patient_column is None and "patient" not in reader.columns and (name := table.find_patient_column()):
        ambiguities.append(
            f'the column {name!r} may hold the patients: --patient-column "{name}" reads them, '
            "--patient-column none goes without"
        )
    items = tuple(reader.items[name] for name in container.sizes if name in reader.items)
    origin = f"{own} ({', '.join(f'{role}: {table.header[place]}' for role, place in reader.columns.items())})"
    return Listing(items, (*reader.skipped, *other_files), "table", origin, reader.notes(), tuple(ambiguities))


class _RowReader:
    """Reads one row after the other, and keeps what it has found."""

    def __init__(
        self, container: Container, table: Table, options: SourceOptions, locate: Callable[[str], str]
    ) -> None:
        self.columns = table.find_columns(options)
        self.items: dict[str, Item] = {}
        self.skipped: list[Skipped] = []
        self.listed: set[str] = set()
        self._container, self._table, self._options, self._locate = container, table, options, locate
        self._missing: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._respelled: dict[str, str] = {}
        names = [name.casefold() for name in table.header]
        self._others = {
            name: i for i, name in enumerate(names) if i not in self.columns.values() and names.count(name) == 1
        }

    @cached_property
    def _files(self) -> FileNames:
        images = {name: tuple(name.split("/")[:-1]) for name in select_images(self._container)[0]}
        masks = find_masks(images)
        return FileNames(name for name in images if name not in masks)

    def read(self, line: int, cells: Sequence[str]) -> None:
        """Read a row: an image, or the reason why it is left out."""
        where = f"{self._table.where}:{line}"
        image = cells[self.columns["image"]].strip("\r\n")
        image = image if image.strip() else ""
        label, patient, split = (self._read_cell(role, cells) for role in ("label", "patient", "split"))
        name = self._find_file(image, where)
        self.listed.add(name)
        if name in self.items and label and self._fold(label) != self._fold(self.items[name].label):
            first = self.items[name].label
            raise InputError(f"{where}: {image!r} is {label!r} here and {first!r} in a row above; keep one row")
        if reason := self._find_problem(image, label, name):
            self.skipped.append(Skipped(image or f"line {line}", reason, lost=reason != _DUPLICATE))
            return
        if split and parse_split(split) is None:
            raise InputError(
                f"{where}: unknown split {split!r}; use 0, 1, 2 or train, validation, test, or --split-column none"
            )
        others = {other: value for other, i in self._others.items() if (value := _clean(cells[i]))}
        size = self._container.sizes[name]
        self.items[name] = Item(name, label, parse_split(split), patient or None, size, others)

    def notes(self) -> tuple[str, ...]:
        """Return what was read in another way than it is written."""
        notes = [
            f"{counts.total()} cells of the column {self._table.header[self.columns[role]]!r} hold no value: "
            + ", ".join(f"{text!r} ({count})" for text, count in sorted(counts.items()))
            for role, counts in self._missing.items()
        ]
        if self._respelled:
            image, name = min(self._respelled.items())
            notes.append(
                f"{len(self._respelled)} names of the table were found in another folder or spelling, such as "
                f"{image!r}: {name!r}"
            )
        return tuple(notes)

    def _read_cell(self, role: str, cells: Sequence[str]) -> str:
        if role not in self.columns:
            return ""
        text = clean_label(unescape_formula(cells[self.columns[role]]))
        if text.casefold() not in MISSING or (role == "label" and text in self._options.renames):
            return text
        if text:
            self._missing[role][text] += 1
        return ""

    def _find_file(self, image: str, where: str) -> str:
        places = [self._locate(spelling) for spelling in _spell(image) or (image,)]
        if place := next((place for place in places if place in self._container.sizes), None):
            return place
        matches = self._files.find(clean_name(_normalize(image.strip()))) if image else []
        if len(matches) > 1:
            raise InputError(f"{where}: {image!r} could be {matches[0]!r} or {matches[1]!r}; write its path")
        if matches:
            self._respelled[image] = matches[0]
        return [*matches, *places][0]

    def _find_problem(self, image: str, label: str, name: str) -> str | None:
        if not image:
            return "no image name"
        if not label:
            return "no label"
        if name in self.items:
            return _DUPLICATE
        size = self._container.sizes.get(name)
        if size is None:
            return "no such file"
        return None if size <= MAX_BYTES else describe_excess(size)

    def _fold(self, label: str) -> str:
        return self._options.renames.get(label, label).casefold()


def _clean(cell: str) -> str:
    text = " ".join(cell.split())
    return "" if text.casefold() in MISSING else text


def _normalize(name: str) -> str:
    return posixpath.normpath(name.replace("\\", "/"))


def _spell(name: str) -> tuple[str, ...]:
    """Return a path unchanged, without blanks around it, and without the apostrophe that escapes a formula."""
    name = name.strip("\r\n")
    spellings = (name, name.strip(), unescape_formula(name.strip()))
    return tuple(dict.fromkeys(spelling for spelling in spellings if spelling.strip()))
