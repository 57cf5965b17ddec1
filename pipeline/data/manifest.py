"""A data set on disk: `manifest.csv`, `dataset.json`, `images.sha256` and the prepared images."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Literal, TypedDict

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from pneumo.pipeline.data.interpretation import Interpretation
from pneumo.pipeline.data.shortcuts import ShortcutReport
from pneumo.serving.contracts.csv_text import format_csv, unescape_formula
from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.contracts.population import Population
from pneumo.serving.images.preparation import Storage
from pneumo.serving.images.types import Decode

MANIFEST = "manifest.csv"
DATASET = "dataset.json"
DIGESTS = "images.sha256"
"""Digests of the prepared images in the format of `sha256sum`: `sha256sum -c images.sha256` checks a folder."""

GROUP = "group:"
"""Prefix of the optional columns that put images into groups, such as `group:sex`; a row may leave them empty."""

_AGAIN = "import the data set again"
_DIGEST_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


class Split(IntEnum):
    """Ludwig's numbers of the splits."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


def _check_inside(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"{path!r} lies outside the data set; paths are relative to the manifest")
    return path


_Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        image: Path of the prepared image, relative to the manifest, with forward slashes.
        label: Class name.
        split: Its split.
        patient: Patient; the image's own name if the patient is unknown.
        source: The original name.
        sha256: Digest of the original bytes, hexadecimal.
        width: Width of the original, in pixels.
        height: Height of the original, in pixels.
        groups: Its subgroups: value by name, such as `kind` and `virus`; never an empty value.
        bytes: Size of the original file, in bytes; None in data sets of older versions.
        format: Container format of the original as Pillow names it, or `DICOM`; None in data sets of older versions.
        original_label: Class name in the source if a correction changed it, else None.
    """

    image: Annotated[_Text, AfterValidator(_check_inside)]
    label: _Text
    split: Split
    patient: _Text
    source: _Text
    sha256: _Text
    width: int
    height: int
    groups: Mapping[str, str] = field(default_factory=dict, hash=False)
    bytes: int | None = None
    format: str | None = None
    original_label: str | None = None

    def values(self) -> tuple[str | int, ...]:
        """Return the values of `COLUMNS`."""
        return tuple(getattr(self, name) for name in COLUMNS)


OPTIONAL = ("bytes", "format", "original_label")
"""The columns that a manifest lacks if no row has a value."""
COLUMNS = tuple(column.name for column in fields(Row) if column.name not in ("groups", *OPTIONAL))
"""The columns that every manifest has."""

_ROW = TypeAdapter(Row)


class SplitInfo(TypedDict, total=False):
    """How the splits of a data set were made; older data sets lack some keys."""

    method: str
    seed: int
    fractions: dict[str, float]
    grouped_by: str
    patients_from: str
    notes: list[str]


class RemarkCount(FrozenModel):
    """A remark about original files: how many images have it, and the first one's name in the source."""

    remark: str
    images: int
    example: str


class Correction(FrozenModel):
    """A file that changed labels or left images out: its name and SHA-256, images listed, and those it changed."""

    option: Literal["relabel", "exclude"]
    file: str
    sha256: str
    listed: int
    changed: int


class DatasetInfo(Storage):
    """`dataset.json`: the content of a data set and how it was made.

    Attributes:
        classes: Class names, sorted.
        counts: Images by split name and class.
        patients: Patients by split name.
        split: How the splits were made.
        source: The imported file or folder, by name only.
        understood: The meaning that the import gave to the source; None in data sets of older versions.
        population: Whose images it holds; None if that is not stated.
        skipped: Images left out: `source` and `reason` of each.
        remarks: Remarks about the original files, such as a guessed depth; those of most images first.
        shortcuts: How well the classes are told without anatomy; None in data sets of older versions.
        corrections: The files that corrected the source's labels, in the order in which they were applied.
        fingerprint: SHA-256 over every row, prepared image and the preparation: equal data, equal fingerprint.
    """

    schema_version: int = 1
    classes: list[str]
    counts: dict[str, dict[str, int]]
    patients: dict[str, int]
    split: SplitInfo
    source: str
    understood: Interpretation | None = None
    population: Population | None = None
    skipped: list[dict[str, str]]
    remarks: list[RemarkCount] = []
    shortcuts: ShortcutReport | None = None
    corrections: list[Correction] = []
    fingerprint: str


@dataclass(frozen=True)
class Dataset:
    """A data set that was read.

    Attributes:
        folder: Its folder.
        rows: Its images.
        info: Its description.
        digests: SHA-256 of each prepared image as the import left it, hexadecimal, by `Row.image`.
    """

    folder: Path
    rows: tuple[Row, ...]
    info: DatasetInfo
    digests: Mapping[str, str] = field(repr=False)

    def path(self, row: Row) -> Path:
        """Return the path of a row's prepared image."""
        return self.folder / row.image

    def select(self, split: Split) -> tuple[Row, ...]:
        """Return the rows of one split, in manifest order."""
        return tuple(row for row in self.rows if row.split is split)

    def check(self, row: Row, content: bytes) -> None:
        """Check that the content of a row's image is what the import wrote.

        Raises:
            InputError: It differs.
        """
        if hashlib.sha256(content).hexdigest() != self.digests.get(row.image):
            raise InputError(f"{self.path(row)}: changed since the import; {_AGAIN}")


