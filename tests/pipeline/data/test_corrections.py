import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.audit import Kind, audit
from pneumo.pipeline.data.corrections import CorrectionFile, correct_items
from pneumo.pipeline.data.importer import ImportSettings, import_dataset, interpret_source
from pneumo.pipeline.data.manifest import MANIFEST, Dataset
from pneumo.pipeline.data.sources import Item, open_source
from pneumo.pipeline.data.staging import name_prepared
from pneumo.serving.contracts.errors import InputError

Read = Callable[..., CorrectionFile]
SETTINGS = ImportSettings(size=16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of 20 patients in two class folders."""
    root = tmp_path_factory.mktemp("source") / "raw"
    for number in range(40):
        path = root / ("NORMAL", "PNEUMONIA")[number % 2] / f"{'IM' if number % 2 == 0 else 'person'}-{number:04}-1.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (12, 12), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def plain(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return import_dataset(source, tmp_path_factory.mktemp("plain") / "data", SETTINGS)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write lines of a table and read it: `read("relabel", "source,label", "a.png,NORMAL")`."""

    def write_and_read(option: str, *lines: str, name: str = "reviewed.csv") -> CorrectionFile:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        assert option in ("relabel", "exclude")
        return CorrectionFile.read(path, "relabel" if option == "relabel" else "exclude")

    return write_and_read


def correct(source: Path, out: Path, *files: CorrectionFile) -> Dataset:
    return import_dataset(source, out, replace(SETTINGS, corrections=files))


def test_corrections_change_only_what_they_name_and_stay_in_the_data_set(
    source: Path, plain: Dataset, read: Read, tmp_path: Path
) -> None:
    first, second, kept, gone, *_ = plain.rows
    relabel = read(
        "relabel",
        "rank,image,source,label,notes",
        f"1,{first.image},{first.source},pneumonia,seen twice",  # the case of a class does not matter
        f"2,{second.image},,PNEUMONIA,by its path alone",
        f"3,{kept.image},{kept.source},{kept.label},is right",
    )
    exclude = read("exclude", "image", gone.image, name="bad.csv")
    data = correct(source, tmp_path / "data", relabel, exclude)
    rows = {row.source: row for row in data.rows}
    assert {first.label, second.label} == {"NORMAL"}
    for before in (first, second):
        assert rows[before.source] == replace(before, label="PNEUMONIA", original_label="NORMAL")
    others = [row for row in plain.rows if row not in (first, second, gone)]
    assert [rows[row.source] for row in others] == others
    assert gone.source not in rows
    assert not (data.folder / gone.image).exists()
    assert [each.model_dump() for each in data.info.corrections] == [
        {"option": "relabel", "file": "reviewed.csv", "sha256": relabel.sha256, "listed": 3, "changed": 2},
        {"option": "exclude", "file": "bad.csv", "sha256": exclude.sha256, "listed": 1, "changed": 1},
    ]
    assert relabel.sha256 == hashlib.sha256(relabel.path.read_bytes()).hexdigest()
    assert data.info.skipped == [{"source": gone.source, "reason": "left out by bad.csv"}]
    assert data.info.fingerprint not in (plain.info.fingerprint, "")
    report = audit(data.folder)  # neither stray images nor another fingerprint
    assert not report.defects
    assert Kind.STRAY not in {finding.kind for finding in report.findings}
    assert correct(source, tmp_path / "data", relabel, exclude).info == data.info
    assert "original_label" in (data.folder / MANIFEST).read_text().splitlines()[0]
    assert "original_label" not in (plain.folder / MANIFEST).read_text()


def test_the_original_label_is_part_of_the_fingerprint(
    source: Path, plain: Dataset, read: Read, tmp_path: Path
) -> None:
    row = plain.rows[0]
    data = correct(source, tmp_path / "data", read("relabel", "source,label", f"{row.source},PNEUMONIA"))
    path = data.folder / MANIFEST
    text = path.read_text()
    assert text.count(",PNG,NORMAL,") == 1
    path.write_text(text.replace(",PNG,NORMAL,", ",PNG,,"))
    assert [finding.members for finding in audit(data.folder).defects] == [((MANIFEST,),)]


def test_files_are_applied_in_order_and_exclusion_is_final(
    source: Path, plain: Dataset, read: Read, tmp_path: Path
) -> None:
    one, other = plain.rows[:2]
    files = [
        read("relabel", "source;label", f"{one.source};PNEUMONIA", f"{other.source};PNEUMONIA", name="1.csv"),
        read("relabel", "source\tlabel", f"{one.source}\tNORMAL", name="2.tsv"),
        read("exclude", "source", other.source, other.source, name="3.csv"),
    ]
    data = correct(source, tmp_path / "data", *files)
    rows = {row.source: row for row in data.rows}
    assert rows[one.source] == one
    assert other.source not in rows
    assert [(each.listed, each.changed) for each in data.info.corrections] == [(2, 2), (1, 1), (1, 1)]


def test_a_data_set_that_is_imported_again_takes_the_paths_of_its_manifest(
    plain: Dataset, read: Read, tmp_path: Path
) -> None:
    row = plain.rows[0]
    file = read("relabel", "image,source,label", f"{row.image},{row.source},PNEUMONIA")
    data = correct(plain.folder, tmp_path / "data", file)
    assert [(each.source, each.original_label) for each in data.rows if each.original_label] == [(row.image, "NORMAL")]


def test_an_unreadable_image_may_be_listed(source: Path, read: Read, tmp_path: Path) -> None:
    for path in source.rglob("*.png"):
        copy = tmp_path / "raw" / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "raw/NORMAL/broken.png").write_bytes(b"broken")
    data = correct(tmp_path / "raw", tmp_path / "data", read("exclude", "source", "NORMAL/broken.png"))
    assert [(each.listed, each.changed) for each in data.info.corrections] == [(1, 1)]
    assert len(data.rows) == 40
    assert [entry["source"] for entry in data.info.skipped] == ["NORMAL/broken.png"]


