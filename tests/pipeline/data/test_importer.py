import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.importer import ImportSettings, SplitMethod, import_dataset
from pneumo.pipeline.data.manifest import DATASET, DIGESTS, MANIFEST, Dataset, Split
from pneumo.pipeline.data.public_sets import SETS
from pneumo.pipeline.data.sources import SourceOptions
from pneumo.pipeline.data.splits import Fractions
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.population import PHANTOMS, Population
from pneumo.serving.images.decode import prepare, read_gray
from pneumo.serving.images.preparation import Preparation, Storage, to_input
from pneumo.serving.images.types import DECODING_RULES, Decode, Fit
from tests.support.dicoms import make_dicom
from tests.support.paths import ROOT
from tests.support.waiting import until

MakeSource = Callable[..., Path]


def picture(seed: int, width: int = 12, height: int = 10) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8))


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """24 images of 12 patients in Kermany's layout, all under train."""
    root = tmp_path / "raw"
    for patient in range(6):
        for shot in range(2):
            save(picture(patient * 2 + shot), root / f"train/PNEUMONIA/person{patient}_virus_{patient * 2 + shot}.png")
            save(picture(100 + patient * 2 + shot), root / f"train/NORMAL/IM-{patient:04}-{shot:04}.png")
    return root


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_population_is_kept_and_can_be_added_to_an_imported_data_set(source: Path, tmp_path: Path) -> None:
    settings = ImportSettings(size=16)
    plain = import_dataset(source, tmp_path / "data", settings)
    assert plain.info.population is None
    stated = replace(settings, population=Population(ages=(1, 5), views=["AP"]))
    again = import_dataset(source, tmp_path / "data", stated)
    assert again.info.population == stated.population
    assert again.info.fingerprint == plain.info.fingerprint
    path = tmp_path / "data" / DATASET
    path.write_text(path.read_text().replace('"ages": [\n      1.0,', '"ages": [\n      9.0,'))
    with pytest.raises(InputError, match=r"dataset.json: population.ages: .*the lowest and the highest age in years"):
        manifest.read_dataset(tmp_path / "data")


