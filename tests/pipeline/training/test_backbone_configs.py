"""The configs for networks that people bring, with random weights of the same shape: from training to a bundle."""

from pathlib import Path

import pytest

from pneumo.pipeline import config, training
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.evaluation import read_metrics
from pneumo.pipeline.export import bundle_export
from pneumo.serving.model.bundle import Bundle
from tests.support.paths import CONFIGS

ENCODER = "input_features.0.encoder"


@pytest.mark.slow
@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("backbone", []),
        ("backbone", [f"{ENCODER}.network=densenet121.tv_in1k"]),
        ("frozen_vit", [f"{ENCODER}.network=vit_small_patch16_224.dino", f"{ENCODER}.size=224"]),
    ],
    ids=["resnet50", "densenet121", "vit"],
)
def test_a_config_trains_and_its_bundle_answers_as_the_network(
    name: str, overrides: list[str], dataset: Dataset, tmp_path: Path
) -> None:
    shape = [f"input_features.0.preprocessing.{side}=64" for side in ("height", "width")]
    experiment = config.load_config(
        CONFIGS / f"{name}.yaml", [*overrides, *shape, f"{ENCODER}.weights=null", "trainer.epochs=1"]
    )

    run = training.train(experiment, dataset, root=tmp_path / "runs")
    bundle = Bundle.open(bundle_export.export_run(run, out=tmp_path / "bundle"))  # refuses a graph that differs

    assert 0 <= read_metrics(run).splits["test"].metrics["auroc"].value <= 1
    assert bundle.info.parity.max_probability_difference < 1e-4
