"""Features of a frozen network: computed once, with the same result as at each step."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pneumo.pipeline import config, training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.runs.history import read_history
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.pipeline.runs.run import Run
from pneumo.pipeline.training.run import TrainingInterruptedError
from tests.support.paths import CONFIGS
from tests.support.reporters import RecordingReporter, StopAt

EPOCHS = 3
SEED = 7
"""Not Ludwig's own seed, so that random weights drawn with that one are others."""
NOISE = "[{type: radiograph_noise, probability: 0.5, gaussian: 0.1}]"


def make(augmentation: str = "[]", **options: Any) -> Experiment:
    """Make an experiment with a frozen network of random weights."""
    section = {"type": "backbone", "network": "test_resnet", "trainable": "false"} | options
    encoder = ", ".join(f"{name}: {value}" for name, value in section.items())
    overrides = [f"input_features.0.encoder={{{encoder}}}", f"input_features.0.augmentation={augmentation}"]
    shape = [f"input_features.0.preprocessing.{side}=32" for side in ("height", "width")]
    return config.load_config(CONFIGS / "smoke.yaml", [*overrides, *shape, f"trainer.epochs={EPOCHS}"])


@pytest.fixture(scope="module")
def fit(
    ludwig: ModuleType, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Run, list[str]]]:
    """Return a function that trains an experiment, and gives the run and what was said of features."""

    def train(experiment: Experiment) -> tuple[Run, list[str]]:
        reporter = RecordingReporter()
        root = tmp_path_factory.mktemp("runs")
        run = training.train(experiment, dataset, root=root, seed=SEED, reporter=reporter)
        return run, [message for message in reporter.messages if "computing features" in message]

    return train


def logits(run: Run) -> np.ndarray:
    return np.stack(pd.read_parquet(run.predictions)["logits"].to_list())


@pytest.fixture(scope="module")
def augmented(fit: Callable[..., tuple[Run, list[str]]]) -> tuple[Run, list[str]]:
    """Return a run of three epochs with two augmented views, and what was said."""
    return fit(make(NOISE, cached_views=2))


@pytest.mark.parametrize("options", [{}, pytest.param({"views": 2}, marks=pytest.mark.slow)], ids=["plain", "mirrored"])
def test_without_augmentation_the_results_are_those_of_features_at_each_step(
    fit: Callable[..., tuple[Run, list[str]]], dataset: Dataset, options: dict[str, Any]
) -> None:
    cached, said = fit(make(**options))
    computed, nothing = fit(make(**options, cached_views=0))

    counts = [len(dataset.select(split)) for split in (Split.TRAIN, Split.VALIDATION)]
    assert said == [f"computing features of {count} images once ..." for count in counts]
    assert nothing == []
    np.testing.assert_allclose(logits(cached), logits(computed), atol=1e-4)
    assert np.ptp(logits(cached)) > 1e-3


def test_each_augmented_view_is_computed_in_its_first_epoch_and_used_again(
    fit: Callable[..., tuple[Run, list[str]]], augmented: tuple[Run, list[str]]
) -> None:
    run, said = augmented

    assert [message.partition("once")[2] for message in said] == [", view 1 of 2 ...", " ...", ", view 2 of 2 ..."]
    once, _ = fit(make(NOISE, cached_views=1))
    first, second = ([entry["train"]["loss"] for entry in read_history(each)] for each in (run, once))
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_a_resumed_training_and_a_stopped_trial_have_the_frozen_weights_and_the_same_views(
    augmented: tuple[Run, list[str]], dataset: Dataset, tmp_path: Path
) -> None:
    from pneumo.pipeline.ludwig.inference import load_model

    steps = -(-len(dataset.select(Split.TRAIN)) // 32)
    with pytest.raises(TrainingInterruptedError) as stopped:
        training.train(make(NOISE, cached_views=2), dataset, root=tmp_path, seed=SEED, reporter=StopAt(2 * steps + 1))
    run, trial = stopped.value.run, Run(tmp_path / "trial")
    kept = load_model(run).model.state_dict()
    for file in run.model.glob("model_weights*"):
        file.unlink()
    shutil.copytree(run.folder, trial.folder)

    training.complete(trial)
    training.resume(run)

    completed = load_model(trial).model.state_dict()
    assert all(np.array_equal(tensor.numpy(), completed[name].numpy()) for name, tensor in kept.items())
    np.testing.assert_allclose(logits(run), logits(augmented[0]), atol=1e-5)


def test_a_signal_stops_before_the_next_batch_of_images(ludwig: ModuleType, dataset: Dataset, tmp_path: Path) -> None:
    class StopWhileComputing(Reporter):
        def message(self, text: str) -> None:
            if "computing features" in text:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterruptedError, match="after 0 evaluation rounds"):
        training.train(make(), dataset, root=tmp_path, reporter=StopWhileComputing())