def test_a_public_set_brings_its_population(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "raw.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(source, "raw")
    known = replace(SETS["kermany"], algorithm="sha256", digest=sha256(archive), file=archive.name)
    settings = ImportSettings(size=16)
    monkeypatch.setitem(SETS, "kermany", replace(known, digest="0" * 64))
    assert import_dataset(archive, tmp_path / "other", settings).info.population is None
    monkeypatch.setitem(SETS, "kermany", known)
    assert import_dataset(archive, tmp_path / "data", settings).info.population == known.population
    own = replace(settings, population=Population(ages=(2, 3)))
    assert import_dataset(archive, tmp_path / "data", own, force=True).info.population == own.population


def test_phantoms_bring_their_population(dataset: Dataset) -> None:
    assert dataset.info.population == PHANTOMS


def test_what_was_imported_is_read_back(source: Path, tmp_path: Path) -> None:
    data = import_dataset(source, tmp_path / "data", ImportSettings(size=16))
    assert data == manifest.read_dataset(tmp_path / "data")
    assert len(data.rows) == 24
    assert data.info.classes == ["NORMAL", "PNEUMONIA"]
    assert sum(data.info.patients.values()) == 12
    assert data.info.fingerprint == manifest.compute_fingerprint(
        data.rows,
        Storage(size=16, decode=Decode.SCALED, rules=DECODING_RULES),
        {row.image: sha256(data.path(row)) for row in data.rows},
    )
    for row in data.rows:
        with Image.open(data.path(row)) as image:
            assert (image.size, image.mode, image.format) == ((16, 16), "L", "PNG")
        assert (row.width, row.height) == (12, 10)
    row = data.rows[0]
    assert row.image == f"images/train/{row.label}/{Path(row.source).stem}.png"


def test_no_patient_and_no_identical_bytes_cross_a_split(source: Path, tmp_path: Path) -> None:
    names = sorted((source / "train/PNEUMONIA").glob("*.png"))
    for one, other in pairwise(names[::4]):
        other.write_bytes(one.read_bytes())
    data = import_dataset(source, tmp_path / "data", ImportSettings(size=16, fractions=Fractions(0.4, 0.3, 0.3)))
    for key in ("patient", "sha256"):
        assert len({(getattr(row, key), row.split) for row in data.rows}) == len(
            {getattr(row, key) for row in data.rows}
        )
    assert {row.split for row in data.rows} == set(Split)


@pytest.mark.parametrize("kind", ["16-bit", "rgb", "palette", "cmyk", "1-bit", "jpeg"])
def test_every_kind_of_pixel_becomes_gray(source: Path, tmp_path: Path, kind: str) -> None:
    gray = Image.fromarray(np.tile(np.array([0, 255], np.uint8).repeat(8), (16, 1)))
    odd = source / f"train/NORMAL/odd.{'jpg' if kind in ('jpeg', 'cmyk') else 'png'}"
    if kind == "16-bit":
        save(Image.fromarray(np.asarray(gray).astype(np.uint16) * 257), odd)
    else:
        save(gray.convert({"rgb": "RGB", "palette": "P", "cmyk": "CMYK", "1-bit": "1", "jpeg": "L"}[kind]), odd)
    data = import_dataset(source, tmp_path / "data", ImportSettings(size=16))
    row = next(row for row in data.rows if "odd" in row.source)
    with Image.open(data.path(row)) as image:
        assert np.abs(np.asarray(image).astype(int) - np.asarray(gray)).max() < 12


def test_importing_again_leaves_the_same_files_untouched(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    import_dataset(source, out, ImportSettings(size=16))
    before, when = content(out), (out / MANIFEST).stat().st_mtime_ns
    import_dataset(source, out, ImportSettings(size=16))
    assert content(out) == before
    assert (out / MANIFEST).stat().st_mtime_ns == when
    import_dataset(source, tmp_path / "other", ImportSettings(size=16), force=True, workers=2)
    assert content(tmp_path / "other") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "other", "raw"]


def test_the_order_in_an_archive_does_not_matter(source: Path, tmp_path: Path) -> None:
    made = []
    files = sorted(path for path in source.rglob("*") if path.is_file())
    for number, some in enumerate((files, files[::-1])):
        (tmp_path / str(number)).mkdir()
        with tarfile.open(tmp_path / str(number) / "x.tar", "w") as archive:
            for path in some:
                archive.add(path, path.relative_to(source))
        import_dataset(tmp_path / str(number) / "x.tar", tmp_path / f"data{number}", ImportSettings(size=16))
        made.append(content(tmp_path / f"data{number}"))
    assert made[0] == made[1]


def test_a_damaged_data_set_is_fixed_by_importing_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    data = import_dataset(source, out, ImportSettings(size=16))
    before = content(out)
    data.path(data.rows[0]).write_bytes(b"broken")
    data.path(data.rows[1]).unlink()
    digests = (out / DIGESTS).read_text()
    (out / DIGESTS).write_text(digests.replace(digests[:4], "beef"))
    import_dataset(source, out, ImportSettings(size=16))
    assert content(out) == before


@pytest.mark.parametrize("change", ["size", "seed", "image"])
def test_a_different_data_set_is_replaced_only_by_force(source: Path, tmp_path: Path, change: str) -> None:
    out = tmp_path / "data"
    import_dataset(source, out, ImportSettings(size=16))
    before = content(out)
    if change == "image":
        save(picture(999), source / "train/NORMAL/IM-0001-0000.png")
    arguments = {"size": 20 if change == "size" else 16, "seed": 1 if change == "seed" else 0}
    with pytest.raises(InputError, match="--force"):
        import_dataset(source, out, ImportSettings(**arguments))  # type: ignore[arg-type]
    assert content(out) == before
    import_dataset(source, out, ImportSettings(**arguments), force=True)  # type: ignore[arg-type]
    assert content(out) != before


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_no_data_set_is_never_touched(source: Path, tmp_path: Path, force: bool) -> None:
    for name in ("only/thesis.tex", "also/thesis.tex", f"half/{MANIFEST}"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("years of work")
    import_dataset(source, tmp_path / "data", ImportSettings(size=16))
    (tmp_path / "data/thesis.tex").write_text("years of work")
    for name in ("only", "half", "data"):
        before = content(tmp_path / name)
        with pytest.raises(InputError, match="no part of a pneumo data set"):
            import_dataset(source, tmp_path / name, ImportSettings(size=20), force=force)
        assert content(tmp_path / name) == before


def test_source_and_data_set_must_not_lie_inside_one_another(source: Path, tmp_path: Path) -> None:
    for out in (source, source / "data", tmp_path):
        with pytest.raises(InputError, match="lie inside one another"):
            import_dataset(source, out, force=True)


def test_each_image_left_out_is_listed_with_its_reason(source: Path, tmp_path: Path) -> None:
    (source / "train/NORMAL/broken.png").write_bytes(b"not an image")
    (source / "train/NORMAL/empty.png").write_bytes(b"")
    (source / "train/.DS_Store").write_bytes(b"x")
    data = import_dataset(source, tmp_path / "data", ImportSettings(size=16))
    told = {entry["source"]: entry["reason"] for entry in data.info.skipped}
    assert set(told) == {"train/.DS_Store", "train/NORMAL/broken.png", "train/NORMAL/empty.png"}
    assert "not an image" in told["train/NORMAL/broken.png"]
    assert "empty" in told["train/NORMAL/empty.png"]


def test_images_of_one_stem_get_paths_of_their_own(tmp_path: Path) -> None:
    for label in ("A", "B"):
        for number, name in enumerate(["x/scan.png", "y/scan.png", "y/scan.bmp", "z/SCAN.png", "z/odd: näme?.png"]):
            save(picture(number + 10 * (label == "B")), tmp_path / "raw" / label / name)
    chosen = ImportSettings(size=16, fractions=Fractions(1, 0, 0), source=SourceOptions(layout="class"))
    data = import_dataset(tmp_path / "raw", tmp_path / "data", chosen)
    assert len({row.image.casefold() for row in data.rows}) == 10
    assert all(data.path(row).is_file() for row in data.rows)


def test_labels_from_a_table_cannot_lead_out_of_the_data_set(tmp_path: Path) -> None:
    rows = ["image,label"]
    for number in range(6):
        save(picture(number), tmp_path / f"raw/{number}.png")
        rows.append(f"{number}.png,{['../../evil', '/etc'][number % 2]}")
    (tmp_path / "raw/list.csv").write_text("\n".join(rows))
    data = import_dataset(tmp_path / "raw/list.csv", tmp_path / "data", ImportSettings(size=16))
    assert data.info.classes == ["../../evil", "/etc"]
    assert all(data.path(row).resolve().is_relative_to(tmp_path / "data/images") for row in data.rows)


def test_given_splits_are_kept(source: Path, tmp_path: Path) -> None:
    (source / "val").mkdir()
    for label in ("NORMAL", "PNEUMONIA"):
        (source / "val" / label).mkdir()
        moved = next(iter(sorted((source / "train" / label).iterdir())))
        moved.rename(source / "val" / label / moved.name)
    data = import_dataset(source, tmp_path / "data", ImportSettings(size=16, split=SplitMethod.GIVEN))
    assert all(row.split.name.lower().startswith(row.source.split("/")[0]) for row in data.rows)
    assert data.info.split["notes"] == ["the test split is empty"]


def test_a_missing_validation_split_is_carved_out_of_train_by_patient(source: Path, tmp_path: Path) -> None:
    data = import_dataset(
        source, tmp_path / "data", ImportSettings(size=16, split=SplitMethod.GIVEN, fractions=Fractions(0.5, 0.5, 0))
    )
    held = data.select(Split.VALIDATION)
    assert {row.label for row in held} == {"NORMAL", "PNEUMONIA"}
    assert {row.patient for row in held}.isdisjoint(row.patient for row in data.select(Split.TRAIN))
    assert f"{len(held)} of 24 training images" in data.info.split["notes"][0]


def test_given_splits_must_be_given(tmp_path: Path) -> None:
    for number, label in enumerate("AB"):
        save(picture(number), tmp_path / "raw" / label / "a.png")
    with pytest.raises(InputError, match="without a split"):
        import_dataset(tmp_path / "raw", tmp_path / "data", ImportSettings(split=SplitMethod.GIVEN))


def test_a_class_that_train_lacks_is_refused_and_one_that_another_split_lacks_is_noted(
    source: Path, tmp_path: Path
) -> None:
    (source / "train/NORMAL").rename(tmp_path / "normal")
    (source / "val").mkdir()
    (tmp_path / "normal").rename(source / "val/NORMAL")
    kept = ImportSettings(split=SplitMethod.GIVEN, source=SourceOptions(layout="split/class"))
    with pytest.raises(InputError, match="no training image of class 'NORMAL'"):
        import_dataset(source, tmp_path / "data", kept)
    save(picture(7), source / "train/NORMAL/a.png")
    notes = import_dataset(source, tmp_path / "data", kept).info.split["notes"]
    assert notes[:2] == ["the validation split has no image of class 'PNEUMONIA'", "the test split is empty"]


def test_one_class_and_nothing_readable_are_refused(source: Path, tmp_path: Path) -> None:
    for path in source.rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match="no image of 24 can be read"):
        import_dataset(source, tmp_path / "data")
    save(picture(0), source / "train/NORMAL/ok.png")
    with pytest.raises(InputError, match="only images of 'NORMAL' can be read"):
        import_dataset(source, tmp_path / "data")
    for path in (source / "train/PNEUMONIA").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="'train/PNEUMONIA' is empty"):
        import_dataset(source, tmp_path / "data")
    (source / "train/PNEUMONIA").rmdir()
    with pytest.raises(InputError, match="one class only"):
        import_dataset(source, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_regex_groups_and_one_that_matches_nothing_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="matches no name"):
        import_dataset(source, tmp_path / "data", ImportSettings(size=16, patient_regex=r"case(\d+)"))
    data = import_dataset(source, tmp_path / "data", ImportSettings(size=16, patient_regex=r"train/(NORMAL)"))
    assert {row.patient for row in data.rows if row.label == "NORMAL"} == {"NORMAL"}
    told = data.info.split["patients_from"]
    assert told == "names matching train/(NORMAL): 12 images; nothing, each image its own: 12 images"
    assert "12 of 24 images, such as 'train/PNEUMONIA/person0_virus_0.png', count" in data.info.split["notes"][-1]
    assert len({row.split for row in data.rows if row.label == "NORMAL"}) == 1


