import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pneumo.pipeline.data.audit import Kind, Severity, audit
from pneumo.pipeline.data.importer import ImportSettings, import_dataset
from pneumo.pipeline.data.manifest import DATASET, Dataset, read_dataset
from pneumo.pipeline.data.patients import PatientRule
from pneumo.pipeline.data.phantom import Recipe, write_phantoms
from pneumo.pipeline.data.shortcuts import (
    LabelledTraits,
    Shortcut,
    ShortcutReport,
    Traits,
    describe_shortcuts,
    describe_traits,
    is_sampled,
    measure_shortcuts,
)
from pneumo.pipeline.data.shortcuts.measurement import Task, estimate_auroc, fit_logistic
from pneumo.pipeline.data.sources import open_source
from pneumo.pipeline.evaluation.classification_metrics import rank_scores
from pneumo.serving.drift.performance import estimate_auroc as estimate_by_delong
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.types import Picture

if TYPE_CHECKING:
    from tests.conftest import Outcome

Pixels = NDArray[np.uint8]
Paint = Callable[[Image.Image, np.random.Generator], None]


class Raster:
    """Pixels and, once they are asked for, their traits."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels

    @cached_property
    def traits(self) -> Traits:
        picture = Picture(self.pixels, "PNG", "L", 64, 64)
        return describe_traits(picture, self.pixels, size=None, file_format="PNG")


@dataclass(frozen=True)
class Film:
    label: str
    patient: str
    raster: Raster


@pytest.fixture(scope="module")
def films(phantoms: Path) -> list[Film]:
    rule = PatientRule()
    with open_source(phantoms) as source:
        return [Film(i.label, rule.patient(i), Raster(read_gray(source.read(i).data).gray)) for i in source.items]


def measure(films: list[Film]) -> ShortcutReport:
    return measure_shortcuts([LabelledTraits(film.label, film.patient, film.raster.traits) for film in films])


def paint(films: list[Film], label: str, how: Paint) -> Iterator[Film]:
    for number, film in enumerate(films):
        if film.label == label:
            image = Image.fromarray(film.raster.pixels)
            how(image, np.random.default_rng(number))
            film = replace(film, raster=Raster(np.asarray(image)))
        yield film


def find(report: ShortcutReport, name: str) -> Shortcut:
    return next(shortcut for shortcut in report.shortcuts if shortcut.name == name)


def box(left: int, top: int, side: int, level: int) -> Paint:
    return lambda image, _: image.paste(level, (left, top, left + side, top + side))


def letter(left: int, top: int, level: int) -> Paint:
    return lambda image, _: ImageDraw.Draw(image).text((left, top), "L", fill=level, font=ImageFont.load_default(12))


def frame(level: int) -> Paint:
    return lambda image, _: ImageDraw.Draw(image).rectangle((0, 0, 63, 63), outline=level)


def scatter(image: Image.Image, random: np.random.Generator) -> None:
    left, top = random.integers(0, 56, 2).tolist()
    image.paste(255, (left, top, left + 8, top + 8))


@pytest.mark.parametrize(
    ("how", "label"),
    [
        (box(0, 0, 6, 255), "NORMAL"),
        (box(58, 0, 6, 255), "PNEUMONIA"),
        (box(57, 57, 6, 255), "NORMAL"),
        (box(1, 35, 6, 255), "PNEUMONIA"),
        (box(29, 29, 6, 255), "NORMAL"),
        (box(2, 2, 6, 0), "PNEUMONIA"),
        (box(28, 57, 6, 0), "NORMAL"),
        (box(28, 2, 6, 128), "PNEUMONIA"),
        (letter(2, 2, 255), "NORMAL"),
        (letter(50, 48, 255), "PNEUMONIA"),
        (frame(255), "NORMAL"),
        (frame(255), "PNEUMONIA"),
        (frame(0), "PNEUMONIA"),
        (scatter, "NORMAL"),
        (scatter, "PNEUMONIA"),
    ],
)
def test_a_mark_on_every_image_of_a_class_is_found_wherever_it_is(films: list[Film], how: Paint, label: str) -> None:
    mark = find(measure(list(paint(films, label, how))), "mark")
    assert mark.is_written
    assert mark.describe().endswith("the class is written on the image")


def test_a_mark_is_named_with_its_class_and_place(films: list[Film]) -> None:
    for label in ("NORMAL", "PNEUMONIA"):
        mark = find(measure(list(paint(films, label, box(58, 0, 6, 255)))), "mark")
        assert mark.classes[0] == label
        assert mark.place is not None
        assert mark.place.startswith(f"on {label}, ")
        assert "from the left" in mark.place or "wherever it lies" in mark.place


@pytest.mark.parametrize(("images", "seed"), [(120, 0), (120, 1), (400, 2)])
def test_phantoms_have_no_shortcut(tmp_path: Path, seed: int, images: int) -> None:
    write_phantoms(tmp_path / "raw", Recipe(images=images, seed=seed, size=64))
    report = audit(tmp_path / "raw", workers=1)
    assert report.shortcuts.shortcuts
    assert not [finding for finding in report.findings if finding.kind.value.startswith("shortcut")]


@pytest.mark.parametrize("patients", [44, 150])
@pytest.mark.parametrize("seed", range(4))
def test_labels_that_mean_nothing_are_not_told(films: list[Film], seed: int, patients: int) -> None:
    random = np.random.default_rng(seed)
    some = random.permutation(sorted({film.patient for film in films}))[:patients].tolist()
    labels = {patient: "AB"[number % 2] for number, patient in enumerate(some)}
    report = measure([replace(f, label=labels[f.patient]) for f in films if f.patient in labels])
    assert report.shortcuts or report.reason
    assert not [shortcut.describe() for shortcut in report.shortcuts if shortcut.is_notable]


def test_one_marked_class_of_three_is_found(films: list[Film]) -> None:
    classes = {p: "ABC"[n % 3] for n, p in enumerate(sorted({film.patient for film in films}))}
    three = [replace(film, label=classes[film.patient]) for film in films]
    assert not find(measure(three), "mark").is_written
    mark = find(measure(list(paint(three, "B", box(3, 3, 6, 255)))), "mark")
    assert mark.is_written
    assert mark.classes == ["B", "the rest"]
    assert find(measure(three), "descriptors").classes == ["A", "B", "C"]


def test_too_few_patients_are_said_to_be(films: list[Film]) -> None:
    few = [film for film in films if film.label == "NORMAL"] + [film for film in films if film.label != "NORMAL"][:15]
    report = measure(few)
    patients = len({film.patient for film in few if film.label == "PNEUMONIA"})
    assert report.shortcuts == []
    assert describe_shortcuts(report) == [
        f"Too few patients to tell shortcuts: PNEUMONIA has {patients}, and 20 in each of two classes are needed."
    ]
    assert measure_shortcuts([]).reason is not None


def test_the_regression_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    inputs = np.column_stack([np.ones(300), random.normal(size=(300, 5))])
    truth = random.random(300) < 1 / (1 + np.exp(-inputs @ np.array([0.5, 1, -2, 0, 0.3, 3])))
    theirs = LogisticRegression(tol=1e-8, max_iter=1000).fit(inputs[:, 1:], truth)
    np.testing.assert_allclose(fit_logistic(inputs, truth)[1:], theirs.coef_[0], atol=1e-4)
    perfect = fit_logistic(inputs, inputs[:, 1] > 0)  # separable: the ridge keeps the weights finite
    assert np.isfinite(perfect).all()


def make_task(labels: list[str], patients: list[str]) -> Task:
    task = Task.make(labels, patients)
    assert task.told
    return task


def test_the_interval_of_an_auroc_is_that_of_a_bootstrap_of_patients() -> None:
    random = np.random.default_rng(1)
    patient = np.sort(random.integers(0, 150, 900))
    label = random.random(150)[patient] < 0.4
    scores = np.round(random.normal(size=150)[patient] + random.normal(size=900) * 0.5 + label, 1)
    task = make_task(["A" if positive else "0" for positive in label], [f"{p:03}" for p in patient])
    auroc, low, high = estimate_auroc(task, scores[None])
    assert auroc == pytest.approx(roc_auc_score(label, scores), abs=1e-4)
    present, number = np.unique(patient, return_inverse=True)
    drawn = random.multinomial(len(present), np.full(len(present), 1 / len(present)), 4000)
    resampled, _ = rank_scores(scores, label, drawn, number)
    assert (low, high) == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.01)


def test_images_of_a_patient_each_have_delongs_interval_and_perfect_scores_an_exact_one() -> None:
    random = np.random.default_rng(2)
    label = np.arange(120) % 2 == 1
    task = make_task(["B" if positive else "A" for positive in label], [str(n) for n in range(120)])
    scores = random.normal(size=120) + label
    theirs = estimate_by_delong(label, scores)
    assert theirs is not None
    assert estimate_auroc(task, scores[None]) == pytest.approx((theirs.value, theirs.low, theirs.high), abs=0.002)
    assert estimate_auroc(task, label[None].astype(float)) == pytest.approx((1, 0.025 ** (1 / 60), 1), abs=5e-5)
    assert estimate_auroc(task, np.zeros((1, 120)))[0] == 0.5


def test_the_order_of_the_images_does_not_matter(films: list[Film]) -> None:
    backwards = measure(films[::-1])
    for one, other in zip(measure(films).shortcuts, backwards.shortcuts, strict=True):
        assert (one.name, one.place) == (other.name, other.place)
        assert one.auroc == pytest.approx(other.auroc, abs=1e-3)


def test_patients_are_sampled_whole_and_from_large_sets_only() -> None:
    names = [hashlib.md5(str(n).encode(), usedforsecurity=False).hexdigest() for n in range(4000)]
    assert all(is_sampled(name, 6000) for name in names)
    assert sum(is_sampled(name, 60_000) for name in names) == pytest.approx(400, abs=80)


@pytest.fixture(scope="module")
def marked(films: list[Film], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms with a white square on every normal one; normal ones are PNG files, the others JPEG files."""
    root = tmp_path_factory.mktemp("marked") / "raw"
    for number, film in enumerate(paint(films, "NORMAL", box(4, 56, 6, 255))):
        stem = f"{film.patient}-{number:04}" if film.label == "NORMAL" else f"{film.patient}_virus_{number}"
        path = root / film.label / f"{stem}.{'png' if film.label == 'NORMAL' else 'jpeg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(film.raster.pixels).save(path)
    return root


