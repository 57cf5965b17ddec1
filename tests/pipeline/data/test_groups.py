import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.audit import audit, open_subject
from pneumo.pipeline.data.audit.subject import is_dataset
from pneumo.pipeline.data.groups import MOST_VALUES, GroupRule
from pneumo.pipeline.data.importer import ImportSettings, import_dataset
from pneumo.pipeline.data.manifest import MANIFEST, Dataset
from pneumo.pipeline.data.sources import Item
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.preparation import Storage


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def table(folder: Path, columns: dict[str, list[str]], images: int = 16) -> Path:
    """A CSV of images of two classes with further columns."""
    folder.mkdir()
    lines = [["Image", "Label", *columns]]
    for number in range(images):
        (folder / f"{number:03}.png").write_bytes(png(number))
        lines.append([f"{number:03}.png", "AB"[number % 2], *(values[number] for values in columns.values())])
    path = folder / "list.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


def kermany(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        path = folder / ("NORMAL" if "IM" in name or name.startswith("NORMAL") else "PNEUMONIA") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train/PNEUMONIA/person1_bacteria_2.jpeg", {"kind": "bacteria"}),
        ("person12_virus_30.jpeg", {"kind": "virus"}),
        ("VIRUS-103359-0001.jpeg", {"kind": "virus"}),
        ("BACTERIA-103359-0001.jpeg", {"kind": "bacteria"}),
        ("IM-0115-0001.jpeg", {"source": "IM"}),
        ("test/NORMAL/NORMAL2-IM-1427-0001.jpeg", {"source": "NORMAL2-IM"}),
        ("NORMAL-28501-0001.jpeg", {}),
        ("person12_covid_30.jpeg", {}),
        ("MY-IM-3.jpeg", {}),
        ("virus.jpeg", {}),
    ],
)
def test_kermanys_names_tell_kind_and_source(name: str, expected: dict[str, str]) -> None:
    assert GroupRule().groups(Item(name, "PNEUMONIA")) == expected


def test_groups_of_names_are_imported_written_and_read_back(tmp_path: Path) -> None:
    names = [f"person{number}_{'virus' if number % 2 else 'bacteria'}_{number}" for number in range(8)]
    names += [f"IM-{number:04}-0001" for number in range(4)] + [f"NORMAL2-IM-{number:04}-0001" for number in range(4)]
    data = import_dataset(kermany(tmp_path / "raw", names), tmp_path / "data", ImportSettings(size=16))
    found = {Path(row.source).stem: dict(row.groups) for row in data.rows}
    assert found["person1_virus_1"] == {"kind": "virus"}
    assert found["NORMAL2-IM-0000-0001"] == {"source": "NORMAL2-IM"}
    header = (data.folder / MANIFEST).read_text().splitlines()[0]
    assert header == ",".join([*manifest.COLUMNS, "bytes", "format", "group:kind", "group:source"])
    assert manifest.read_dataset(data.folder) == data
    assert is_dataset(data.folder / MANIFEST)


def test_columns_of_a_table_become_groups_where_they_are_named(tmp_path: Path) -> None:
    sexes, views = [*"fm" * 7, "", "f"], ["AP", "PA"] * 8
    source = table(tmp_path / "raw", {"Sex": sexes, " View ": views, "age": [str(n) for n in range(16)]})
    data = import_dataset(source, tmp_path / "data", ImportSettings(size=16, groups="VIEW, sex"))
    found = {row.source: dict(row.groups) for row in data.rows}
    assert found["000.png"] == {"sex": "f", "view": "AP"}
    assert found["014.png"] == {"view": "AP"}  # an empty cell is no group
    assert manifest.group_names(data.rows) == ["sex", "view"]
    assert all(not row.groups for row in import_dataset(source, tmp_path / "plain", ImportSettings(size=16)).rows)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("race", r"--groups race: no such column in the source; choose from its further columns: age, sex"),
        ("sex,age", rf"--groups age: {MOST_VALUES + 2} different values; a group has at most {MOST_VALUES}"),
    ],
)
def test_columns_that_cannot_be_groups_are_refused(tmp_path: Path, groups: str, message: str) -> None:
    images = MOST_VALUES + 2
    columns = {"sex": ["f", "m"] * (images // 2), "age": [str(number) for number in range(images)]}
    with pytest.raises(InputError, match=message):
        import_dataset(
            table(tmp_path / "raw", columns, images), tmp_path / "data", ImportSettings(size=16, groups=groups)
        )


def test_groups_of_a_source_without_a_table_are_refused(tmp_path: Path) -> None:
    source = kermany(tmp_path / "raw", ["IM-0001-0001", "person1_virus_1"])
    with pytest.raises(InputError, match=r"--groups sex: .* its images are not listed in a table"):
        import_dataset(source, tmp_path / "data", ImportSettings(size=16, groups="sex"))


def plain(folder: Path) -> Dataset:
    return import_dataset(table(folder / "raw", {}), folder / "data", ImportSettings(size=16))


def test_a_data_set_without_groups_has_the_fingerprint_and_the_columns_of_before(tmp_path: Path) -> None:
    data = plain(tmp_path)
    assert (data.folder / MANIFEST).read_text().splitlines()[0] == ",".join([*manifest.COLUMNS, "bytes", "format"])
    rows = [dataclasses.replace(row, bytes=None, format=None) for row in data.rows]
    manifest.write_dataset(data.folder, rows, data.info, data.digests)
    assert (data.folder / MANIFEST).read_text().splitlines()[0] == ",".join(manifest.COLUMNS)
    one = manifest.Row("images/a.png", "A", manifest.Split.TRAIN, "p", "a.png", "0" * 64, 3, 4)
    made = manifest.compute_fingerprint([one], Storage(size=16))
    assert made == "d1c63972978d4dff659bc081fdd166da885609d5063e83d2af1bd7f7ec15b256"
    grouped = dataclasses.replace(one, groups={"sex": "f"})
    assert manifest.compute_fingerprint([grouped], Storage(size=16)) != made


def test_groups_are_covered_by_the_fingerprint(tmp_path: Path) -> None:
    data = plain(tmp_path)
    path = data.folder / MANIFEST
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",group:sex", lines[1] + ",f", *(line + "," for line in lines[2:])]) + "\n")
    assert manifest.read_dataset(data.folder).rows[0].groups == {"sex": "f"}
    with open_subject(data.folder) as subject:
        found = audit(subject, workers=1)
    assert "changed" in [finding.kind.value for finding in found.defects]