def test_images_without_a_patient_and_the_origin_of_patients_are_noted(source: Path, tmp_path: Path) -> None:
    info = import_dataset(source, tmp_path / "all", ImportSettings(size=16)).info
    assert info.split["notes"] == []
    assert info.split["patients_from"] == "names (Kermany's patterns): 24 images"
    save(picture(50), source / "train/NORMAL/scan7.png")
    save(picture(51), source / "train/PNEUMONIA/scan8.png")
    (note,) = import_dataset(source, tmp_path / "two", ImportSettings(size=16)).info.split["notes"]
    assert note.startswith("2 of 26 images, such as 'train/NORMAL/scan7.png', count as a patient of their own")
    assert "--patient-regex" in note
    stated = "\n".join(f"{path.relative_to(source)},{path.parent.name},kid" for path in source.glob("train/*/scan*"))
    (source / "list.csv").write_text(f"image,label,patient\n{stated}\ntrain/NORMAL/IM-0001-0001.png,NORMAL,\n")
    chosen = ImportSettings(size=16, fractions=Fractions(1, 0, 0), source=SourceOptions(table="list.csv"))
    split = import_dataset(source, tmp_path / "table", chosen).info.split
    assert split["patients_from"] == "a patient column or folder: 2 images; names (Kermany's patterns): 1 images"
    assert not any("of their own" in note for note in split["notes"])


