import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.audit import AuditReport, Finding, Kind, Severity, audit
from pneumo.pipeline.data.audit.appearance import NEAR_DISTANCE, describe_appearance, perceptual_hash
from pneumo.pipeline.data.importer import ImportSettings, import_dataset
from pneumo.pipeline.data.manifest import DATASET, DIGESTS, MANIFEST, Dataset
from pneumo.pipeline.data.splits import Fractions
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.types import Fit
from tests.support.near_pairs import find_near_pairs
from tests.support.paths import ROOT

Pixels = NDArray[np.uint8]


def film(seed: int, side: int = 96) -> Pixels:
    """Smooth blobs: unlike noise, they survive what a film goes through."""
    noise = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8))
    smooth = noise.resize((side, side), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))
    return (30 + np.asarray(smooth) * 0.7).astype(np.uint8)


def save(pixels: Pixels, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """40 films of 40 patients, under train and test."""
    root = tmp_path / "raw"
    for number in range(40):
        label, kind = [("NORMAL", "IM-{:04}-1"), ("PNEUMONIA", "person{}_virus_1")][number % 2]
        save(film(number), root / ("train" if number < 28 else "test") / label / f"{kind.format(number)}.png")
    return root


@pytest.fixture
def data(source: Path, tmp_path: Path) -> Dataset:
    return import_dataset(source, tmp_path / "data", ImportSettings(size=96, fractions=Fractions(0.5, 0.25, 0.25)))


def of_kind(report: AuditReport, kind: Kind) -> Finding | None:
    return next((finding for finding in report.findings if finding.kind is kind), None)


def kinds(path: Path) -> set[Kind]:
    return {finding.kind for finding in audit(path).findings}


def members(path: Path, kind: Kind) -> list[set[str]]:
    finding = of_kind(audit(path), kind)
    return [{Path(name).stem for name in group} for group in finding.members] if finding else []


def test_a_sound_source_and_its_import_have_no_finding(source: Path, data: Dataset) -> None:
    for path in (source, data.folder, data.folder / MANIFEST):
        report = audit(path)
        assert report.findings == ()
        assert report.images == 40
        assert sum(report.patients.values()) == 40


def test_identical_images_are_reported_by_label_and_split(source: Path) -> None:
    train, test = source / "train/NORMAL", source / "test/NORMAL"
    save(film(1000), train / "a.png")
    for copy in (train / "b.png", source / "train/PNEUMONIA/c.png", test / "d.png"):
        copy.write_bytes((train / "a.png").read_bytes())
    save(film(1001), train / "e.png")
    (train / "f.png").write_bytes((train / "e.png").read_bytes())
    assert members(source, Kind.IDENTICAL_ACROSS_LABELS) == [{"a", "b", "c", "d"}]
    assert members(source, Kind.IDENTICAL_ACROSS_SPLITS) == [{"a", "b", "c", "d"}]
    assert members(source, Kind.IDENTICAL_WITHIN_SPLIT) == [{"e", "f"}]
    report = audit(source)
    assert {finding.kind for finding in report.defects} == {Kind.IDENTICAL_ACROSS_LABELS, Kind.IDENTICAL_ACROSS_SPLITS}
    within = of_kind(report, Kind.IDENTICAL_WITHIN_SPLIT)
    assert within is not None
    assert (within.severity, within.count, within.files) == (Severity.WARNING, 1, 2)


def test_a_patient_in_two_splits_is_a_defect(source: Path) -> None:
    save(film(2000), source / "test/PNEUMONIA/person1_bacteria_9.png")
    assert [finding.kind for finding in audit(source).defects] == [Kind.PATIENT_ACROSS_SPLITS]
    assert members(source, Kind.PATIENT_ACROSS_SPLITS) == [{"person1_virus_1", "person1_bacteria_9"}]


def test_near_identical_images_are_reported_by_label_split_and_patient(source: Path) -> None:
    def copy_of(number: int, name: str) -> None:
        save(film(number), source / name, **({"quality": 60} if name.endswith("jpg") else {"compress_level": 1}))

    copy_of(0, "train/NORMAL/within.jpg")
    copy_of(2, "test/NORMAL/across.jpg")
    copy_of(4, "train/PNEUMONIA/label.jpg")
    copy_of(1, "train/PNEUMONIA/person1_virus_2.jpg")
    assert members(source, Kind.NEAR_WITHIN_SPLIT) == [{"IM-0000-1", "within"}]
    assert members(source, Kind.NEAR_ACROSS_SPLITS) == [{"IM-0002-1", "across"}]
    assert members(source, Kind.NEAR_ACROSS_LABELS) == [{"IM-0004-1", "label"}]
    assert members(source, Kind.NEAR_SAME_PATIENT) == [{"person1_virus_1", "person1_virus_2"}]
    report = audit(source)
    assert not report.defects
    assert [finding.severity.value for finding in report.findings] == ["warning", "warning", "info", "info"]


def jpeg(pixels: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer))


