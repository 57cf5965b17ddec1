"""The folder of a case browser: every prediction with its image, its answer, and what the network makes of it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas import read_parquet
from PIL import Image

from pneumo.pipeline.cases import folder as cases_folder
from pneumo.pipeline.cases.folder import HEATS, Subject, join_scripts, write_cases
from pneumo.pipeline.cases.images import NEAREST, PER_SPRITE, SIDE, find_nearest
from pneumo.pipeline.cases.predictions import UNMATCHED, Predictions
from pneumo.pipeline.crossval.record import CrossvalFolder
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.evaluation import evaluate_run, read_metrics
from pneumo.pipeline.evaluation.cases import read_predictions, take_images
from pneumo.pipeline.evaluation.label_errors import find_label_errors
from pneumo.pipeline.evaluation.run_dataset import read_run_dataset
from pneumo.pipeline.runs.run import Run, Status
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.images.types import DECODING_RULES
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.predictor import Predictor
from tests.pipeline.conftest import SynthesiseRun
from tests.support.bundles import make_bundle
from tests.support.crossvals import build_crossval

pytestmark = pytest.mark.usefixtures("no_pages")


def read_data(folder: Path) -> dict[str, Any]:
    text = (folder / "data.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("window.CASES = ").removesuffix(";\n"))


def evaluated(run: Run) -> Run:
    evaluate_run(run, resamples=20)
    return run


@pytest.fixture(scope="module")
def browser_folder(trained: Run, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cases of the tiny model, with its network."""
    folder = tmp_path_factory.mktemp("cases") / "cases"
    assert write_cases(Subject(Predictions.read(trained), [Predictor(Bundle.open(exported))]), folder)
    return folder


def test_every_prediction_of_every_split_is_a_case_with_its_own_image(browser_folder: Path, trained: Run) -> None:
    data, frame = read_data(browser_folder), read_predictions(trained)
    columns = data["columns"]
    rows = {row.image: row for row in manifest.read_dataset(Path(trained.info().data)).rows}
    assert sorted(columns["image"]) == sorted(frame["image"])
    by_image = frame.set_index("image")
    threshold = read_metrics(trained).decisions.threshold
    for index, image in enumerate(columns["image"]):
        row = rows[image]
        assert (browser_folder / "images" / f"{index}.png").read_bytes() == (
            Path(trained.info().data) / image
        ).read_bytes()
        assert data["classes"][columns["label"][index]] == row.label == by_image.loc[image, "label"]
        assert columns["split"][index] == by_image.loc[image, "split"]
        assert (columns["source"][index], columns["patient"][index]) == (row.source, row.patient)
        assert (columns["rank"][index] == UNMATCHED) == (columns["split"][index] == "train")
        assert data["thresholds"][index] == threshold
        assert data["answer"][index] == (data["p"][index][1] >= threshold)
        assert {name: values[index] for name, values in data["groups"].items() if values[index]} == row.groups


def test_mistakes_come_first_the_worst_before_all_others_and_have_heat_maps(browser_folder: Path) -> None:
    data = read_data(browser_folder)
    label, answer = np.array(data["columns"]["label"]), np.array(data["answer"])
    wrong = label != answer
    mistakes = int(wrong.sum())
    assert wrong[:mistakes].all()
    sure = np.array(data["p"])[np.arange(len(label)), label]
    assert (np.diff(sure[:mistakes]) >= 0).all()
    assert data["heats"] == min(mistakes, HEATS) == len([*(browser_folder / "heat").iterdir()])


def test_scores_and_certainty_are_those_of_the_service(browser_folder: Path, exported: Path) -> None:
    columns = read_data(browser_folder)["columns"]
    predictor = Predictor(Bundle.open(exported))
    for index in (0, 50, 150):
        said = predictor.predict_bytes((browser_folder / "images" / f"{index}.png").read_bytes())
        assert columns["outlier"][index] == pytest.approx(said.outlier_score, abs=1e-3)
        assert columns["flagged"][index] is not said.in_distribution
        assert columns["certain"][index] is (said.certainty == "certain")