def test_an_imported_data_set_can_be_imported_again_at_another_size(source: Path, tmp_path: Path) -> None:
    first = import_dataset(source, tmp_path / "data", ImportSettings(size=32))
    second = import_dataset(tmp_path / "data", tmp_path / "small", ImportSettings(size=16, split=SplitMethod.GIVEN))
    assert [(row.label, row.split, row.patient) for row in second.rows] == [
        (row.label, row.split, row.patient) for row in first.rows
    ]


def test_progress_counts_every_image(source: Path, tmp_path: Path) -> None:
    told: list[int] = []
    import_dataset(source, tmp_path / "data", ImportSettings(size=16), progress=told.append)
    assert told == list(range(1, 25))


def test_an_interrupted_import_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            import_dataset(source, tmp_path / "data", ImportSettings(size=16), progress=interrupt, workers=workers)
        assert [path.name for path in tmp_path.iterdir()] == ["raw"]


SCRIPT = """
import signal, sys, time
from pathlib import Path
from pneumo.pipeline.data.importer import ImportSettings, SplitMethod, import_dataset

def wait(done):
    print(done, flush=True)
    time.sleep(60)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell started in the background
    import_dataset(Path(sys.argv[1]), Path(sys.argv[2]), ImportSettings(size=16), workers=2, progress=wait)
"""


