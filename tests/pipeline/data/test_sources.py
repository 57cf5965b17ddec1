import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.patients import PatientRule
from pneumo.pipeline.data.sources import Item, Source, SourceOptions, UnreadableError, open_source
from pneumo.pipeline.data.sources.containers import clean_name
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.decode import read_gray

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format="PNG")
    return buffer.getvalue()


def put(root: Path, *names: str, data: bytes | None = None) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png() if data is None else data)
    return root


def found(path: Path) -> dict[str, tuple[str, Split | None]]:
    with open_source(path) as source:
        return {item.name: (item.label, item.split) for item in source.items}


def reasons(path: Path) -> dict[str, str]:
    with open_source(path) as source:
        return {entry.source: entry.reason for entry in source.skipped}


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("prefix", ["", "chest_xray/", "a/b/chest_xray/"])
def test_split_folders_are_found_at_any_depth(tmp_path: Path, prefix: str) -> None:
    put(tmp_path, f"{prefix}train/NORMAL/a.png", f"{prefix}val/NORMAL/b.png", f"{prefix}test/PNEUMONIA/c.png")
    assert found(tmp_path) == {
        f"{prefix}train/NORMAL/a.png": ("NORMAL", Split.TRAIN),
        f"{prefix}val/NORMAL/b.png": ("NORMAL", Split.VALIDATION),
        f"{prefix}test/PNEUMONIA/c.png": ("PNEUMONIA", Split.TEST),
    }


@pytest.mark.parametrize("prefix", ["", "all/", "x/y/"])
def test_a_folder_a_class_is_understood_under_any_prefix(tmp_path: Path, prefix: str) -> None:
    put(tmp_path, f"{prefix}cat/a.png", f"{prefix}dog/deep/er/b.png")
    assert found(tmp_path) == {f"{prefix}cat/a.png": ("cat", None), f"{prefix}dog/deep/er/b.png": ("dog", None)}


def test_files_that_are_no_images_are_listed_by_reason_and_count(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "dog/b.png", "cover.png")
    put(tmp_path, ".DS_Store", "cat/.DS_Store", "__MACOSX/cat/._a.png", "cat/notes.txt", data=b"x")
    with open_source(tmp_path) as source:
        told = {(entry.reason, entry.count) for entry in source.skipped}
    assert told == {("a hidden file", 3), ("not an image: .txt", 1), ("not in a class folder", 1)}


def test_an_image_outside_the_split_folders_is_listed_as_skipped(tmp_path: Path) -> None:
    put(tmp_path, "train/A/a.png", "train/B/b.png", "extra/A/c.png")
    assert reasons(tmp_path) == {"extra/A/c.png": "not in a class folder of a split folder"}