@pytest.mark.parametrize(
    ("option", "lines", "message"),
    [
        (
            "relabel",
            ["image,class", "a.png,NORMAL"],
            r"d.csv:1: --relabel needs the columns 'image' or 'source' and 'l",
        ),
        ("exclude", ["file", "a.png"], r"reviewed.csv:1: --exclude needs .* 'source'; it has 'file'"),
        ("relabel", ["source,label"], r"reviewed.csv: no rows"),
        ("relabel", ["source,label,Label", "a.png,NORMAL,PNEUMONIA"], r"reviewed.csv:1: has two columns 'label'"),
    ],
)
def test_a_file_that_cannot_be_a_correction_is_refused_when_it_is_read(
    read: Read, option: str, lines: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(option, *lines)


@pytest.mark.parametrize(
    ("option", "lines", "message"),
    [
        ("relabel", ["source,label", ",NORMAL"], r"reviewed.csv:2: no such image in the source: ''"),
        ("relabel", ["source,label", "NORMAL/none.png,NORMAL"], r":2: no such image in the source: 'NORMAL/none.png'"),
        ("exclude", ["image", "images/train/NORMAL/none.png"], r":2: no such image in the source: 'images/train/NOR"),
        ("exclude", ["image,source", "{path},NORMAL/none.png"], r":2: no such image in the source: 'NORMAL/none.png'"),
        ("relabel", ["source,label", "{name},"], r":2: label '' is no class of the source, which has 'NORMAL', 'PNEU"),
        ("relabel", ["source,label", "{name},PNEUMONA"], r":2: label 'PNEUMONA' is no class .*'NORMAL'"),
        (
            "relabel",
            ["source,label", "{name},NORMAL", "{name},PNEUMONIA"],
            r":3: '.*' is 'PNEUMONIA' here and 'NORMAL'",
        ),
    ],
)
def test_unknown_images_and_labels_are_refused_before_an_image_is_read(
    source: Path, plain: Dataset, read: Read, option: str, lines: list[str], message: str
) -> None:
    row = plain.rows[0]
    file = read(option, *(line.format(name=row.source, path=row.image) for line in lines))
    with open_source(source) as opened, pytest.raises(InputError, match=message):
        interpret_source(opened, replace(SETTINGS, corrections=(file,)))


def test_a_path_that_two_images_can_have_is_refused_and_one_of_another_split_is_not() -> None:
    items = [Item(f"{folder}/NORMAL/a.png", "NORMAL") for folder in "xy"] + [Item("x/NORMAL/b.png", "NORMAL")]
    *_, unique = name_prepared("y/NORMAL/a.png", "NORMAL")

    def leave_out(image: str) -> list[str]:
        file = CorrectionFile("exclude", Path("bad.csv"), "", ((2, {"image": image}),))
        return list(correct_items([file], items).left_out)

    assert leave_out("images/test/NORMAL/b.png") == leave_out("images/train/NORMAL/b.png") == ["x/NORMAL/b.png"]
    assert leave_out(f"images/test/{unique}") == ["y/NORMAL/a.png"]
    with pytest.raises(InputError, match=r"could be 'x/NORMAL/a.png', 'y/NORMAL/a.png'; give its name in a column 'so"):
        leave_out("images/test/NORMAL/a.png")


def test_a_list_that_would_empty_a_split_or_a_class_is_refused(
    source: Path, plain: Dataset, read: Read, tmp_path: Path
) -> None:
    names = [row.source for row in plain.select(manifest.Split.TEST)]
    with pytest.raises(InputError, match=r"--exclude leaves no image in the test split"):
        correct(source, tmp_path / "data", read("exclude", "source", *names))
    normal = [f"{row.source},PNEUMONIA" for row in plain.rows if row.label == "NORMAL"]
    with pytest.raises(InputError, match=r"only images of 'PNEUMONIA'"):
        correct(source, tmp_path / "data", read("relabel", "source,label", *normal))