def alive_in_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("stop", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_killed_import_never_looks_complete_and_leaves_no_process(source: Path, tmp_path: Path, stop: int) -> None:
    out = tmp_path / "data"
    (tmp_path / "run.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", source, out],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process, contextlib.ExitStack() as stack:

        @stack.callback
        def end() -> None:
            if alive_in_group(process.pid):
                os.killpg(process.pid, signal.SIGKILL)

        assert process.stdout.readline()
        with pytest.raises(MachineError, match="another process is writing it"):
            import_dataset(source, out, ImportSettings(size=16))
        os.kill(process.pid, stop)
        process.wait(300)
        until(lambda: not alive_in_group(process.pid))
    assert not out.exists()
    assert len(import_dataset(source, out, ImportSettings(size=16)).rows) == 24
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "raw", "run.py"]


def test_a_data_set_that_was_moved_aside_by_a_killed_import_comes_back(source: Path, tmp_path: Path) -> None:
    import_dataset(source, tmp_path / "data", ImportSettings(size=16))
    before = content(tmp_path / "data")
    (tmp_path / ".data.writing").mkdir()
    (tmp_path / "data").rename(tmp_path / ".data.writing/old")
    with pytest.raises(KeyboardInterrupt):
        import_dataset(source, tmp_path / "data", ImportSettings(size=16), progress=_interrupt)
    assert content(tmp_path / "data") == before


def _interrupt(done: int) -> None:
    raise KeyboardInterrupt


