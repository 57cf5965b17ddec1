"""What a config can say about robustness, through a whole training: it takes effect, is saved, and is exported."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pneumo.pipeline import config, training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data import importer, manifest
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.data.training_images import read_images
from pneumo.pipeline.export import bundle_export
from pneumo.pipeline.ludwig import inference
from pneumo.pipeline.runs.run import Run
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.model.bundle import Bundle
from tests.support.paths import ROOT

SMOKE = ROOT / "ludwig_configs" / "smoke.yaml"
SMALL = (
    "trainer.epochs=2",
    "trainer.batch_size=16",
    "input_features.0.preprocessing.height=32",
    "input_features.0.preprocessing.width=32",
    "input_features.0.encoder={type: backbone, network: test_resnet}",
)


def experiment(*overrides: str) -> Experiment:
    return config.load_config(SMOKE, [*SMALL, *overrides])


def stored_logits(run: Run) -> np.ndarray:
    """Return the logits that the model in memory gave at the end of training."""
    return np.stack(pd.read_parquet(run.predictions)["logits"].to_list())


def loaded_logits(run: Run, dataset: Dataset) -> np.ndarray:
    """Return the logits of the same images after loading the model from its files."""
    info = run.info()
    images = read_images(dataset, dataset.rows, Preparation.model_validate(info.preparation))
    return inference.predict_logits(inference.load_model(run), info, images)


@pytest.mark.lengthy
@pytest.mark.slow
def test_an_average_and_a_mirror_survive_checkpoints_saving_and_loading(dataset: Dataset, tmp_path: Path) -> None:
    encoder = "{type: backbone, network: test_resnet, weight_average: 0.9, views: 2, normalization: standardize}"

    run = training.train(experiment(f"input_features.0.encoder={encoder}"), dataset, root=tmp_path, seed=1)

    np.testing.assert_allclose(loaded_logits(run, dataset), stored_logits(run), atol=1e-5)
    network = inference.load_model(run).model.input_features.get("image").encoder_obj
    steps_per_epoch = len(dataset.select(Split.TRAIN)) / 16
    assert network.average.count >= steps_per_epoch // 1
    raw, average = network.backbone.state_dict(), network.average.shadow.state_dict()
    assert any(not np.allclose(raw[name], average[name]) for name in raw)


@pytest.mark.slow
def test_an_ensemble_with_every_augmentation_and_smoothing_trains_and_exports(dataset: Dataset, tmp_path: Path) -> None:
    names = ("affine", "intensity", "sharpness", "noise", "erasing", "style")
    run = training.train(
        experiment(
            "input_features.0.encoder={type: ensemble, copies: 2, members: "
            "[{type: backbone, network: test_resnet, weight_average: 0.9, batch_norm: frozen}]}",
            f"input_features.0.augmentation=[{', '.join(f'{{type: radiograph_{name}}}' for name in names)}]",
            "output_features.0.loss={type: smoothed_binary_cross_entropy, smoothing: 0.1}",
        ),
        dataset,
        root=tmp_path,
        seed=1,
    )

    bundle = Bundle.open(bundle_export.export_run(run, out=tmp_path / "bundle"))

    assert bundle.info.parity.max_probability_difference <= 1e-5
    np.testing.assert_allclose(loaded_logits(run, dataset), stored_logits(run), atol=1e-5)


@pytest.fixture(scope="module")
def uneven(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Write the phantoms without three of four NORMAL training images."""
    folder = tmp_path_factory.mktemp("uneven") / "data"
    training_rows = [row for row in dataset.select(Split.TRAIN) if row.label == "NORMAL"]
    dropped = {row.image for position, row in enumerate(training_rows) if position % 4}
    rows = [row for row in dataset.rows if row.image not in dropped]
    for row in rows:
        (folder / row.image).parent.mkdir(parents=True, exist_ok=True)
        (folder / row.image).write_bytes(dataset.path(row).read_bytes())
    fingerprint = manifest.compute_fingerprint(rows, dataset.info)
    manifest.write_dataset(folder, rows, dataset.info.model_copy(update={"fingerprint": fingerprint}))
    return manifest.read_dataset(folder)


def images_per_epoch(run: Run) -> tuple[int, int]:
    """Return the smallest and largest number of training images of one epoch, from its steps of 16."""
    first = json.loads(run.history.read_text(encoding="utf-8"))[0]["step"]
    return 16 * (first - 1) + 1, 16 * first


@pytest.mark.parametrize("how", ["oversample_minority", pytest.param("undersample_majority", marks=pytest.mark.slow)])
def test_ludwig_balances_the_training_images_of_a_binary_label(uneven: Dataset, tmp_path: Path, how: str) -> None:
    labels = [row.label for row in uneven.select(Split.TRAIN)]
    few, many = sorted([labels.count("NORMAL"), labels.count("PNEUMONIA")])
    assert many > 2 * few

    run = training.train(experiment("trainer.epochs=1", f"preprocessing.{how}=1"), uneven, root=tmp_path, seed=1)

    least, most = images_per_epoch(run)
    expected = 2 * many if how == "oversample_minority" else 2 * few
    assert least <= expected <= most
    assert len(stored_logits(run)) == len(uneven.rows)  # every image is predicted once, none twice


@pytest.mark.lengthy
@pytest.mark.slow
def test_a_weight_of_the_positive_class_moves_the_probabilities(dataset: Dataset, tmp_path: Path) -> None:
    means = []
    for kind, weight in (("binary_weighted_cross_entropy", 0.05), ("smoothed_binary_cross_entropy", 20)):
        loss = f"output_features.0.loss={{type: {kind}, positive_class_weight: {weight}}}"
        run = training.train(experiment(loss), dataset, root=tmp_path, seed=1)
        means.append(stored_logits(run)[:, 1].mean())

    assert means[0] < means[1] - 1


def test_class_weights_of_a_category_are_given_by_name(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("A", "B", "C"):
        for number in range(24):
            path = tmp_path / "raw" / name / f"{name}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (32, 32)).astype(np.uint8)).save(path)
    three = importer.import_dataset(tmp_path / "raw", tmp_path / "data", importer.ImportSettings(size=32), workers=1)

    run = training.train(
        experiment(
            "output_features=[{name: label, type: category, loss: {type: softmax_cross_entropy, "
            "class_weights: {A: 0.01, B: 100.0, C: 0.01}}}]",
            "trainer.learning_rate=0.01",
            "trainer.learning_rate_scheduler={}",
            "trainer.epochs=3",
        ),
        three,
        root=tmp_path / "runs",
        seed=1,
    )

    classes = run.info().classes
    logits = stored_logits(run)[:, :]
    assert np.mean(logits.argmax(axis=1) == classes.index("B")) > 0.9


@pytest.mark.lengthy
@pytest.mark.slow
def test_a_uniform_soup_is_saved_as_it_predicts(dataset: Dataset, tmp_path: Path) -> None:
    run = training.train(
        experiment(
            "trainer.epochs=4",
            "trainer.validation_metric=loss",
            "trainer.model_soup=uniform",
            "trainer.model_soup_top_k=3",
        ),
        dataset,
        root=tmp_path,
        seed=1,
    )

    assert "Applying uniform model soup with" in run.log.read_text(encoding="utf-8")
    np.testing.assert_allclose(loaded_logits(run, dataset), stored_logits(run), atol=1e-5)
    assert not list(run.folder.rglob("topk_*"))
