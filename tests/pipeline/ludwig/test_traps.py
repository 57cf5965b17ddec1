"""The traps of Ludwig that our rules close are still there; where one of these fails, a rule can go."""

import dataclasses
import json
from pathlib import Path

import pytest

from pneumo.pipeline import training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Dataset


def rates(tiny: Experiment, dataset: Dataset, root: Path, schedule: str) -> list[float]:
    """Return the learning rate at the end of each epoch, with a schedule that the rules would refuse."""
    document = tiny.document.override([f"trainer.learning_rate_scheduler={schedule}", "trainer.epochs=4"])
    run = training.train(dataclasses.replace(tiny, document=document), dataset, root=root)
    return [entry["learning_rate"] for entry in json.loads(run.history.read_text(encoding="utf-8"))]


@pytest.mark.lengthy
@pytest.mark.slow
def test_one_cycle_without_max_lr_stays_below_a_twenty_fifth_of_the_rate(
    tiny: Experiment, dataset: Dataset, tmp_path: Path
) -> None:
    rate = tiny.config["trainer"]["learning_rate"]

    assert max(rates(tiny, dataset, tmp_path, "{decay: one_cycle}")) <= rate / 25 * 1.001
    assert max(rates(tiny, dataset, tmp_path, f"{{decay: one_cycle, max_lr: {rate}}}")) > rate / 2


@pytest.mark.lengthy
@pytest.mark.slow
def test_cosine_without_t_0_restarts_at_every_evaluation(tiny: Experiment, dataset: Dataset, tmp_path: Path) -> None:
    at_the_end_of_epochs = rates(tiny, dataset, tmp_path, "{decay: cosine}")

    assert at_the_end_of_epochs == pytest.approx([at_the_end_of_epochs[0]] * 4, rel=1e-6)
