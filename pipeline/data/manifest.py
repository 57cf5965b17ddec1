"""A data set on disk: `manifest.csv`, `dataset.json`, `images.sha256` and the prepared images beside them."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.files import atomic_path
from pneumo.serving.images.types import Decode, Fit

MANIFEST = "manifest.csv"
DATASET = "dataset.json"
DIGESTS = "images.sha256"
"""Digests of the prepared images, as `sha256sum` writes them: `sha256sum -c images.sha256` checks a folder."""

GROUP = "group:"
"""How the optional columns begin that put images into groups, such as `group:sex`; a row may leave them empty."""

_DIGEST_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


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
        groups: What subgroups it belongs to: value by name, such as `kind` and `virus`; never an empty value.
    """

    image: str
    label: str
    split: Split
    patient: str
    source: str
    sha256: str
    width: int
    height: int
    groups: Mapping[str, str] = field(default_factory=dict, hash=False)

    def values(self) -> tuple[str | int, ...]:
        """What stands under `COLUMNS`."""
        return tuple(getattr(self, name) for name in COLUMNS)


COLUMNS = tuple(column.name for column in fields(Row) if column.name != "groups")
"""The columns that every manifest has."""


class DatasetInfo(BaseModel):
    """`dataset.json`: what a data set holds and how it was made.

    Attributes:
        classes: Class names, sorted.
        counts: Images by split name and class.
        patients: Patients by split name.
        size: Side of the prepared square images, in pixels.
        fit: How rectangles became squares.
        decode: How JPEGs were decoded; `full` in data sets that do not say.
        split: How the splits were made: `method`, `seed`, `fractions`, `grouped_by`.
        source: What was imported, by name only.
        skipped: Images left out: `source` and `reason` of each.
        fingerprint: SHA-256 over every row, prepared image and the preparation: equal data, equal fingerprint.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    classes: list[str]
    counts: dict[str, dict[str, int]]
    patients: dict[str, int]
    size: int
    fit: Fit
    decode: Decode = Decode.FULL
    split: dict[str, Any]
    source: str
    skipped: list[dict[str, str]]
    fingerprint: str


@dataclass(frozen=True)
class Dataset:
    """A data set that was read.

    Attributes:
        folder: Where it lies.
        rows: Its images.
        info: Its description.
        digests: SHA-256 of each prepared image as the import left it, hexadecimal, by `Row.image`.
    """

    folder: Path
    rows: tuple[Row, ...]
    info: DatasetInfo
    digests: Mapping[str, str] = field(repr=False)

    def path(self, row: Row) -> Path:
        """Where a row's prepared image lies."""
        return self.folder / row.image

    def select(self, split: Split) -> tuple[Row, ...]:
        """The rows of one split, in manifest order."""
        return tuple(row for row in self.rows if row.split is split)

    def check(self, row: Row, content: bytes) -> None:
        """Make sure that a prepared image is the one that was imported.

        Args:
            row: Its row.
            content: The bytes of its file.

        Raises:
            InputError: They are others.
        """
        if hashlib.sha256(content).hexdigest() != self.digests.get(row.image):
            raise InputError(f"{self.path(row)}: changed since the import; import the data set again")


def compute_fingerprint(
    rows: Iterable[Row],
    *,
    size: int,
    fit: Fit,
    decode: Decode = Decode.FULL,
    digests: Mapping[str, str] | None = None,
) -> str:
    """SHA-256 over rows (in any order) and preparation, hexadecimal.

    Args:
        rows: The images.
        size: Side of the prepared square images, in pixels.
        fit: How rectangles became squares.
        decode: How JPEGs were decoded.
        digests: SHA-256 of each prepared image by `Row.image`, to be covered too; an import always gives them.
    """
    preparation = f"size={size} fit={fit.value}"
    if decode is not Decode.FULL:  # data sets of the time before there was a choice keep their fingerprints
        preparation += f" decode={decode.value}"
    digest = hashlib.sha256(f"{preparation}\n".encode())
    for row in sorted(rows, key=lambda row: row.image):
        values: tuple[Any, ...] = row.values() if digests is None else (*row.values(), digests[row.image])
        if row.groups:
            values = (*values, sorted(row.groups.items()))
        digest.update(json.dumps(values, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def write_dataset(
    folder: Path, rows: Iterable[Row], info: DatasetInfo, digests: Mapping[str, str] | None = None
) -> None:
    """Write all three files into `folder`; the manifest is written last, so that a data set with one is complete.

    Args:
        folder: Where the prepared images lie already.
        rows: The images.
        info: The description.
        digests: SHA-256 of each prepared image by `Row.image`; by default taken from the files.
    """
    rows = tuple(rows)
    if digests is None:
        digests = {row.image: hashlib.sha256((folder / row.image).read_bytes()).hexdigest() for row in rows}
    lines = [f"{digests[row.image]}  {row.image}\n" for row in rows]
    (folder / DIGESTS).write_text("".join(lines), encoding="utf-8")
    (folder / DATASET).write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    with atomic_path(folder / MANIFEST) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = group_names(rows)
        writer.writerow([*COLUMNS, *(GROUP + name for name in names)])
        for row in rows:
            plain = [int(value) if isinstance(value, Split) else value for value in row.values()]
            writer.writerow([*plain, *(row.groups.get(name, "") for name in names)])


def group_names(rows: Iterable[Row]) -> list[str]:
    """Names of the groups that images are put into, sorted."""
    return sorted({name for row in rows for name in row.groups})


def read_dataset(folder: Path) -> Dataset:
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
        info = DatasetInfo.model_validate_json(_text(folder / DATASET))
    except ValidationError as error:
        raise InputError(f"{folder / DATASET}: {first_problem(error)}; import the data set again") from None
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{path}:1: missing column {missing[0]!r}; the columns are {', '.join(COLUMNS)}")
        rows = tuple(_row(path, reader.line_num, record) for record in reader)
    except csv.Error as error:
        line = reader.reader.line_num
        raise InputError(f"{path}:{line}: not a CSV: {error}; import the data set again") from None
    if not rows:
        raise InputError(f"{path}: no images; import the data set again")
    return Dataset(folder=folder, rows=rows, info=info, digests=_digests(folder / DIGESTS, rows))


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: missing; import the data set again") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8; import the data set again") from None


def _digests(path: Path, rows: Sequence[Row]) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(_text(path).removesuffix("\n").split("\n"), start=1):
        match = _DIGEST_LINE.fullmatch(line)
        if not match:
            raise InputError(f"{path}:{number}: not a SHA-256 and a path; import the data set again")
        found[match[2]] = match[1]
    for row in rows:
        if row.image not in found:
            raise InputError(f"{path}: no digest of {row.image!r}; import the data set again")
    return {row.image: found[row.image] for row in rows}


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
        groups={
            name.removeprefix(GROUP): value
            for name, value in record.items()
            if value and (name or "").startswith(GROUP)
        },
    )
