"""Tables of images: how they are written, which columns they have, and which files they mean."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.sources import Item, SourceOptions, open_source
from pneumo.pipeline.data.sources.tables import parse_table
from pneumo.serving.contracts.errors import InputError

ROWS = "image,label\n0.png,A\n1.png,B\n"


def make(root: Path, table: str | bytes, *files: str, name: str = "list.csv") -> Path:
    for file in files or ("0.png", "1.png"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"no pixel is read")
    (root / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    return root


def read(path: Path, **options: Any) -> dict[str, Item]:
    with open_source(path, SourceOptions(**options)) as source:
        return {item.name: item for item in source.items}


def labels(path: Path, **options: Any) -> dict[str, str]:
    return {name: item.label for name, item in read(path, **options).items()}


def notes(path: Path, **options: Any) -> str:
    with open_source(path, SourceOptions(**options)) as source:
        return "\n".join(source.notes)


@pytest.mark.parametrize(
    "table",
    [
        ROWS,
        ROWS.replace(",", ";"),
        ROWS.replace(",", "\t"),
        ROWS.replace(",", "|"),
        "sep=;\r\n" + ROWS.replace(",", ";").replace("\n", "\r\n"),
        '"sep=\t"\n' + ROWS.replace(",", "\t"),
        "sep=,\n" + ROWS,
        "\n\n" + ROWS,
        ROWS.replace("\n", "\r"),
        ROWS.encode("utf-8-sig"),
        ROWS.encode("utf-16"),
        b"\xfe\xff" + ROWS.encode("utf-16-be"),
        ROWS.replace(",", "\t").encode("utf-16"),
        '"image" , "label"\n"0.png","A"\n"1.png","B"\n',
        "IMAGE,Label,note\n0.png,A,\n1.png,B,\n",
        "image;label;age\n0.png;A;3,5\n1.png;B;4,0\n",
        'image,label,note\n0.png,A,"a;b;c;d"\n1.png,B,"two\nlines"\n',
        "image,label\n./0.png,A\n.\\1.png,B\n",
        "image,label\n0.png,A,\n1.png,B,,\n",
    ],
)
@pytest.mark.parametrize("inside", [False, True], ids=["file", "folder"])
def test_every_way_to_write_a_table_is_read(tmp_path: Path, table: str | bytes, inside: bool) -> None:
    root = make(tmp_path, table)
    assert labels(root if inside else root / "list.csv") == {"0.png": "A", "1.png": "B"}


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("file,label\n0.png,A\n", {}, "no column 'image'; it has 'file', 'label'. Name yours: --image-column \"file\""),
        (
            "Image Index,Finding Labels\n0.png,A\n",
            {},
            '--image-column "Image Index" --label-column "Finding Labels"',
        ),
        ("image,label\n0.png,A\n", {"label_column": "finding"}, "no column 'finding'"),
        ("image,label\n0.png,A\n", {"patient_column": "ID"}, "no column 'ID'; it has 'image', 'label'"),
        ("image,label,label\n0.png,A,B\n", {}, "list.csv:1: 2 columns 'label'"),
        ("image,label,Label\n0.png,A,B\n", {}, "list.csv:1: 2 columns 'label'"),
        ("image,label\n0.png,A,B\n", {}, "list.csv:2: 3 cells under 2 columns"),
        ("sep=;\nimage;label;split\n0.png;A;fold1\n", {}, "list.csv:3: unknown split 'fold1'.*--split-column none"),
        ("image,label,Patient ID\n0.png,A,p\n", {}, '--patient-column "Patient ID" reads them, --patient-column none'),
        ("image,label\n0.png,A\n0.png,B\n", {}, "list.csv:3: '0.png' is 'B' here and 'A' in a row above"),
        ("image,label\n0,A\n", {"layout": "class"}, "leave out --layout"),
        (b"PK\x03\x04 an .xlsx", {}, "a spreadsheet; save it as CSV"),
        ("image,label\n0.png,Entz\u00fcndung\n".encode("cp1252"), {}, "not UTF-8 at byte 22; save the table as UTF-8"),
        (ROWS.encode("utf-16-le"), {}, "NUL characters"),
        ('image,label\n"0.png,A\n', {}, "list.csv"),
    ],
)
def test_a_table_that_could_be_misread_is_refused(
    tmp_path: Path, table: str | bytes, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(make(tmp_path, table) / "list.csv", **options)


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    table = "File;Dx;PID;fold;split;Sex\n0.png;A;p1;test;x;F\n1.png;B;p2;train;y;NaN\n"
    chosen = {"image_column": "File", "label_column": "dx", "patient_column": "PID", "split_column": "fold"}
    items = read(make(tmp_path, table), **chosen)
    assert items["0.png"] == Item("0.png", "A", Split.TEST, "p1", 16, {"split": "x", "sex": "F"})
    assert items["1.png"].columns == {"split": "y"}
    ignored = read(tmp_path, **chosen | {"patient_column": "none", "split_column": "none"})
    assert {(item.patient, item.split) for item in ignored.values()} == {(None, None)}


def test_one_of_two_columns_that_differ_in_case_can_be_chosen(tmp_path: Path) -> None:
    table = "image,label,Label\n0.png,A,C\n1.png,B,D\n"
    assert labels(make(tmp_path, table), label_column="Label") == {"0.png": "C", "1.png": "D"}


@pytest.mark.parametrize("empty", ["", " ", "NaN", "nan", "None", "n/a", "N/A", "NA", "null", "-"])
def test_a_cell_without_a_value_is_missing_and_is_reported(tmp_path: Path, empty: str) -> None:
    table = f"image,label,patient,split\n0.png,A,{empty},{empty}\n1.png,{empty},p,train\n"
    root = make(tmp_path, table)
    assert read(root) == {"0.png": Item("0.png", "A", None, None, 16, {})}
    with open_source(root) as source:
        assert [(entry.source, entry.reason) for entry in source.skipped] == [("1.png", "no label")]
    if empty.strip():
        for column in ("label", "patient", "split"):
            assert f"1 cells of the column {column!r} hold no value: {empty!r} (1)" in notes(root)


def test_a_missing_label_is_a_class_once_it_is_renamed(tmp_path: Path) -> None:
    root = make(tmp_path, "image,label\n0.png,None\n1.png,TB\n")
    assert labels(root, rename=["None=NORMAL"]) == {"0.png": "NORMAL", "1.png": "TB"}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("0", "0.png"),
        ("0", "images/0.png"),
        ("0.png", "images/deep/0.PNG"),
        ("0.PNG", "0.png"),
        ("Images/0.png", "images/0.png"),
        ("0.dcm", "0.png"),
        ("C:\\data\\films\\0.png", "films/0.png"),
        ("C:\\data\\films\\0.png", "0.png"),
        ("/data/films/0.png", "films/0.png"),
        ("films\\0.png", "films/0.png"),
        ("Lu\u0308cke.png", "L\u00fccke.png"),
    ],
)
@pytest.mark.parametrize("inside", [False, True], ids=["file", "folder"])
def test_a_file_is_found_under_another_spelling_if_only_one_can_be_meant(
    tmp_path: Path, name: str, file: str, inside: bool
) -> None:
    root = make(tmp_path, f"image,label\n{name},A\n", file, "other/1.png")
    path, chosen = (root, {"table": "list.csv"}) if inside else (root / "list.csv", {})
    assert labels(path, **chosen) == {file: "A"}
    if name.replace("\\", "/") != file:
        assert "1 names of the table were found in another folder or spelling" in notes(path, **chosen)


def test_a_name_that_can_mean_two_files_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path, "image,label\n0,A\n", "a/0.png", "b/0.png")
    for path, chosen in ((root, {"table": "list.csv"}), (root / "list.csv", {})):
        with pytest.raises(InputError, match=r"list.csv:2: .0. could be .a/0.png. or .b/0.png."):
            read(path, **chosen)


def test_a_name_in_another_folder_is_not_taken_for_the_image(tmp_path: Path) -> None:
    root = make(tmp_path, "image,label\ntrain/0.png,A\ntrain/1.png,B\n", "test/0.png", "train/1.png")
    assert labels(root, table="list.csv") == {"train/1.png": "B"}


def test_masks_are_not_taken_for_the_images_of_a_table(tmp_path: Path) -> None:
    root = make(tmp_path, "image,label\n0,A\n1,B\n", "images/0.png", "images/1.png", "masks/0.png", "masks/1.png")
    assert labels(root) == {"images/0.png": "A", "images/1.png": "B"}


def test_a_table_may_lie_beside_the_folder_or_archive(tmp_path: Path) -> None:
    make(tmp_path / "films", ROWS, "deep/0.png", "1.png", name="inside.csv")
    (tmp_path / "outside.csv").write_text(ROWS)
    wanted = {"deep/0.png": "A", "1.png": "B"}
    assert labels(tmp_path / "films", table=str(tmp_path / "outside.csv")) == wanted
    assert labels(tmp_path / "films", table=str(tmp_path / "films/inside.csv")) == wanted
    assert labels(tmp_path / "films", table="inside.csv") == wanted
    with pytest.raises(InputError, match=r"--table x.csv: no such file; .*films holds inside.csv"):
        read(tmp_path / "films", table="x.csv")


@given(st.binary(max_size=120) | st.text("image,lb;\t|\n\r\"'sep=0A.png ", max_size=80).map(str.encode))
def test_any_bytes_are_a_table_or_are_refused_in_one_line(data: bytes) -> None:
    try:
        table = parse_table(data, where="list.csv")
        assert all(len(cells) == len(table.header) for _, cells in table.rows)
        table.find_columns(SourceOptions())
    except InputError as error:
        assert "\n" not in str(error)
        assert str(error).startswith("list.csv")