def compute_fingerprint(rows: Iterable[Row], storage: Storage, digests: Mapping[str, str] | None = None) -> str:
    """Return a SHA-256 over rows (in any order) and preparation, hexadecimal.

    Args:
        rows: The images.
        storage: How the files became the prepared images.
        digests: SHA-256 of each prepared image by `Row.image`, to be covered too; an import always gives them.
    """
    preparation = f"size={storage.size} fit={storage.fit.value}"
    if storage.decode is not Decode.FULL:  # data sets made before `decode` was an option keep their fingerprints
        preparation += f" decode={storage.decode.value}"
    if storage.rules > 1:
        preparation += f" rules={storage.rules}"
    digest = hashlib.sha256(f"{preparation}\n".encode())
    for row in sorted(rows, key=lambda row: row.image):
        values: list[object] = [*row.values(), *([] if digests is None else [digests[row.image]])]
        if row.groups:
            values.append(sorted(row.groups.items()))
        if row.format:
            values.append([row.bytes, row.format])
        if row.original_label:
            values.append({"original_label": row.original_label})
        digest.update(json.dumps(values, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def write_dataset(
    folder: Path, rows: Iterable[Row], info: DatasetInfo, digests: Mapping[str, str] | None = None
) -> None:
    """Write all three files into `folder`; the manifest is written last, so that a data set with one is complete.

    Args:
        folder: The folder that holds the prepared images.
        rows: The images.
        info: The description.
        digests: SHA-256 of each prepared image by `Row.image`; computed from the files if None.
    """
    rows = tuple(rows)
    if digests is None:
        digests = {row.image: hashlib.sha256((folder / row.image).read_bytes()).hexdigest() for row in rows}
    lines = [f"{digests[row.image]}  {row.image}\n" for row in rows]
    (folder / DIGESTS).write_text("".join(lines), encoding="utf-8")
    (folder / DATASET).write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    names = group_names(rows)
    optional = [name for name in OPTIONAL if any(getattr(row, name) is not None for row in rows)]
    header = [*COLUMNS, *optional, *(GROUP + name for name in names)]
    cells = (
        [*row.values(), *(getattr(row, name) for name in optional), *(row.groups.get(name) for name in names)]
        for row in rows
    )
    write_text(folder / MANIFEST, format_csv([header, *cells]))


def group_names(rows: Iterable[Row]) -> list[str]:
    """Return the names of the groups that rows belong to, sorted."""
    return sorted({name for row in rows for name in row.groups})


def read_dataset(folder: Path) -> Dataset:
    """Read a data set that `pneumo data import` made.

    Args:
        folder: The folder, or its manifest.

    Raises:
        InputError: There is no data set, or a file of it is damaged.
    """
    folder = folder.parent if folder.name == MANIFEST else folder
    path = folder / MANIFEST
    if not path.is_file():
        source, out = (folder, folder.with_name(f"{folder.stem}-data")) if folder.exists() else ("SRC", folder)
        raise InputError(f"{folder}: no {MANIFEST} here; make one with `pneumo data import {source} --out {out}`")
    try:
        info = DatasetInfo.model_validate_json(_read_text(folder / DATASET))
    except ValidationError as error:
        raise InputError(f"{folder / DATASET}: {first_problem(error)}; {_AGAIN}") from None
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""))
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{path}:1: no column {missing[0]!r}; {_AGAIN}")
        rows = tuple(_parse_row(record) for record in reader)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.reader.line_num}: not a CSV: {error}; {_AGAIN}") from None
    except ValidationError as error:
        raise InputError(f"{path}:{reader.line_num}: {first_problem(error)}; {_AGAIN}") from None
    if not rows:
        raise InputError(f"{path}: no images; {_AGAIN}")
    return Dataset(folder=folder, rows=rows, info=info, digests=_read_digests(folder / DIGESTS, rows))


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {_AGAIN}") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8; {_AGAIN}") from None


def _read_digests(path: Path, rows: Sequence[Row]) -> dict[str, str]:
    digests: dict[str, str] = {}
    for number, line in enumerate(_read_text(path).removesuffix("\n").split("\n"), start=1):
        match = _DIGEST_LINE.fullmatch(line)
        if not match:
            raise InputError(f"{path}:{number}: not a SHA-256 and a path; {_AGAIN}")
        digests[match[2]] = match[1]
    for row in rows:
        if row.image not in digests:
            raise InputError(f"{path}: no digest of {row.image!r}; {_AGAIN}")
    return {row.image: digests[row.image] for row in rows}


def _parse_row(record: dict[str, str | None]) -> Row:
    texts = {name: value and unescape_formula(value) for name, value in record.items() if name}
    groups = {name.removeprefix(GROUP): value for name, value in texts.items() if value and name.startswith(GROUP)}
    optional = {name: texts.get(name) or None for name in OPTIONAL}
    return _ROW.validate_python({**{name: texts[name] for name in COLUMNS}, **optional, "groups": groups})