def test_the_hash_survives_copying_and_differs_between_images() -> None:
    films = [film(seed) for seed in range(60)]
    hashes = [perceptual_hash(pixels) for pixels in films]
    assert len(find_near_pairs(hashes, 60)) == 0
    for pixels, own in zip(films, hashes, strict=True):
        brighter = np.clip(pixels * 1.1 + 10, 0, 255).astype(np.uint8)
        smaller = np.asarray(Image.fromarray(pixels).resize((64, 64)))
        for copy in (jpeg(pixels), brighter, smaller):
            assert len(find_near_pairs([own, perceptual_hash(copy)], NEAR_DISTANCE)) == 1


def test_a_look_measures_spread_black_and_white() -> None:
    pixels = np.zeros((10, 10), np.uint8)
    pixels[:3], pixels[3:5] = 255, 100
    seen = describe_appearance(pixels)
    assert seen.spread == pytest.approx(float(pixels.std()))
    assert (seen.black, seen.white) == (0.5, 0.3)


def test_unreadable_files_of_a_source_are_defects(source: Path) -> None:
    (source / "train/NORMAL/broken.png").write_bytes(b"broken")
    (source / "train/NORMAL/scan.dcm").write_bytes(b"DICM")
    (source / "train/NORMAL/gone.png").symlink_to(source / "nowhere")
    assert members(source, Kind.UNREADABLE) == [{"broken"}, {"gone"}, {"scan"}]
    assert audit(source).defects


def test_images_that_a_table_lists_but_are_missing_are_defects(source: Path) -> None:
    shutil.rmtree(source / "test")
    shutil.rmtree(source / "train/PNEUMONIA")
    (source / "list.csv").write_text("image,label\ntrain/NORMAL/IM-0000-1.png,A\ngone.png,B\n")
    assert members(source, Kind.UNREADABLE) == [{"gone"}]