def test_sprites_hold_the_thumbnail_of_each_case_at_its_place(browser_folder: Path) -> None:
    columns = read_data(browser_folder)["columns"]
    for index in (0, 13, PER_SPRITE + 7):
        top, left = (SIDE * cell for cell in divmod(index % PER_SPRITE, 10))
        sprite = np.asarray(Image.open(browser_folder / "sprites" / f"{index // PER_SPRITE}.jpg"), dtype=float)
        own = Image.open(browser_folder / "images" / f"{index}.png").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        assert np.abs(sprite[top : top + SIDE, left : left + SIDE] - np.asarray(own, dtype=float)).mean() < 8
    assert len([*(browser_folder / "sprites").iterdir()]) == -(-len(columns["image"]) // PER_SPRITE)


def test_nearest_images_are_training_images_of_other_patients_the_most_alike_first(browser_folder: Path) -> None:
    columns = read_data(browser_folder)["columns"]
    for index, near in enumerate(columns["near"]):
        assert len(near) == NEAREST
        assert {columns["split"][place] for place in near} == {"train"}
        assert columns["patient"][index] not in {columns["patient"][place] for place in near}
    features = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], dtype=np.float32)
    some, asked = np.array([False, True, True, True]), np.array([0, 3])
    assert find_nearest(features, some, np.array([0, 1, 2, 3]), asked) == [[1, 2, 3], [2, 1]]
    assert find_nearest(features, some, np.array([0, 0, 2, 3]), asked)[0] == [2, 3]


def test_the_folder_loads_nothing_from_elsewhere_and_says_that_it_holds_images(browser_folder: Path) -> None:
    page = "".join((browser_folder / name).read_text() for name in ("index.html", "page.js", "page.css"))
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert not [line for line in join_scripts().splitlines() if line.startswith(("import", "export"))]
    assert "not a medical device. This folder holds X-ray images" in page
    assert "X-ray images" in (browser_folder / "README.txt").read_text()
    assert (browser_folder / ".gitignore").read_text() == "*\n"


