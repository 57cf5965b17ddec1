"""Configs of Ludwig's users, from the file to a prediction."""

from pathlib import Path

import pytest

from pneumo.pipeline import config, training
from pneumo.pipeline.config.document import parse_document
from pneumo.pipeline.data.manifest import Dataset, Split, read_dataset
from pneumo.pipeline.export import bundle_export
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.predictor import Predictor
from tests.pipeline.conftest import build_run
from tests.support.ludwig_configs import IMAGE_EXAMPLES, TRAINABLE


@pytest.mark.slow
def test_a_loss_on_which_ludwig_fails_trains_three_classes(ludwig: object, tmp_path: Path) -> None:
    three = read_dataset(Path(build_run(tmp_path, ("BACTERIA", "NORMAL", "VIRUS"), images=60).info().data))
    document = parse_document(IMAGE_EXAMPLES["open set, objectosphere"], "theirs.yaml")

    run = training.train(config.build_experiment(document, "theirs"), three, root=tmp_path / "runs")

    assert (run.info().positive, run.info().preparation["height"]) == (None, 16)


@pytest.mark.slow
@pytest.mark.parametrize("text", TRAINABLE.values(), ids=TRAINABLE)
def test_a_ludwig_config_trains_is_exported_and_predicts(dataset: Dataset, tmp_path: Path, text: str) -> None:
    experiment = config.build_experiment(parse_document(text, "theirs.yaml"), "theirs")

    run = training.train(experiment, dataset, root=tmp_path)

    info = run.info()
    assert (info.positive, sorted(info.classes)) == ("PNEUMONIA", ["NORMAL", "PNEUMONIA"])
    assert set(info.remarks) > set(experiment.remarks)
    assert all(f"# {remark}" in run.config.read_text(encoding="utf-8") for remark in info.remarks)
    predictor = Predictor(Bundle.open(bundle_export.export_run(run, out=tmp_path / "bundle")))
    row = dataset.select(Split.TEST)[0]
    (prediction,) = predictor.predict([predictor.prepare(dataset.path(row).read_bytes())])
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