def test_missing_damaged_and_changed_files_of_a_data_set_are_defects(data: Dataset) -> None:
    paths = [data.path(row) for row in data.rows]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-200])
    save(film(3, 50), paths[2])
    Image.fromarray(film(4)).convert("RGB").save(paths[3])
    flipped = bytearray(paths[4].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    paths[4].write_bytes(flipped)
    report = audit(data.folder)
    found = {finding.kind: {group[0] for group in finding.members} for finding in report.defects}
    images = [row.image for row in data.rows]
    assert found == {
        Kind.MISSING: {images[0]},
        Kind.UNREADABLE: {images[1], images[4]},
        Kind.CHANGED: {images[2], images[3]},
    }
    assert "50 x 50" in next(finding.summary for finding in report.defects if finding.kind is Kind.CHANGED)


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_prepared_image_is_always_found(
    tmp_path_factory: pytest.TempPathFactory, at: float, bit: int
) -> None:
    root = tmp_path_factory.mktemp("flip")
    for number in range(4):
        save(film(number), root / "raw" / "AB"[number % 2] / f"{number}.png")
    made = import_dataset(root / "raw", root / "data", ImportSettings(size=96))
    path = made.path(made.rows[0])
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1 << bit
    path.write_bytes(data)
    assert [finding.members for finding in audit(root / "data").defects] == [((made.rows[0].image,),)]


def test_images_that_were_exchanged_for_sound_ones_are_defects_by_name(data: Dataset) -> None:
    first, second = data.rows[:2]
    one, other = data.path(first).read_bytes(), data.path(second).read_bytes()
    data.path(first).write_bytes(other)
    data.path(second).write_bytes(one)
    assert [(finding.kind, finding.members) for finding in audit(data.folder).defects] == [
        (Kind.CHANGED, ((first.image,), (second.image,)))
    ]


def test_digests_that_were_adapted_to_a_changed_image_are_a_defect(data: Dataset) -> None:
    save(film(999), data.path(data.rows[0]))
    manifest.write_dataset(data.folder, data.rows, data.info)
    assert manifest.read_dataset(data.folder).digests != data.digests
    (finding,) = audit(data.folder).defects
    assert finding.members == ((MANIFEST,),)
    assert DIGESTS in finding.summary


def test_an_edited_manifest_is_a_defect_and_a_stray_image_a_warning(data: Dataset) -> None:
    path = data.folder / MANIFEST
    path.write_text(path.read_text().replace("NORMAL,0", "PNEUMONIA,0", 1))
    save(film(0), data.folder / "images/train/NORMAL/stray.png")
    report = audit(data.folder)
    assert [finding.members for finding in report.defects] == [((MANIFEST,),)]
    assert members(data.folder, Kind.STRAY) == [{"stray"}]


def test_what_an_import_left_out_stays_visible(source: Path, tmp_path: Path) -> None:
    (source / "train/NORMAL/broken.png").write_bytes(b"broken")
    import_dataset(source, tmp_path / "data", ImportSettings(size=96))
    finding = of_kind(audit(tmp_path / "data"), Kind.LEFT_OUT)
    assert finding is not None
    assert finding.severity is Severity.INFO
    assert finding.members == (("train/NORMAL/broken.png",),)


def test_unbalanced_classes_are_a_warning(source: Path) -> None:
    for path in sorted((source / "train/PNEUMONIA").iterdir())[1:]:
        path.unlink()
    for path in (source / "test/NORMAL").iterdir():
        path.unlink()
    finding = of_kind(audit(source), Kind.CLASS_BALANCE)
    assert finding is not None
    assert finding.severity is Severity.WARNING
    assert "test has no NORMAL" in finding.summary
    assert "NORMAL is 0% of one split and 93% of another" in finding.summary


def test_odd_sizes_and_aspects_are_warnings(source: Path) -> None:
    save(film(500, 40), source / "train/NORMAL/tiny.png")
    save(film(501, 900), source / "train/NORMAL/huge.png")
    save(np.tile(film(502, 70), (1, 3)), source / "train/NORMAL/wide.png")
    assert members(source, Kind.ODD_SIZE) == [{"huge"}, {"tiny"}]
    assert members(source, Kind.ODD_ASPECT) == [{"wide"}]
    assert not audit(source).defects


def test_blank_and_clipped_images_are_warnings_and_blank_ones_no_copies(source: Path) -> None:
    for name, level in (("blank1", 0), ("blank2", 90), ("blank3", 255)):
        save(np.full((96, 96), level, np.uint8), source / f"train/NORMAL/{name}.png")
    over = film(600)
    over[:20] = 255
    save(over, source / "train/NORMAL/over.png")
    assert members(source, Kind.BLANK) == [{"blank1"}, {"blank2"}, {"blank3"}]
    assert members(source, Kind.CLIPPED) == [{"over"}]
    assert kinds(source) == {Kind.BLANK, Kind.CLIPPED}


def test_black_from_padding_is_not_clipping(source: Path, tmp_path: Path) -> None:
    save(np.tile(film(700, 64), (1, 3)), source / "train/NORMAL/wide.png")
    import_dataset(source, tmp_path / "data", ImportSettings(size=96, fit=Fit.PAD))
    assert Kind.CLIPPED not in kinds(tmp_path / "data")


def test_a_report_becomes_json(source: Path) -> None:
    (source / "train/NORMAL/broken.png").write_bytes(b"broken")
    document: Any = audit(source).to_dict()
    assert document["passed"] is False
    assert document["counts"]["train"] == {"NORMAL": 15, "PNEUMONIA": 14}
    assert document["findings"][0]["kind"] == "unreadable"
    assert document["findings"][0]["members"] == [["train/NORMAL/broken.png"]]


def test_processes_find_the_same(source: Path, data: Dataset) -> None:
    (source / "train/NORMAL/broken.png").write_bytes(b"broken")
    for path in (source, data.folder):
        assert audit(path, workers=2) == audit(path, workers=1)


def test_a_lost_description_is_refused(data: Dataset) -> None:
    (data.folder / DATASET).unlink()
    with pytest.raises(InputError, match=DATASET):
        audit(data.folder)


@pytest.fixture(scope="module")
def real_tar() -> Path:
    root = Path(os.environ.get("PNEUMO_REAL_DATA", ROOT.parent / "shared" / "data"))
    path = root / "chest_xray_224_train.tar"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {root}; set PNEUMO_REAL_DATA")
    return path


@pytest.mark.lengthy
@pytest.mark.real
def test_the_real_images_hold_24_groups_of_identical_files_and_nothing_worse(real_tar: Path) -> None:
    report = audit(real_tar)
    assert {finding.kind for finding in report.findings} == {
        Kind.IDENTICAL_WITHIN_SPLIT,
        Kind.LEFT_OUT,
        Kind.SHORTCUT_DESCRIPTORS,
        Kind.SHORTCUT_FILE,
        Kind.SHORTCUT_BORDER,
        Kind.SHORTCUT_MARK,
    }
    finding = of_kind(report, Kind.IDENTICAL_WITHIN_SPLIT)
    assert finding is not None
    assert (finding.count, finding.files) == (24, 50)


@pytest.mark.lengthy
@pytest.mark.real
def test_the_imported_real_images_pass_the_audit(real_tar: Path, tmp_path: Path) -> None:
    import_dataset(real_tar, tmp_path / "data")
    report = audit(tmp_path / "data")
    assert not report.defects
    assert of_kind(report, Kind.PATIENT_ACROSS_SPLITS) is None
    assert of_kind(report, Kind.IDENTICAL_ACROSS_SPLITS) is None
    assert report.images == 5216