def test_a_folder_is_written_anew_only_if_something_changed_and_never_over_something_else(
    synthesise_run: SynthesiseRun, tmp_path: Path
) -> None:
    classes = ("A", "B", "C")
    predictor = Predictor(make_bundle(tmp_path / "bundle", classes=[*classes], positive_class=None, thresholds={}))
    subject = Subject(Predictions.read(evaluated(synthesise_run(classes))), [predictor])
    assert write_cases(subject, tmp_path / "cases")
    assert not write_cases(subject, tmp_path / "cases")
    other = Subject(Predictions.read(evaluated(synthesise_run(classes, seed=1))), [predictor])
    assert write_cases(other, tmp_path / "cases")
    data = read_data(tmp_path / "cases")
    assert (data["positive"], data["thresholds"], data["classes"]) == (None, None, [*classes])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    for place in (tmp_path / "mine", tmp_path / "mine" / "notes.txt"):
        with pytest.raises(InputError, match="not a case browser; choose another --out"):
            write_cases(other, place)
    (other.first.dataset.folder / "images" / "0003.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"0003.png: changed since the import"):
        write_cases(other, tmp_path / "new")
    assert not [path for path in tmp_path.iterdir() if "new" in path.name]


def test_ctrl_c_leaves_no_image_behind(
    synthesise_run: SynthesiseRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(Predictions.read(evaluated(synthesise_run())), [Predictor(make_bundle(tmp_path / "bundle"))])
    place = tmp_path / "cases"
    written: list[Path] = []

    def interrupt(path: Path, images: object) -> None:
        written.extend(place.rglob("*.png"))
        assert {file.read_text() for file in place.rglob(".gitignore")} == {"*\n"}
        raise KeyboardInterrupt

    monkeypatch.setattr(cases_folder, "write_sprite", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_cases(subject, place / "mine")
    assert written
    assert not [*place.iterdir()]


@pytest.fixture
def crossval(tmp_path: Path) -> CrossvalFolder:
    """Three folds, twice."""
    return build_crossval(tmp_path)


def test_of_a_cross_validation_each_image_is_judged_by_the_network_of_its_fold(
    crossval: CrossvalFolder, tmp_path: Path
) -> None:
    first = Predictions.read(crossval)
    second = Predictions.read(evaluated(Run.open("latest", root=tmp_path / "base" / "runs")))
    inputs = Preparation(size=16, height=16, width=16, channels=1, rules=DECODING_RULES)  # as the data set
    predictors = [Predictor(make_bundle(tmp_path / f"{seed}", seed=seed, preparation=inputs)) for seed in range(3)]
    subject = Subject(first, predictors, second)
    assert write_cases(subject, tmp_path / "cases")
    data = read_data(tmp_path / "cases")
    columns, rows = data["columns"], {row.image: row for row in first.dataset.rows}
    frame = read_parquet(crossval.predictions)
    frame = frame[frame["repeat"] == 1].set_index("image")
    assert sorted(columns["image"]) == sorted(frame.index)
    assert set(columns["split"]) == {"train", "validation"}
    ranking = find_label_errors(crossval, first.dataset).ranking
    assert [columns["image"][place] for place in np.argsort(columns["rank"])] == [each.image for each in ranking]
    assert data["likely"] == sum(each.likely for each in ranking) > 0
    assert "each image is judged by the network of its fold" in data["remark"]
    assert "Repeat 1 of 2 is shown." in data["remark"]
    assert all(data["second"]["matched"])
    seen, thresholds = {}, {}
    for fold, run in crossval.list_runs().items():
        if fold.repeat == 1:
            seen[fold.number] = {row.image for row in read_run_dataset(run.info()).select(Split.TRAIN)}
            thresholds[fold.number] = read_metrics(run).decisions.threshold
    assert len(set(thresholds.values())) == 3
    for number, image in enumerate(columns["image"]):
        fold, near = data["folds"][number], [columns["image"][place] for place in columns["near"][number]]
        assert fold == frame.loc[image, "fold"]
        assert len(near) == NEAREST
        assert set(near) <= seen[fold]
        assert rows[image].patient not in {rows[other].patient for other in near}
        assert data["thresholds"][number] == thresholds[fold]
        assert data["answer"][number] == (data["p"][number][1] >= thresholds[fold])
        assert subject.find_predictor(number) is predictors[fold - 1]
    for number in (0, 40, 80):
        image = (tmp_path / "cases" / "images" / f"{number}.png").read_bytes()
        said = predictors[data["folds"][number] - 1].predict_bytes(image)
        assert columns["outlier"][number] == pytest.approx(said.outlier_score, abs=1e-3)


def test_a_cross_validation_without_all_its_folds_is_refused(crossval: CrossvalFolder) -> None:
    record = crossval.read()
    crossval.save(record.model_copy(update={"status": Status.INTERRUPTED}))
    with pytest.raises(InputError, match=f"finish it with `pneumo crossval --resume {crossval.name}`"):
        Predictions.read(crossval)
    crossval.save(record)
    shutil.rmtree(crossval.folder / record.runs[1].run)
    with pytest.raises(InputError, match="2 of 3 folds are there and done"):
        Predictions.read(crossval)


def test_a_second_model_is_matched_by_image_and_by_digest_in_another_data_set(
    synthesise_run: SynthesiseRun, tmp_path: Path
) -> None:
    first, second = (evaluated(synthesise_run(seed=4, shift=shift)) for shift in (0.4, 1.6))
    predictor = Predictor(make_bundle(tmp_path / "bundle"))
    subject = Subject(Predictions.read(first), [predictor], Predictions.read(second))
    write_cases(subject, tmp_path / "cases")
    data = read_data(tmp_path / "cases")
    answers = dict(zip(subject.second.cases.image, subject.second.cases.answer, strict=True))
    assert data["second"]["answer"] == [answers[image] for image in data["columns"]["image"]]
    assert all(data["second"]["matched"])
    dataset = subject.second.dataset
    renamed = [replace(row, image=f"images/x{row.image[7:]}") for row in dataset.rows]
    images = [f"images/x{image[7:]}" for image in subject.second.cases.image]
    there = replace(dataset, rows=tuple(renamed[1:]), info=dataset.info.model_copy(update={"fingerprint": "another"}))
    some = take_images(replace(subject.second.cases, image=images), np.array(images) != renamed[0].image)
    found = subject.first.match(replace(subject.second, dataset=there, cases=some))
    assert [some.image[place] for place in found[1:]] == images[1:]
    assert found[0] == UNMATCHED


def test_models_of_other_classes_or_other_images_are_refused(synthesise_run: SynthesiseRun) -> None:
    one, other, three = (
        Predictions.read(evaluated(synthesise_run(*classes, seed=seed)))
        for seed, classes in ((1, ()), (2, ()), (3, [("A", "B", "C")]))
    )
    assert UNMATCHED not in one.match(one)
    with pytest.raises(InputError, match="has none of the images"):
        one.match(other)
    with pytest.raises(InputError, match="has the classes A, B, C: they cannot be compared"):
        one.match(three)
