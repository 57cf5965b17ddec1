import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pneumo.pipeline import config, training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data import importer
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.data.training_images import read_images
from pneumo.pipeline.evaluation import read_metrics
from pneumo.pipeline.export.bundle_export import export_run
from pneumo.pipeline.ludwig.inference import load_model, make_predictions_frame, predict_logits, read_class_order
from pneumo.pipeline.runs.run import Run, Status
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.preparation import Preparation, encode_png
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.predictor import Predictor
from tests.support.paths import ROOT


def test_a_loaded_model_predicts_what_training_kept(trained: Run, dataset: Dataset) -> None:
    info = trained.info()
    images = read_images(dataset, dataset.rows, Preparation.model_validate(info.preparation))
    again = make_predictions_frame(dataset.rows, predict_logits(load_model(trained), info, images))

    kept = pd.read_parquet(trained.predictions)
    assert list(again["image"]) == list(kept["image"])
    np.testing.assert_allclose(np.stack(again["logits"].to_list()), np.stack(kept["logits"].to_list()), atol=1e-5)


def test_a_model_is_loaded_without_looking_for_a_ray_cluster(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> bool:
        raise AssertionError("looked for a cluster")

    monkeypatch.setattr("ludwig.backend._has_ray", look)
    assert load_model(trained).backend.BACKEND_TYPE == "local"


def test_a_run_without_a_model_says_how_to_finish_it(trained: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "bare")
    run.folder.mkdir()
    run.save(trained.info().model_copy(update={"status": Status.INTERRUPTED}))

    with pytest.raises(InputError, match="pneumo train --resume bare"):
        load_model(run)


def test_three_classes_go_through_the_whole_loop(tiny: Experiment, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for number in range(90):
        kind = ("0", "yes", "WHITE")[number % 3]  # Ludwig reads two of these as values
        pixels = np.random.default_rng(number).integers(0, 60, (40, 40)) + 90 * (number % 3)
        file = raw / kind / f"case{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(pixels.astype(np.uint8)))
    dataset = importer.import_dataset(raw, tmp_path / "data", importer.ImportSettings(size=40), workers=1)
    document = tiny.document.override(
        [
            "output_features=[{name: label, type: category}]",
            "trainer.validation_metric=accuracy",
            "trainer.epochs=12",
            "decisions={}",  # a threshold is for a binary label
        ]
    )

    run = training.train(dataclasses.replace(tiny, document=document), dataset, root=tmp_path / "runs")

    info = run.info()
    assert info.positive is None
    assert sorted(info.classes) == ["0", "WHITE", "yes"]
    assert read_class_order(load_model(run), info) == info.classes
    accuracy = read_metrics(run).splits["test"].metrics["accuracy"].value
    assert accuracy is not None
    assert accuracy > 0.9
    predictor = Predictor(Bundle.open(export_run(run)))
    row = next(row for row in dataset.rows if row.label == "WHITE")
    assert predictor.predict_bytes(dataset.path(row).read_bytes(), row.image).label == "WHITE"


@pytest.mark.parametrize(
    ("dark", "bright", "positive"),
    [
        ("1", "0", "0"),
        pytest.param("no", "yes", "no", marks=pytest.mark.slow),
        pytest.param("2", "3", "3", marks=pytest.mark.slow),
        pytest.param("F", "M", "M", marks=pytest.mark.slow),
    ],
)
def test_labels_that_ludwig_takes_for_values_keep_their_names_to_the_answer(
    dark: str, bright: str, positive: str, tiny: Experiment, tmp_path: Path
) -> None:
    rows = ["image;label"]
    for number in range(80):
        is_bright = number % 2
        pixels = np.random.default_rng(number).integers(0, 60, (40, 40)) + 150 * is_bright
        (tmp_path / f"case{number:03d}.png").write_bytes(encode_png(pixels.astype(np.uint8)))
        rows.append(f"case{number:03d};{bright if is_bright else dark}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    dataset = importer.import_dataset(
        tmp_path / "list.csv", tmp_path / "data", importer.ImportSettings(size=40), workers=1
    )
    text = tiny.to_yaml().replace("fallback_true_label: PNEUMONIA", f"fallback_true_label: {positive}")
    (tmp_path / "mine.yaml").write_text(text)
    experiment = config.load_config(tmp_path / "mine.yaml", ["trainer.epochs=12"])
    assert experiment.positive == positive

    run = training.train(experiment, dataset, root=tmp_path / "runs")

    info = run.info()
    assert info.classes == [name for name in (dark, bright) if name != positive] + [positive]
    assert set(pd.read_parquet(run.predictions)["label"]) == {dark, bright}
    auroc = read_metrics(run).splits["test"].metrics["auroc"].value
    assert auroc is not None
    assert auroc > 0.95
    predictor = Predictor(Bundle.open(export_run(run)))
    answers = [predictor.predict_bytes(dataset.path(row).read_bytes(), row.image) for row in dataset.rows]
    right = sum(answer.label == row.label for answer, row in zip(answers, dataset.rows, strict=True))
    assert right > 0.8 * len(answers)
    for answer in answers:
        assert set(answer.probabilities) == {dark, bright}
    means = {
        label: np.mean(
            [a.probabilities[positive] for a, row in zip(answers, dataset.rows, strict=True) if row.label == label]
        )
        for label in (dark, bright)
    }
    assert max(means, key=means.__getitem__) == positive


@pytest.mark.lengthy
@pytest.mark.slow
@pytest.mark.parametrize("name", ["baseline", "resnet18", "efficientnet_lite0", "recommended"])
def test_every_shipped_network_trains_and_exports(name: str, dataset: Dataset, tmp_path: Path) -> None:
    """One epoch at 32 pixels; the export itself compares ONNX Runtime with Ludwig."""
    overrides = ["trainer.epochs=1", *(f"input_features.0.preprocessing.{side}=32" for side in ("height", "width"))]
    experiment = config.load_config(ROOT / "ludwig_configs" / f"{name}.yaml", overrides)

    run = training.train(experiment, dataset, root=tmp_path)
    bundle = Bundle.open(export_run(run))

    assert bundle.info.parity.images >= 64
    assert bundle.info.preparation.channels == (3 if name == "resnet18" else 1)
    predictor = Predictor(bundle)
    row = dataset.rows[0]
    assert predictor.predict_bytes(dataset.path(row).read_bytes(), row.image).probability is not None
    assert predictor.has_maps == (name != "baseline")  # it has no global average, and layers that are not linear
