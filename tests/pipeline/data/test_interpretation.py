"""What an import understands of folders: the right classes, or a refusal that names the options."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.pipeline.data.importer import ImportSettings, SplitMethod, interpret_source
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.sources import SourceOptions, open_source
from pneumo.serving.contracts.errors import InputError


class Layout(NamedTuple):
    """A source: folders with their numbers of images, other files with their text, and what must come of it."""

    images: Mapping[str, int]
    texts: Mapping[str, str] = {}
    options: Mapping[str, Any] = {}
    classes: Mapping[str, int] | None = None  # None: it must be refused
    says: tuple[str, ...] = ()  # of the refusal, or of ignored files and notes
    patients: int | None = None
    splits: set[Split] | None = None


TABLE = "image,label\nNORMAL/0.png,PNEUMONIA\nPNEUMONIA/0.png,NORMAL\n"
PATIENTS_ABOVE = {"patient1/NORMAL": 1, "patient2/PNEUMONIA": 2, "patient3/NORMAL": 1}
PATIENTS_BELOW = {"NORMAL/p1": 2, "NORMAL/p2": 2, "PNEUMONIA/p3": 2, "PNEUMONIA/p4": 1}
HOSPITALS = {"north/NORMAL": 2, "north/PNEUMONIA": 2, "south/NORMAL": 2, "south/PNEUMONIA": 2}
FILMS = {"COVID/images": 2, "COVID/masks": 2, "Normal/images": 3, "Normal/masks": 3}
SETS = {"train_set/A": 2, "train_set/B": 2, "test_set/A": 1, "test_set/B": 1}
FOLDS = {"fold1/A": 2, "fold1/B": 2, "fold2/A": 1, "fold2/B": 1}
SPLITS = {Split.TRAIN, Split.TEST}

LAYOUTS = {
    "class folders": Layout({"NORMAL": 2, "PNEUMONIA": 3}, classes={"NORMAL": 2, "PNEUMONIA": 3}),
    "class folders in an archive's folder": Layout({"a/b/A": 2, "a/b/B": 1}, classes={"A": 2, "B": 1}),
    "splits": Layout({"x/train/A": 2, "x/train/B": 2, "x/test/A": 1}, classes={"A": 3, "B": 2}, splits=SPLITS),
    "a stray table": Layout(
        {"NORMAL": 2, "PNEUMONIA": 2}, {"list.csv": TABLE}, says=("--table list.csv", "--layout class")
    ),
    "a stray table, the folders chosen": Layout(
        {"NORMAL": 2, "PNEUMONIA": 2},
        {"list.csv": TABLE},
        {"layout": "class"},
        {"NORMAL": 2, "PNEUMONIA": 2},
        ("not an image: .csv",),
    ),
    "a stray table, the table chosen": Layout(
        {"NORMAL": 2, "PNEUMONIA": 2},
        {"list.csv": TABLE},
        {"table": "list.csv"},
        {"NORMAL": 1, "PNEUMONIA": 1},
        ("not listed in the table",),
    ),
    "a table with other columns beside numbered folders": Layout(
        {"images_001/images": 2, "images_002/images": 2},
        {"Data_Entry.csv": "Image Index,Finding Labels,Patient ID\n0.png,Mass,1\n1.png,None,2\n"},
        says=("--table Data_Entry.csv",),
    ),
    "a table of other things": Layout(
        {"A": 2, "B": 2}, {"costs.csv": "item,price\nbook,3\n"}, classes={"A": 2, "B": 2}, says=("not an image: .csv",)
    ),
    "two tables": Layout(
        {"films": 3}, {"a.csv": "image,label\n0.png,A\n", "b.csv": "image,label\n1.png,B\n"}, says=("--table a.csv",)
    ),
    "patients above classes": Layout(PATIENTS_ABOVE, says=("patient/class", "--layout class")),
    "patients above classes, chosen": Layout(
        PATIENTS_ABOVE, {}, {"layout": "patient/class"}, {"NORMAL": 2, "PNEUMONIA": 2}, patients=3
    ),
    "hospitals above classes": Layout(HOSPITALS, says=("any/class", "--layout class", "patient/class")),
    "hospitals above classes, passed over": Layout(
        HOSPITALS, {}, {"layout": "any/class"}, {"NORMAL": 4, "PNEUMONIA": 4}
    ),
    "patients below classes": Layout(PATIENTS_BELOW, says=("class/patient", "--layout class")),
    "patients below classes, chosen": Layout(
        PATIENTS_BELOW, {}, {"layout": "class/patient"}, {"NORMAL": 4, "PNEUMONIA": 3}, patients=4
    ),
    "patients below splits and classes": Layout(
        {f"train/{name}": count for name, count in PATIENTS_BELOW.items()}, says=("split/class/patient",)
    ),
    "patients between splits and classes": Layout(
        {f"train/{name}": count for name, count in PATIENTS_ABOVE.items()}, says=("split/patient/class",)
    ),
    "patients, and no classes": Layout({f"{i:03}": 1 for i in range(12)}, says=("--table FILE", "--layout class")),
    "numbered patients, and no classes": Layout({"case_1": 4, "case_2": 5}, says=("--table FILE",)),
    "names of splits": Layout(SETS, says=("'test_set', 'train_set'", "split/class", "any/class")),
    "names of splits, chosen": Layout(SETS, {}, {"layout": "split/class"}, {"A": 3, "B": 3}, splits=SPLITS),
    "one folder more that is named like a split": Layout(
        {"train/A": 1, "train/B": 1, "Train1/A": 1, "test/A": 1}, says=("'Train1'", "split/class")
    ),
    "folds": Layout(FOLDS, says=("any/class", "--layout class")),
    "folds as splits": Layout(
        FOLDS, {}, {"layout": "split/class"}, says=("--layout split/class: no image fits", "any")
    ),
    "folds, passed over": Layout(FOLDS, {}, {"layout": "any/class"}, {"A": 3, "B": 3}),
    "splits without classes": Layout({"train": 3, "test": 2}, says=("--layout class", "--table FILE")),
    "classes valid and test": Layout({"valid": 3, "test": 2}, {}, {"layout": "class"}, {"valid": 3, "test": 2}),
    "classes valid and test above patients": Layout({"valid/p1": 3, "test/p2": 2}, says=("--layout class",)),
    "classes valid and test in splits": Layout(
        {"train/valid": 2, "train/test": 2, "test/valid": 1, "test/test": 1}, says=("split/class",)
    ),
    "masks beside images": Layout(FILMS, classes={"COVID": 2, "Normal": 3}, says=("a mask of an image",)),
    "masks in the class folder": Layout(
        {"A": 2, "A/Segmentation": 2, "B": 1}, classes={"A": 2, "B": 1}, says=("a mask of an image",)
    ),
    "masks above classes": Layout(
        {"images/A": 2, "images/B": 1, "masks/A": 2, "masks/B": 1},
        classes={"A": 2, "B": 1},
        says=("a mask of an image",),
    ),
    "masks named like images": Layout(
        {"benign": 2, "normal": 2}, {"benign/0_mask.png": "x"}, classes={"benign": 2, "normal": 2}, says=("a mask",)
    ),
    "masks among the classes": Layout({"A": 2, "B": 2, "masks": 4}, says=("'masks'", "--layout class")),
    "names that differ in case": Layout(
        {"NORMAL": 3, "Normal": 1, "B": 1}, classes={"NORMAL": 4, "B": 1}, says=("'Normal'",)
    ),
    "names that differ in white space": Layout(
        {"train/no finding": 2, "test/no  finding ": 1, "train/B": 1, "test/B": 1},
        classes={"no finding": 3, "B": 2},
        says=("counts as 'no finding'",),
    ),
    "names in two Unicode forms": Layout(
        {"train/Lungenentz\u00fcndung": 2, "test/Lungenentzu\u0308ndung": 1, "train/B": 1},
        classes={"Lungenentz\u00fcndung": 3, "B": 1},
        says=("counts as",),
    ),
    "classes 0 and 1": Layout({"0": 2, "1": 2, "2": 1}, classes={"0": 2, "1": 2, "2": 1}),
    "renamed": Layout(
        {"no finding": 1, "Normal": 1, "TB": 1},
        {},
        {"rename": ["no finding=NORMAL", "Normal=NORMAL"]},
        {"NORMAL": 2, "TB": 1},
    ),
    "renamed, but there is no such class": Layout(
        {"no finding": 1, "TB": 1}, {}, {"rename": ["nofinding=NORMAL"]}, says=("'no finding'",)
    ),
    "an empty class folder": Layout({"A": 2, "B": 1, "C": 0}, says=("'C'", "--layout class")),
    "an empty class folder, left out": Layout(
        {"A": 2, "B": 1, "C": 0}, {}, {"layout": "class"}, {"A": 2, "B": 1}, ("'C' is no class",)
    ),
    "a class folder without images": Layout(
        {"A": 2, "B": 1}, {"docs/x.txt": "x"}, classes={"A": 2, "B": 1}, says=("'docs' is no class",)
    ),
    "most images in no class folder": Layout({"": 9, "A": 1, "B": 1}, says=("9 of 11", "--layout class")),
    "an unknown level": Layout({"A": 1, "B": 1}, {}, {"layout": "label"}, says=("--layout 'label'", "split/class")),
    "a table and a layout": Layout({"A": 1}, {}, {"layout": "class", "table": "x.csv"}, says=("--table", "--layout")),
    "columns without a table": Layout({"A": 1, "B": 1}, {}, {"label_column": "x"}, says=("--label-column",)),
}


def write(root: Path, layout: Layout) -> Path:
    for folder, count in layout.images.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number}.png").write_bytes(b"no pixel is read")
    for name, text in layout.texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def zip_folder(root: Path) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root))
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_is_understood_or_refused_with_the_options_that_settle_it(
    tmp_path: Path, layout: Layout, packed: bool
) -> None:
    root = write(tmp_path / "set", layout)
    path = zip_folder(root) if packed else root
    if layout.classes is None:
        with pytest.raises(InputError) as refused, open_source(path, SourceOptions(**layout.options)):
            pass
        assert all(text in str(refused.value) for text in layout.says), str(refused.value)
        assert refused.value.exit_code == 2
        return
    chosen = ImportSettings(source=SourceOptions(**layout.options))
    with open_source(path, chosen.source) as source:
        understood = interpret_source(source, chosen)
        assert understood.classes == layout.classes
        assert all(any(text in told for told in [*understood.ignored, *understood.notes]) for text in layout.says)
        if layout.patients is not None:
            assert len({item.patient for item in source.items}) == layout.patients
        if layout.splits is not None:
            assert {item.split for item in source.items} == layout.splits


def test_an_interpretation_says_where_everything_comes_from(tmp_path: Path) -> None:
    root = write(tmp_path, Layout({"train/A": 2, "train/B": 2, "test/A": 1}, {"train/notes.txt": "x"}))
    with open_source(root) as source:
        understood = interpret_source(source, ImportSettings())
        kept = interpret_source(source, ImportSettings(split=SplitMethod.GIVEN))
    assert kept.splits_from == "folder names"
    assert understood.model_dump() == {
        "layout": "split/class",
        "example": "test/A/0.png",
        "classes": {"A": 3, "B": 2},
        "labels_from": "folder names",
        "patients_from": "nothing, each image its own: 5 images; 5 patients",
        "splits_from": "made by class and patient; --split given keeps those of folder names",
        "ignored": {"not an image: .txt": 1},
        "notes": [],
        "ambiguities": [],
    }


NAMES = st.sampled_from(
    [
        "train",
        "test",
        "val",
        "fold1",
        "A",
        "a",
        "B",
        "p1",
        "p2",
        "images",
        "masks",
        "patient7",
        "None",
        "0",
        "\u00fc",
        "u\u0308",
    ]
)
FILES = st.sampled_from(["0.png", "1.PNG", "0_mask.png", "x.txt", "x", ".hidden", "1.2.840", "DICOMDIR", "y.csv"])
TREES = st.sets(
    st.tuples(st.lists(NAMES, max_size=4).map("/".join), FILES).map(lambda pair: "/".join(filter(None, pair)))
)
TABLES = st.lists(
    st.tuples(st.sampled_from(["A/0.png", "0", "train/A/1.png", "x", ""]), st.sampled_from(["A", "nan", ""]))
)


@pytest.mark.parametrize("layout", [None, "class", "split/class", "patient/class", "any/class/patient"])
@given(names=TREES, rows=st.none() | TABLES)
def test_every_file_is_an_image_or_is_said_to_be_left_out(
    layout: str | None, names: set[str], rows: list[tuple[str, str]] | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("trees") / "s.zip"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(names):
            archive.writestr(name, b"x")
        if rows is not None:
            archive.writestr("list.csv", "image,label\n" + "".join(f"{image},{label}\n" for image, label in rows))
    path.write_bytes(buffer.getvalue())
    options = SourceOptions(layout=layout)
    try:
        with open_source(path, options, allow_ambiguities=True) as source:
            of_rows = ("no such file", "no image name", "duplicate row", "no label")
            rows_left_out = [entry for entry in source.skipped if entry.reason in of_rows]
            others = sum(entry.count for entry in source.skipped if entry not in rows_left_out)
            table = source.layout == "table"
            rest = len(names) + (rows is not None) - len(source.items) - others - table
            assert 0 <= rest <= sum(entry.reason == "no label" for entry in rows_left_out)
            interpret = interpret_source(source, ImportSettings())
            assert sum(interpret.classes.values()) == len(source.items)
    except InputError as error:
        assert "\n" not in str(error)