def test_a_place_that_cannot_be_written_is_the_machines_fault(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written"):
        import_dataset(source, tmp_path / "file/data", ImportSettings(size=16))
    with pytest.raises(InputError, match="is a file, not a folder"):
        import_dataset(source, tmp_path / "file", ImportSettings(size=16))


def test_16_bit_medmnist_is_imported(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    images = np.random.default_rng(0).integers(0, 4096, (20, 8, 8), dtype=np.uint16)
    np.savez(buffer, train_images=images, train_labels=np.arange(20) % 2)
    (tmp_path / "pneumoniamnist.npz").write_bytes(buffer.getvalue())
    data = import_dataset(tmp_path / "pneumoniamnist.npz", tmp_path / "data", ImportSettings(size=8))
    row = next(row for row in data.rows if row.source == "train_00003")
    with Image.open(data.path(row)) as image:
        assert (np.abs(np.asarray(image) - images[3] / 4095 * 255) <= 0.5).all()
    assert row.label == "PNEUMONIA"


@pytest.fixture(scope="module")
def real_tar() -> Path:
    root = Path(os.environ.get("PNEUMO_REAL_DATA", ROOT.parent / "shared" / "data"))
    path = root / "chest_xray_224_train.tar"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {root}; set PNEUMO_REAL_DATA")
    return path


@pytest.mark.lengthy
@pytest.mark.real
def test_the_real_images_are_imported_whole_and_without_leaks(real_tar: Path, tmp_path: Path) -> None:
    data = import_dataset(real_tar, tmp_path / "data")
    assert len(data.rows) == 5216
    assert data.info.skipped == [{"source": "train/.DS_Store", "reason": "a hidden file"}]
    for key in ("patient", "sha256"):
        assert len({(getattr(row, key), row.split) for row in data.rows}) == len(
            {getattr(row, key) for row in data.rows}
        )
    for counts in data.info.counts.values():
        assert counts["PNEUMONIA"] / sum(counts.values()) == pytest.approx(3875 / 5216, abs=0.005)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large JPEGs in two classes: gray, colour, turned by EXIF, CMYK, progressive, of odd sides."""
    root = tmp_path_factory.mktemp("films")
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("L", {}),
        ("RGB", {}),
        ("L", {"exif": turned}),
        ("RGB", {"exif": turned}),
        ("CMYK", {}),
        ("L", {"progressive": True}),
    ]
    for number, (mode, options) in enumerate(kinds * 2):
        path = root / "AB"[number % 2] / f"{number}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number, 601 + 13 * number, 407 + 31 * number).convert(mode).save(path, quality=85, **options)
    return root


@pytest.mark.parametrize("decode", Decode)
@pytest.mark.parametrize("fit", Fit)
def test_a_request_sees_the_pixels_that_were_imported(films: Path, tmp_path: Path, fit: Fit, decode: Decode) -> None:
    data = import_dataset(films, tmp_path / "data", ImportSettings(size=64, fit=fit, decode=decode), workers=1)
    assert data.info.decode is decode
    preparation = Preparation(size=64, fit=fit, decode=decode, height=48, width=40, channels=3)
    for row in data.rows:
        stored = read_gray(data.path(row).read_bytes()).gray
        original = (films / row.source).read_bytes()
        np.testing.assert_array_equal(prepare(original, preparation), to_input(stored, preparation))
        whole = read_gray(original)
        assert (row.width, row.height) == (whole.width, whole.height)


def test_a_data_set_that_decodes_otherwise_is_another(films: Path, tmp_path: Path) -> None:
    scaled = import_dataset(films, tmp_path / "data", ImportSettings(size=64))
    with pytest.raises(InputError, match="holds a different data set"):
        import_dataset(films, tmp_path / "data", ImportSettings(size=64, decode=Decode.FULL))
    full = import_dataset(films, tmp_path / "full", ImportSettings(size=64, decode=Decode.FULL))
    assert full.info.fingerprint != scaled.info.fingerprint


def test_a_data_set_without_the_decode_key_is_read_as_decoded_in_full(films: Path, tmp_path: Path) -> None:
    data = import_dataset(films, tmp_path / "data", ImportSettings(size=64, decode=Decode.FULL))
    file = data.folder / DATASET
    file.write_text("".join(line for line in file.read_text().splitlines(True) if '"decode"' not in line))
    again = manifest.read_dataset(data.folder)
    assert again.info.decode is Decode.FULL
    expected = manifest.compute_fingerprint(again.rows, Storage(size=64, rules=DECODING_RULES), again.digests)
    assert again.info.fingerprint == expected


@pytest.fixture
def radiographs(tmp_path: Path) -> Path:
    """DICOM films in two classes, named with and without a suffix, of 12 bits, some inverted, some compressed."""
    root = tmp_path / "dicom"
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 4096, (50 + number, 60)).astype(np.uint16)
        inverted: dict[str, Any] = {"PhotometricInterpretation": "MONOCHROME1"} if number % 3 == 0 else {}
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG2000", no_jp2=True)
        packed: dict[str, Any] = {"frame": buffer.getvalue(), "syntax": JPEG2000Lossless} if number % 4 == 0 else {}
        content = make_dicom(pixels, BitsStored=12, PatientName="Doe^Jane", PatientID="4711", **inverted, **packed)
        path = root / "AB"[number % 2] / (f"film{number}.dcm", f"1.2.840.{number}", f"IM{number}")[number % 3]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    return root


def test_a_folder_of_dicom_files_is_imported_as_a_request_sees_them(radiographs: Path, tmp_path: Path) -> None:
    data = import_dataset(radiographs, tmp_path / "data", ImportSettings(size=32), workers=1)
    assert len(data.rows) == 12
    assert data.info.skipped == [{"source": "DICOMDIR", "reason": "a DICOM directory"}]
    preparation = Preparation(size=32, decode=Decode.SCALED, height=32, width=32)
    for row in data.rows:
        stored = read_gray(data.path(row).read_bytes()).gray
        original = (radiographs / row.source).read_bytes()
        np.testing.assert_array_equal(prepare(original, preparation), to_input(stored, preparation))
        assert row.width == 60


def test_no_attribute_of_a_patient_reaches_a_data_set(radiographs: Path, tmp_path: Path) -> None:
    (radiographs / "A/damaged.dcm").write_bytes((radiographs / "A/film0.dcm").read_bytes()[:-50])
    import_dataset(radiographs, tmp_path / "data", ImportSettings(size=32), workers=1)
    for content in content_of(tmp_path / "data"):
        assert b"Doe" not in content
        assert b"4711" not in content


def content_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.suffix in (".csv", ".json", ".sha256")]
