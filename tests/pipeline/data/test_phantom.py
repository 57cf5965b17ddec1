import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pneumo.pipeline.data.phantom import Recipe, Scanner, draw_radiograph, write_phantoms
from pneumo.serving.contracts.errors import InputError

NORMAL_NAME = re.compile(r"(?:NORMAL2-)?IM-(\d{4,})-(\d{4})\.png")
PNEUMONIA_NAME = re.compile(r"person(\d+)_(?:bacteria|virus)_(\d+)\.png")
SMALL: dict[str, Any] = {"images": 12, "size": 48}


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.png"))
    }


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def sharpness(image: NDArray[np.uint8]) -> float:
    """Mean squared difference between neighbours: the energy of high frequencies."""
    return float(np.square(np.diff(image.astype(float), axis=1)).mean())


def auroc(labels: NDArray[np.int_], scores: NDArray[np.float64]) -> float:
    above = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return float((above > 0).mean() + 0.5 * (above == 0).mean())


def shot(scanner: Scanner, label: str = "PNEUMONIA", seed: int = 5) -> NDArray[np.uint8]:
    return draw_radiograph(label, np.random.default_rng(seed), size=128, scanner=scanner)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "set"
    write_phantoms(out, Recipe(images=60, seed=3, size=48))
    return out


def test_same_seed_gives_bit_identical_files(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "a", Recipe(seed=1, **SMALL))
    write_phantoms(tmp_path / "b", Recipe(seed=1, **SMALL))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_other_seed_gives_other_images(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "a", Recipe(seed=1, **SMALL))
    write_phantoms(tmp_path / "b", Recipe(seed=2, **SMALL))
    assert not set(digests(tmp_path / "a").values()) & set(digests(tmp_path / "b").values())


def test_no_two_images_are_the_same(phantoms: Path) -> None:
    assert len(set(digests(phantoms).values())) == 60


@pytest.mark.parametrize(
    ("label", "seed", "expected"),
    [
        ("NORMAL", 7, "f05da32d98d5f4b31cda135445790bea12df8b12bb536fed1205fbd5c1ec836b"),
        ("PNEUMONIA", 7, "ef2d41f8771070f46967d29a5df59c13175d8bf598e0a1618dd5e748e4d4891a"),  # bacterial
        ("PNEUMONIA", 9, "32676c34dcbc514ed0a6d8b3a55ebd77f8f5c4ddd1d3c0382880fab65a8467e5"),  # viral
    ],
)
def test_pixels_are_the_same_on_every_machine(label: str, seed: int, expected: str) -> None:
    # Holds across CPUs and NumPy builds: only operations that IEEE 754 rounds exactly. The gamma table is the one
    # exception; it is rounded to 1e-6, which leaves a risk of about 1e-9 an entry.
    scanner = Scanner(contrast=0.9, gamma=1.2, brightness=5, blur=0.8, noise=3)
    image = draw_radiograph(label, np.random.default_rng(seed), size=96, scanner=scanner)
    assert hashlib.sha256(image.tobytes()).hexdigest() == expected


@pytest.mark.parametrize("size", [32, 65, 224])
def test_draw_gives_a_gray_square_with_a_wide_range(size: int) -> None:
    image = draw_radiograph("NORMAL", np.random.default_rng(0), size=size)
    assert image.shape == (size, size)
    assert image.dtype == np.uint8
    assert image.std() > 20


def test_files_are_gray_pngs_of_the_size_asked_for(phantoms: Path) -> None:
    for path in phantoms.rglob("*.png"):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (48, 48))


def test_names_match_kermany(phantoms: Path) -> None:
    assert {path.name for path in phantoms.iterdir()} == {"train", "phantom.json"}
    assert {path.name for path in (phantoms / "train").iterdir()} == {"NORMAL", "PNEUMONIA"}
    normal = [path.name for path in (phantoms / "train" / "NORMAL").iterdir()]
    pneumonia = [path.name for path in (phantoms / "train" / "PNEUMONIA").iterdir()]
    assert all(NORMAL_NAME.fullmatch(name) for name in normal)
    assert all(PNEUMONIA_NAME.fullmatch(name) for name in pneumonia)
    assert any(name.startswith("NORMAL2-") for name in normal)
    assert any(name.startswith("IM-") for name in normal)
    assert any("_bacteria_" in name for name in pneumonia)
    assert any("_virus_" in name for name in pneumonia)


