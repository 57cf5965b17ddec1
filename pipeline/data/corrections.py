"""Corrections of a source: tables of images that get another label, or are left out of the data set."""

import hashlib
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pneumo.pipeline.data.manifest import Correction
from pneumo.pipeline.data.sources import Item
from pneumo.pipeline.data.sources.items import clean_label, list_names
from pneumo.pipeline.data.sources.table_listing import read_file
from pneumo.pipeline.data.sources.tables import parse_table
from pneumo.pipeline.data.staging import name_prepared
from pneumo.serving.contracts.errors import InputError


@dataclass(frozen=True)
class CorrectionFile:
    """A correction file that was read: the SHA-256 of its bytes, and for each row its line and cells by column."""

    option: Literal["relabel", "exclude"]
    path: Path
    sha256: str
    rows: tuple[tuple[int, dict[str, str]], ...]

    @classmethod
    def read(cls, path: Path, option: Literal["relabel", "exclude"]) -> "CorrectionFile":
        """Read a table with a column `source` or `image`, and `label` to relabel.

        Raises:
            InputError: It cannot be read, lacks a column, or has one of them twice.
        """
        data = read_file(path)
        table = parse_table(data, where=str(path))
        header = [name.casefold() for name in table.header]
        if not {"source", "image"} & {*header} or (option == "relabel" and "label" not in header):
            needs = "'image' or 'source'" + " and 'label'" * (option == "relabel")
            raise InputError(f"{path}:1: --{option} needs the columns {needs}; it has {list_names(table.header, 20)}")
        if twice := [name for name in ("source", "image", "label") if header.count(name) > 1]:
            raise InputError(f"{path}:1: has two columns {twice[0]!r}; keep the right one")
        rows = tuple((line, dict(zip(header, map(str.strip, cells), strict=True))) for line, cells in table.rows)
        return cls(option, path, hashlib.sha256(data).hexdigest(), rows)


class Corrected(NamedTuple):
    """The label of each image by name, the correction file of each that is left out, and what dataset.json keeps."""

    labels: dict[str, str]
    left_out: dict[str, str]
    corrections: list[Correction]


def correct_items(files: Sequence[CorrectionFile], items: Sequence[Item]) -> Corrected:
    """Apply correction files one after the other to the images of a source; one that is left out stays so.

    A row names an image by `source`, its name in the source; else by `image`, its path in a data set, in any split.

    Raises:
        InputError: A row names no image of the source or several, no class of it, or another label than a row above.
    """
    corrected = Corrected({item.name: item.label for item in items}, {}, [])
    spelling = {item.label.casefold(): item.label for item in items}
    names: defaultdict[str, set[str]] = defaultdict(set)
    for item in items if files else ():
        for path in name_prepared(item.name, item.label):
            names[path].add(item.name)
    for file in files:
        labels: dict[str, str] = {}
        for line, cells in file.rows:
            where = f"{file.path}:{line}"
            label = spelling.get(clean_label(cells.get("label", "")).casefold(), "") if file.option == "relabel" else ""
            if file.option == "relabel" and not label:
                classes = list_names(sorted(spelling.values()), 10)
                raise InputError(f"{where}: label {cells['label']!r} is no class of the source, which has {classes}")
            name = _find_image(cells, corrected.labels, names, where)
            if labels.setdefault(name, label) != label:
                raise InputError(f"{where}: {name!r} is {label!r} here and {labels[name]!r} above; keep one row")
        if file.option == "exclude":
            changed = labels.keys() - corrected.left_out.keys()
            corrected.left_out.update(dict.fromkeys(sorted(changed), file.path.name))
        else:
            changed = {name for name, label in labels.items() if corrected.labels[name] != label}
            corrected.labels.update(labels)
        done = Correction(
            option=file.option, file=file.path.name, sha256=file.sha256, listed=len(labels), changed=len(changed)
        )
        corrected.corrections.append(done)
    return corrected


def _find_image(cells: Mapping[str, str], known: Container[str], by_path: Mapping[str, set[str]], where: str) -> str:
    source, image = cells.get("source", ""), cells.get("image", "")
    if own := next((name for name in (source, image) if name and name in known), None):
        return own
    found = sorted(by_path.get(image.split("/", 2)[-1], ())) if image and not source else []
    if len(found) > 1:
        raise InputError(f"{where}: {image!r} could be {list_names(found)}; give its name in a column 'source'")
    if not found:
        raise InputError(f"{where}: no such image in the source: {source or image!r}; correct it, or delete the row")
    return found[0]
