"""A data set on disk: `manifest.csv`, `dataset.json` and the prepared images beside them."""

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from serving.errors import InputError
from serving.image import Fit

MANIFEST = "manifest.csv"
DATASET = "dataset.json"


class Split(IntEnum):
    """Ludwig's fixed split."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes:
        image: Path of the prepared image, relative to the manifest, with forward slashes.
        label: Class name.
        split: The split it belongs to.
        patient: Patient, or the image's own name where none is known.
        source: The original name.
        sha256: Digest of the original bytes, hexadecimal.
        width: Width of the original, in pixels.
        height: Height of the original, in pixels.
    """

    image: str
    label: str
    split: Split
    patient: str
    source: str
    sha256: str
    width: int
    height: int


COLUMNS = tuple(field.name for field in fields(Row))


class DatasetInfo(BaseModel):
    """`dataset.json`: what a data set holds and how it was made.

    Attributes:
        classes: Class names, sorted.
        counts: Images by split name and class.
        patients: Patients by split name.
        size: Side of the prepared square images, in pixels.
        fit: How rectangles became squares.
        split: How the splits were made: `method`, `seed`, `fractions`, `grouped_by`.
        source: What was imported, by name only.
        skipped: Images left out: `source` and `reason` of each.
        fingerprint: SHA-256 over every row and the preparation: equal data, equal fingerprint.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    classes: list[str]
    counts: dict[str, dict[str, int]]
    patients: dict[str, int]
    size: int
    fit: Fit
    split: dict[str, Any]
    source: str
    skipped: list[dict[str, str]]
    fingerprint: str


@dataclass(frozen=True)
class Dataset:
    """A data set that was read: its folder, rows and description."""

    folder: Path
    rows: tuple[Row, ...]
    info: DatasetInfo

    def path(self, row: Row) -> Path:
        """Where a row's prepared image lies."""
        return self.folder / row.image

    def of(self, split: Split) -> tuple[Row, ...]:
        """The rows of one split, in manifest order."""
        return tuple(row for row in self.rows if row.split is split)


def fingerprint(rows: Iterable[Row], *, size: int, fit: Fit) -> str:
    """SHA-256 over rows (in any order) and preparation, hexadecimal."""
    digest = hashlib.sha256(f"size={size} fit={fit.value}\n".encode())
    for row in sorted(rows, key=lambda row: row.image):
        digest.update(json.dumps(astuple(row), ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def write(folder: Path, rows: Iterable[Row], info: DatasetInfo) -> None:
    """Write both files into `folder`; the manifest is written last, so that a data set with one is complete."""
    (folder / DATASET).write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial = folder / f"{MANIFEST}.partial"
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([int(value) if isinstance(value, Split) else value for value in astuple(row)])
    partial.replace(folder / MANIFEST)


def read(folder: Path) -> Dataset:
    """Read a data set that `pneumo data import` made.

    Args:
        folder: The folder, or its manifest.

    Raises:
        InputError: No data set there, or a row that cannot be right.
    """
    folder = folder.parent if folder.name == MANIFEST else folder
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: no {MANIFEST} here; make one with `pneumo data import SRC --out {folder}`")
    try:
        info = DatasetInfo.model_validate_json((folder / DATASET).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder / DATASET}: missing; import the data set again") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{folder / DATASET}: {place}: {first['msg']}; import the data set again") from None
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{path}:1: missing column {missing[0]!r}; the columns are {', '.join(COLUMNS)}")
        rows = tuple(_row(path, reader.line_num, record) for record in reader)
    if not rows:
        raise InputError(f"{path}: no images; import the data set again")
    return Dataset(folder=folder, rows=rows, info=info)


def _row(path: Path, line: int, record: dict[str, str | None]) -> Row:
    def text(name: str) -> str:
        value = record[name]
        if not value:
            raise InputError(f"{path}:{line}: empty {name!r}")
        return value

    def number(name: str) -> int:
        try:
            return int(text(name))
        except ValueError:
            raise InputError(f"{path}:{line}: {name!r} is not a whole number: {record[name]!r}") from None

    split = number("split")
    if split not in tuple(Split):
        raise InputError(f"{path}:{line}: 'split' is {split}; 0 is train, 1 validation, 2 test")
    image = text("image")
    if Path(image).is_absolute() or ".." in Path(image).parts:
        raise InputError(f"{path}:{line}: {image!r} lies outside the data set; paths are relative to the manifest")
    return Row(
        image=image,
        label=text("label"),
        split=Split(split),
        patient=text("patient"),
        source=text("source"),
        sha256=text("sha256"),
        width=number("width"),
        height=number("height"),
    )