@pytest.mark.parametrize(("label", "pattern"), [("NORMAL", NORMAL_NAME), ("PNEUMONIA", PNEUMONIA_NAME)])
def test_patients_have_one_to_four_images(phantoms: Path, label: str, pattern: re.Pattern[str]) -> None:
    matches = [pattern.fullmatch(path.name) for path in (phantoms / "train" / label).iterdir()]
    counts = Counter(match[1] for match in matches if match)
    assert set(counts.values()) <= {1, 2, 3, 4}
    assert max(counts.values()) > 1
    assert len(counts) > 5


def test_summary_counts_what_was_written(tmp_path: Path) -> None:
    out = tmp_path / "set"
    seen: list[int] = []
    summary = write_phantoms(out, Recipe(seed=4, **SMALL), progress=seen.append)
    assert (summary.out, summary.images, summary.seed) == (out, 12, 4)
    assert summary.counts == {"NORMAL": 6, "PNEUMONIA": 6}
    people = {re.split(r"_|-\d{4}\.", path.name)[0] for path in out.rglob("*.png")}
    assert summary.patients == len(people)
    assert seen == list(range(1, 13))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 3), (1.0, 12)])
def test_class_mix_is_respected(tmp_path: Path, share: float, expected: int) -> None:
    summary = write_phantoms(tmp_path, Recipe(pneumonia_share=share, **SMALL))
    assert summary.counts == {"NORMAL": 12 - expected, "PNEUMONIA": expected}
    assert len(list(tmp_path.glob("train/PNEUMONIA/*.png"))) == expected


def test_a_larger_set_begins_with_the_smaller_one(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "few", Recipe(images=8, size=48))
    write_phantoms(tmp_path / "many", Recipe(images=20, size=48, pneumonia_share=0.6))
    assert digests(tmp_path / "few").items() <= digests(tmp_path / "many").items()


def test_second_write_leaves_the_files_alone(tmp_path: Path) -> None:
    first = write_phantoms(tmp_path, Recipe(**SMALL))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = write_phantoms(tmp_path, Recipe(**SMALL), progress=lambda _: pytest.fail("drew an image again"))
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_set_that_lost_a_file_is_drawn_again(tmp_path: Path) -> None:
    write_phantoms(tmp_path, Recipe(**SMALL))
    whole = digests(tmp_path)
    next(tmp_path.rglob("person*.png")).unlink()
    write_phantoms(tmp_path, Recipe(**SMALL))
    assert digests(tmp_path) == whole


def test_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="choose a new or an empty folder"):
        write_phantoms(tmp_path, Recipe(**SMALL))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("marker", ["phantom.json", "phantom.json.partial"])
def test_foreign_file_in_a_phantom_set_is_never_deleted(tmp_path: Path, marker: str) -> None:
    write_phantoms(tmp_path, Recipe(**SMALL))
    (tmp_path / "phantom.json").rename(tmp_path / marker)
    mine = tmp_path / "train" / "NORMAL" / "mine.png"
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match="not of a phantom set"):
        write_phantoms(tmp_path, Recipe(**SMALL))
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "other",
    [{"seed": 9}, {"images": 13}, {"size": 49}, {"pneumonia_share": 0.4}, {"scanner": Scanner(gamma=1.1)}],
    ids=lambda other: next(iter(other)),
)
def test_set_of_other_parameters_is_refused_by_name(tmp_path: Path, other: dict[str, Any]) -> None:
    write_phantoms(tmp_path, Recipe(**SMALL))
    before = digests(tmp_path)
    with pytest.raises(InputError, match=rf"{next(iter(other))}.*choose a new folder, or delete this one"):
        write_phantoms(tmp_path, Recipe(**{**SMALL, **other}))
    assert digests(tmp_path) == before