def test_a_link_to_a_folder_is_followed_once(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "a.png")
    put(tmp_path / "set", "dog/b.png")
    (tmp_path / "set/cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "set")
    (tmp_path / "set/dog/gone.png").symlink_to(tmp_path / "nowhere")
    assert set(found(tmp_path / "set")) == {"cat/a.png", "dog/b.png"}
    assert reasons(tmp_path / "set")["dog/gone.png"] == "a broken link"


def test_a_table_gives_label_patient_split_and_what_else_it_says(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/b.png", "c.png")
    table = tmp_path / "list.csv"
    rows = "image,label,patient,split,age\nimages/a.png,A,p1,train,3\n./images/b.png,B,,2,4\nc.png,A,p1,Validation,\n"
    table.write_text("\ufeff" + rows, encoding="utf-8")
    with open_source(table) as source:
        assert source.items == tuple(
            Item(name, label, split, patient, len(png()), others)
            for name, label, split, patient, others in [
                ("images/a.png", "A", Split.TRAIN, "p1", {"age": "3"}),
                ("images/b.png", "B", Split.TEST, None, {"age": "4"}),
                ("c.png", "A", Split.VALIDATION, "p1", {}),
            ]
        )
        assert source.read(source.items[0]).data == png()


def test_blanks_in_an_image_name_are_kept_and_collapsed_in_other_cells(tmp_path: Path) -> None:
    put(tmp_path, "x  y.png", " z.png", "w.png")
    (tmp_path / "list.csv").write_text(
        'image,label,patient,split\nx  y.png, A  B ,p  1, train\n z.png,C,,\n w.png ,C,,\n"  ",C,,\n'
    )
    for path in (tmp_path, tmp_path / "list.csv"):
        with open_source(path) as source:
            assert {(item.name, item.label, item.split, item.patient) for item in source.items} == {
                ("x  y.png", "A B", Split.TRAIN, "p 1"),
                (" z.png", "C", None, None),
                ("w.png", "C", None, None),
            }
            assert all(source.read(item).data == png() for item in source.items)
        assert reasons(path) == {"line 5": "no image name"}


def test_every_table_row_that_is_left_out_is_listed_as_skipped(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "list.csv").write_text("image,label\na.png,A\ngone.png,A\nb.png,\na.png,A\n,B\n")
    assert reasons(tmp_path / "list.csv") == {
        "gone.png": "no such file",
        "b.png": "no label",
        "a.png": "duplicate row",
        "line 6": "no image name",
    }


def test_images_that_a_table_in_a_folder_does_not_list_are_skipped(tmp_path: Path) -> None:
    put(tmp_path, "x/a.png", "x/b.png", "x/c.png")
    (tmp_path / "list.csv").write_text("image,label\nx/a.png,A\n")
    assert found(tmp_path) == {"x/a.png": ("A", None)}
    assert reasons(tmp_path) == {"x/b.png": "not listed in the table"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,label\na.png,A\n", "list.csv:1: no column 'image'"),
        ("image,label\n", "no rows"),
        ("image,label,split\na.png,A,fold3\n", "list.csv:2: unknown split 'fold3'"),
        ("image,label\na.png,A\na.png,B\n", "list.csv:3: 'a.png' is 'B' here and 'A' in a row above"),
        ("image,label\n\0a.png,\xff\n", "not UTF-8"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "list.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message), open_source(tmp_path / "list.csv"):
        pass


@pytest.mark.parametrize("name", ["s.zip", "s.tar", "s.tar.gz", "s.tar.xz"])
@pytest.mark.parametrize("layout", ["folders", "table", "npz"])
def test_archives_are_read_without_extracting(tmp_path: Path, name: str, layout: str) -> None:
    members = {"top/train/A/a.png": png(), "top/train/B/b.png": png(), "top/__MACOSX/._a.png": b"x"}
    if layout == "table":
        members["top/list.csv"] = b"image,label\ntrain/A/a.png,X\n../top/train/B/b.png,Y\n"
    if layout == "npz":
        buffer = io.BytesIO()
        np.savez(buffer, train_images=np.stack([PIXELS] * 2), train_labels=np.array([[0], [1]]))
        members = {"d/pneumoniamnist.npz": buffer.getvalue()}
    path = tmp_path / name
    if name == "s.zip":
        zipped(path, members)
    else:
        tarred(path, members, f"w:{name.partition('.tar')[2][1:]}")
    with open_source(path, SourceOptions(table="top/list.csv" if layout == "table" else None)) as source:
        labels = sorted(item.label for item in source.items)
        assert (read_gray(source.read(source.items[1]).data).gray == PIXELS).all()
    assert labels == {"folders": ["A", "B"], "table": ["X", "Y"], "npz": ["NORMAL", "PNEUMONIA"]}[layout]
    assert list(tmp_path.iterdir()) == [path]


def test_archive_names_that_lead_outside_become_harmless(tmp_path: Path) -> None:
    names = ["/train/A/a.png", "../../train/B/b.png", "train\\A\\..\\A\\c.png"]
    assert set(found(zipped(tmp_path / "s.zip", dict.fromkeys(names, png())))) == {
        "train/A/a.png",
        "train/B/b.png",
        "train/A/A/c.png",
    }


@given(st.text(max_size=30))
def test_a_clean_name_is_relative_and_printable(name: str) -> None:
    clean = clean_name(name)
    assert clean
    assert not clean.startswith("/")
    assert ".." not in clean.split("/")
    assert all(ord(char) >= 32 for char in clean)
    clean.encode()
    assert clean_name(clean) == clean or clean[1:2] == ":"


def test_an_encrypted_member_is_skipped(tmp_path: Path) -> None:
    path = zipped(tmp_path / "s.zip", {"A/a.png": png(), "B/b.png": png(), "B/c.png": png()})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # the last entry of the central directory
    data[entry + 8] |= 1
    path.write_bytes(data)
    assert set(found(path)) == {"A/a.png", "B/b.png"}
    assert "encrypted" in reasons(path)["B/c.png"]


def test_a_damaged_member_is_refused_when_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "s.zip", {"A/a.png": png(), "B/b.png": png()})
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    with open_source(path) as source:
        with pytest.raises(UnreadableError, match="damaged in the archive"):
            source.read(source.items[0])
        assert source.read(source.items[1]).data == png()


def test_the_last_member_of_a_name_is_read_and_links_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in [("A/a.png", b"old"), ("B/b.png", png()), ("A/a.png", png())]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("A/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with open_source(path) as source:
        assert {item.name: source.read(item).data for item in source.items} == {"A/a.png": png(), "B/b.png": png()}
    assert set(reasons(path)) == {"A/a.png", "A/link.png"}


@pytest.mark.parametrize("keep", [0.3, 0.5, 1023, 1024, 1500])
def test_a_tar_that_was_cut_off_is_refused(tmp_path: Path, keep: float) -> None:
    path = tarred(tmp_path / "s.tar", {f"{label}/{i}.png": png() for label in "AB" for i in range(3)})
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(InputError, match="damaged archive"), open_source(path):
        pass


def test_medmnist_arrays_become_png_with_the_digest_of_the_array(tmp_path: Path) -> None:
    images = np.stack([PIXELS, PIXELS + 1])
    path = saved(tmp_path / "pneumoniamnist_8.npz", train_images=images, train_labels=np.array([[1], [0]]))
    with open_source(path) as source:
        assert [(item.name, item.label, item.split) for item in source.items] == [
            ("train_00000", "PNEUMONIA", Split.TRAIN),
            ("train_00001", "NORMAL", Split.TRAIN),
        ]
        blob = source.read(source.items[1])
    assert (read_gray(blob.data).gray == images[1]).all()
    assert blob.sha256 == hashlib.sha256(images[1].tobytes()).hexdigest()


def test_medmnist_in_colour_16_bit_and_of_many_classes_is_read(tmp_path: Path) -> None:
    rgb = np.repeat(PIXELS[None, :, :, None], 3, axis=3)
    deep = np.full((1, 8, 8), 4095, dtype=np.uint16)
    path = saved(
        tmp_path / "any.npz", val_images=rgb, val_labels=np.array([7]), test_images=deep, test_labels=np.array([[0]])
    )
    with open_source(path) as source:
        assert [(item.label, item.split) for item in source.items] == [
            ("class_7", Split.VALIDATION),
            ("class_0", Split.TEST),
        ]
        assert (read_gray(source.read(source.items[0]).data).gray == PIXELS).all()
        assert (read_gray(source.read(source.items[1]).data).gray == 255).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "no arrays train_images"),
        ({"train_images": np.zeros((2, 8, 8), np.uint8)}, "without train_labels"),
        ({"train_images": np.zeros((2, 8, 8), np.uint8), "train_labels": np.zeros(3, int)}, "2 train_images but 3"),
        (
            {"train_images": np.zeros((2, 8, 8), np.uint8), "train_labels": np.zeros((2, 14), int)},
            "needs one class",
        ),
        ({"train_images": np.zeros((2, 8, 8), np.uint8), "train_labels": np.array([-1, 0])}, "whole numbers"),
        ({"train_images": np.zeros((2, 8, 8)), "train_labels": np.zeros(2, int)}, "float64"),
        ({"train_images": np.array([{}, {}]), "train_labels": np.zeros(2, int)}, "not a MedMNIST"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message), open_source(saved(tmp_path / "s.npz", **arrays)):
        pass


@pytest.mark.parametrize("name", ["s.npz", "s.zip", "s.tar", "s.tgz", "s.pdf", "s.csv"])
@settings(max_examples=25)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(data)
    with pytest.raises(InputError) as caught, open_source(path):
        pass
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_empty_source_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match=path.name), open_source(path):
            pass


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("train/PNEUMONIA/person1_bacteria_2.jpeg", "person1"),
        ("train/PNEUMONIA/person1_virus_11.jpeg", "person1"),
        ("person12_virus_3_4.jpeg", "person12"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0115-0001-0002.jpeg", "IM-0115"),
        ("a/NORMAL2-IM-0587-0001-0001.png", "NORMAL2-IM-0587"),
        ("IM-0115.jpeg", "IM-0115"),
        ("IM-0115a.jpeg", "IM-0115a.jpeg"),
        ("IM-01156-0001.jpeg", "IM-01156"),
        ("person1_bacteria_1 (1).jpeg", "person1"),
        ("person1_bacteria_1_copy.png", "person1"),
        ("IM-0115-0001 (1).jpeg", "IM-0115"),
        ("person1x_bacteria_1.jpeg", "person1x_bacteria_1.jpeg"),
        ("test/BACTERIA-123-0001.jpeg", "PNEUMONIA-123"),
        ("VIRUS-123-0002.jpeg", "PNEUMONIA-123"),
        ("VIRUS-1234-0001 (1).jpeg", "PNEUMONIA-1234"),
        ("NORMAL-456-0001.jpeg", "NORMAL-456"),
        ("NORMAL-456.jpeg", "NORMAL-456.jpeg"),
        ("my_person1_virus_2.jpeg", "my_person1_virus_2.jpeg"),
        ("scan7.png", "scan7.png"),
    ],
)
def test_the_patient_comes_from_kermanys_names_or_is_the_image_itself(name: str, patient: str) -> None:
    assert PatientRule().patient(Item(name, "A")) == patient


@pytest.mark.parametrize("regex", [r"^(p\d+)/", r"^(x)?(?P<patient>p\d+)/"])
def test_a_regex_takes_the_patient_from_the_path(regex: str) -> None:
    rule = PatientRule.parse(regex)
    assert rule.patient(Item("p7/scan.png", "A")) == "p7"
    assert rule.patient(Item("q7/scan.png", "A")) == "q7/scan.png"
    assert rule.patient(Item("p7/scan.png", "A", patient="stated")) == "stated"


@pytest.mark.parametrize("regex", ["(", "p", "(a)(b)"])
def test_a_regex_without_one_group_is_refused(regex: str) -> None:
    with pytest.raises(InputError, match="--patient-regex"):
        PatientRule.parse(regex)


def test_names_that_are_not_unicode_are_read(tmp_path: Path) -> None:
    put(tmp_path, "A/a.png", "B/b.png")
    try:
        os.rename(tmp_path / "A/a.png", os.fsencode(tmp_path / "A") + b"/\xff\n.png")  # noqa: PTH104
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    with open_source(tmp_path) as source:
        item = next(item for item in source.items if item.label == "A")
        assert item.name.encode().decode() == item.name
        assert isinstance(source, Source)
        assert source.read(item).data == png()