@pytest.fixture(scope="module")
def imported(marked: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return import_dataset(marked, tmp_path_factory.mktemp("imported") / "data", ImportSettings(size=64), workers=1)


def test_the_audit_calls_a_mark_a_defect_and_other_shortcuts_warnings(marked: Path, imported: Dataset) -> None:
    for path in (marked, imported.folder):
        report = audit(path, workers=1)
        severities = {finding.kind: finding.severity for finding in report.findings}
        assert severities[Kind.SHORTCUT_MARK] is Severity.DEFECT
        assert severities[Kind.SHORTCUT_FILE] is severities[Kind.SHORTCUT_BORDER] is Severity.WARNING
        assert find(report.shortcuts, "file").single["format PNG"] == 1
        document = json.loads(json.dumps(report.to_dict()))
        assert not document["passed"]
        assert {each["name"] for each in document["shortcuts"]["shortcuts"]} >= {"descriptors", "file", "mark"}


def test_an_import_keeps_what_the_audit_of_the_data_set_finds(imported: Dataset) -> None:
    kept = read_dataset(imported.folder).info.shortcuts
    assert kept is not None
    for one, other in zip(kept.shortcuts, audit(imported.folder, workers=1).shortcuts.shortcuts, strict=True):
        assert one.name == other.name
        assert one.auroc == pytest.approx(other.auroc, abs=1e-3)


def test_data_sets_of_older_versions_say_that_nothing_was_measured(imported: Dataset, tmp_path: Path) -> None:
    document = json.loads((imported.folder / DATASET).read_text())
    assert document.pop("shortcuts")
    assert describe_shortcuts(type(imported.info).model_validate(document).shortcuts) == [
        "Not measured, since an older version imported the data set; `pneumo data check` measures it."
    ]


def test_the_command_says_it_in_plain_sentences(pneumo: Callable[..., "Outcome"], marked: Path, phantoms: Path) -> None:
    bad, sound = pneumo("data", "check", marked, "--workers", "1"), pneumo("data", "check", phantoms, "--workers", "1")
    assert (bad.code, sound.code) == (1, 0)
    assert "shortcut-mark" in bad.err
    assert "the class is written on the image" in " ".join(re.sub("[│┃]", " ", bad.out + bad.err).split())
    said = " ".join((sound.out + sound.err).split())
    assert "shortcuts: The ten image descriptors alone tell NORMAL from PNEUMONIA with an AUROC of 0." in said