def interrupt(out: Path, after: int) -> None:
    def stop(done: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(out, Recipe(**SMALL), progress=stop)


@pytest.mark.parametrize("after", [1, 5, 12])
def test_interrupted_write_is_not_taken_for_complete_and_is_redone(tmp_path: Path, after: int) -> None:
    write_phantoms(tmp_path / "whole", Recipe(**SMALL))
    out = tmp_path / "cut"
    interrupt(out, after)
    assert not (out / "phantom.json").exists()
    next(out.rglob("*.png")).write_bytes(b"half a file")
    write_phantoms(out, Recipe(**SMALL))
    assert digests(out) == digests(tmp_path / "whole")
    assert not (out / "phantom.json.partial").exists()


def test_interrupted_write_can_be_redone_with_other_parameters(tmp_path: Path) -> None:
    interrupt(tmp_path, 8)
    write_phantoms(tmp_path, Recipe(images=4, size=48))
    assert len(list(tmp_path.rglob("*.png"))) == 4
    assert json.loads((tmp_path / "phantom.json").read_text())["images"] == 4


def test_marker_cut_short_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "phantom.json.partial").write_text('{"ver')
    assert write_phantoms(tmp_path, Recipe(**SMALL)).images == 12


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_phantoms(tmp_path / "out", Recipe(**SMALL))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"images": 0}, "images is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"size": 8}, "size is 8"),
        ({"pneumonia_share": 1.5}, "pneumonia_share is 1.5"),
        ({"pneumonia_share": float("nan")}, "pneumonia_share is nan"),
    ],
)
def test_nonsense_parameters_are_refused_before_anything_is_written(
    tmp_path: Path, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_phantoms(tmp_path / "out", Recipe(**parameters))
    assert not (tmp_path / "out").exists()


def test_unknown_label_is_refused() -> None:
    with pytest.raises(InputError, match="'FRACTURE'; choose NORMAL or PNEUMONIA"):
        draw_radiograph("FRACTURE", np.random.default_rng(0))


@pytest.mark.parametrize("field", ["contrast", "gamma", "brightness", "blur", "noise"])
@pytest.mark.parametrize("value", [-1000.0, 1000.0, float("nan"), float("inf")])
def test_nonsense_scanner_is_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"scanner: {field}"):
        Scanner(**{field: value})


def test_default_scanner_changes_nothing() -> None:
    assert np.array_equal(shot(Scanner()), draw_radiograph("PNEUMONIA", np.random.default_rng(5), size=128))


def test_blur_takes_high_frequencies_away() -> None:
    assert sharpness(shot(Scanner(blur=2))) < 0.5 * sharpness(shot(Scanner()))


def test_noise_adds_high_frequencies_of_the_strength_asked_for() -> None:
    clean, noisy = shot(Scanner(contrast=0.5)), shot(Scanner(contrast=0.5, noise=10))
    assert sharpness(noisy) > 2 * sharpness(clean)
    assert np.std(noisy.astype(float) - clean) == pytest.approx(10, rel=0.05)


def test_contrast_scales_the_spread() -> None:
    assert shot(Scanner(contrast=0.5)).std() == pytest.approx(0.5 * shot(Scanner()).std(), rel=0.02)


@pytest.mark.parametrize(
    ("darker", "brighter"),
    [
        (Scanner(gamma=1.5), Scanner()),
        (Scanner(), Scanner(gamma=0.7)),
        (Scanner(brightness=-20), Scanner(brightness=20)),
    ],
)
def test_gamma_and_brightness_move_the_mean(darker: Scanner, brighter: Scanner) -> None:
    assert shot(darker).mean() < shot(brighter).mean() - 8


def test_shots_of_a_patient_resemble_each_other_more_than_other_patients(tmp_path: Path) -> None:
    write_phantoms(tmp_path, Recipe(images=60, size=64, pneumonia_share=0.0))
    images: list[NDArray[np.float64]] = []
    people: list[str] = []
    for path in sorted(tmp_path.rglob("*.png")):
        image = pixels(path).astype(float)
        images.append((image - image.mean()).ravel() / image.std())
        people.append(path.name.rsplit("-", 1)[0])
    alike: Any = np.corrcoef(np.array(images))
    same = np.equal.outer(people, people) & ~np.eye(len(people), dtype=bool)
    other = ~np.equal.outer(people, people)
    assert alike[same].mean() > alike[other].mean()


def test_gray_levels_alone_do_not_tell_pneumonia() -> None:
    """A linear model over the histogram stays poor; exposure and build hide what an opacity adds to the mean."""
    labels = np.arange(400) % 2
    rows = []
    for i, label in enumerate(labels):
        rng = np.random.default_rng([99, i])
        image = draw_radiograph("PNEUMONIA" if label else "NORMAL", rng, size=48)
        rows.append([image.mean(), image.std(), *np.percentile(image, [1, 5, 10, 25, 50, 75, 90, 95, 99])])
    features = np.array(rows)
    features = np.c_[(features - features.mean(0)) / features.std(0), np.ones(len(features))]
    train = np.arange(400) < 250
    gram = features[train].T @ features[train] + np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features[train].T @ (2.0 * labels[train] - 1.0))
    assert auroc(labels[~train], features[~train] @ weights) < 0.8
    assert all(abs(auroc(labels, column) - 0.5) < 0.25 for column in features.T)
