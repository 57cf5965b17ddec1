import csv
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.importer import ImportSettings, import_dataset
from pneumo.pipeline.data.manifest import DATASET, DIGESTS, MANIFEST, Dataset
from pneumo.serving.contracts.csv_text import format_csv
from pneumo.serving.contracts.errors import InputError


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    for number in range(12):
        path = tmp_path / "raw" / "AB"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)).save(path)
    return import_dataset(tmp_path / "raw", tmp_path / "data", ImportSettings(size=16))


def test_the_digests_are_those_sha256sum_writes_in_manifest_order(data: Dataset) -> None:
    expected = [f"{hashlib.sha256(data.path(row).read_bytes()).hexdigest()}  {row.image}" for row in data.rows]
    assert (data.folder / DIGESTS).read_bytes().decode() == "\n".join(expected) + "\n"
    before = (data.folder / DIGESTS).read_bytes()
    manifest.write_dataset(data.folder, data.rows, data.info)
    assert (data.folder / DIGESTS).read_bytes() == before


def test_a_prepared_image_is_checked_against_its_digest(data: Dataset) -> None:
    first, second = data.rows[:2]
    content = data.path(first).read_bytes()
    some = dataclasses.replace(data, rows=data.rows[:1])
    for dataset in (data, some, manifest.read_dataset(data.folder)):
        dataset.check(first, content)
        for other in (content + b"\0", data.path(second).read_bytes(), b""):
            with pytest.raises(InputError) as caught:
                dataset.check(first, other)
            assert str(caught.value) == f"{data.path(first)}: changed since the import; import the data set again"


def test_the_fingerprint_covers_the_prepared_images_where_their_digests_are_given(data: Dataset) -> None:
    assert manifest.compute_fingerprint(data.rows, data.info, data.digests) == data.info.fingerprint
    changed = {**data.digests, data.rows[0].image: "0" * 64}
    assert manifest.compute_fingerprint(data.rows, data.info, changed) != data.info.fingerprint
    assert manifest.compute_fingerprint(data.rows, data.info) != data.info.fingerprint


def test_lost_or_damaged_digests_are_refused_with_the_fix(data: Dataset) -> None:
    path = data.folder / DIGESTS
    lines = path.read_text().splitlines(keepends=True)
    image = data.rows[2].image
    for text, place in [
        ("".join(lines[:2] + lines[3:]), f"no digest of {image!r}"),
        ("".join([*lines[:2], "0" * 63 + f"  {image}\n", *lines[3:]]), f"{DIGESTS}:3: not a SHA-256"),
        ("", f"{DIGESTS}:1: not a SHA-256"),
        (None, f"{DIGESTS}: missing"),
    ]:
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
        with pytest.raises(InputError) as caught:
            manifest.read_dataset(data.folder)
        assert place in str(caught.value)
        assert str(caught.value).endswith("import the data set again")


@pytest.mark.parametrize("name", [MANIFEST, DATASET, DIGESTS])
def test_a_file_that_is_not_utf_8_is_refused_with_its_line(data: Dataset, name: str) -> None:
    path = data.folder / name
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2][:-1] + b"\xff"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError) as caught:
        manifest.read_dataset(data.folder)
    assert str(caught.value) == f"{path}:3: not UTF-8; import the data set again"


@pytest.mark.parametrize("line", [0, 2])
def test_a_field_too_long_for_a_csv_is_refused_with_its_line(data: Dataset, line: int) -> None:
    path = data.folder / MANIFEST
    lines = path.read_text().split("\n")
    lines[line] += "x" * 200_000
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"{MANIFEST}:{line + 1}: not a CSV"):
        manifest.read_dataset(data.folder)


def test_names_that_a_spreadsheet_would_run_come_back_unchanged(tmp_path: Path) -> None:
    for number in range(16):
        folder = tmp_path / "raw" / ("=cmd", "'@sum")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8))
        image.save(folder / ("-a.png", "+1.png", "'=b.png", "@c, d.png")[number // 2 % 4].replace(".", f"{number}."))
    dataset = import_dataset(tmp_path / "raw", tmp_path / "data", ImportSettings(size=16))
    assert dataset.info.classes == ["'@sum", "=cmd"]
    assert {row.source.partition("/")[0] for row in dataset.rows} == {"'@sum", "=cmd"}
    assert sorted(row.source for row in dataset.rows) == sorted(
        path.relative_to(tmp_path / "raw").as_posix() for path in (tmp_path / "raw").rglob("*.png")
    )
    read = manifest.read_dataset(tmp_path / "data")
    assert read.rows == dataset.rows
    assert manifest.compute_fingerprint(read.rows, read.info, read.digests) == read.info.fingerprint
    cells = list(csv.reader((tmp_path / "data" / MANIFEST).read_text(encoding="utf-8").splitlines()))[1:]
    assert not [cell for row in cells for cell in row if cell[:1] in "=+-@" and cell]


def test_a_table_that_pneumo_wrote_is_imported_with_the_same_names(tmp_path: Path) -> None:
    rows = [(f"{sign}{number}.png", label) for number in range(6) for sign, label in (("-a", "=cmd"), ("@b", "+x"))]
    for number, (name, _) in enumerate(rows):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "table.csv").write_text(format_csv([("image", "label"), *rows]), encoding="utf-8")
    dataset = import_dataset(tmp_path / "table.csv", tmp_path / "data", ImportSettings(size=16))
    assert {row.source: row.label for row in dataset.rows} == dict(rows)
