"""`pneumo train --profile`: where the time goes, without changing what is learned."""

import dataclasses
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from pneumo.pipeline import training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.runs.run import Run
from pneumo.pipeline.training.run import TrainingInterruptedError
from pneumo.serving.contracts.errors import InputError
from tests.support.reporters import StopAt

if TYPE_CHECKING:
    from tests.conftest import Outcome


def test_a_profiled_training_leaves_a_trace_and_a_table_and_learns_the_same(
    pneumo: Callable[..., "Outcome"], tiny: Experiment, dataset: Dataset, trained: Run, tmp_path: Path
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(tiny.to_yaml(), encoding="utf-8")

    outcome = pneumo(
        "train", config, "--data", dataset.folder, "--runs-dir", tmp_path / "runs", "--seed", "7", "--profile"
    )

    assert outcome.code == 0, outcome.err
    (folder,) = (tmp_path / "runs").iterdir()
    from pneumo.pipeline.ludwig.trainer_profile import BATCH, PARTS  # loads Ludwig

    table = (folder / "profile" / "summary.txt").read_text(encoding="utf-8")
    parts, operations = table.split("\n", 1)
    assert all(re.search(rf"{part} \d+\.\d\d ms", parts) for part in (BATCH, *PARTS.values())), table
    assert " 0.00 ms" not in parts
    assert "aten::" in operations
    with gzip.open(folder / "profile" / "trace.json.gz", "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    assert len({event["name"] for event in events if event.get("name", "").startswith("ProfilerStep")}) == 4
    assert "backward" in outcome.err
    assert "seconds: load" in outcome.err
    ours, theirs = (pd.read_parquet(run.predictions)["logits"] for run in (Run(folder), trained))
    np.testing.assert_array_equal(np.stack(ours.to_list()), np.stack(theirs.to_list()))


def test_an_interrupted_training_keeps_its_profile(tiny: Experiment, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingInterruptedError) as stopped:
        training.train(tiny, dataset, root=tmp_path, profile=True, reporter=StopAt(5))

    folder = stopped.value.run.folder / "profile"
    assert "forward" in (folder / "summary.txt").read_text(encoding="utf-8")
    assert (folder / "trace.json.gz").stat().st_size > 0
    assert not (stopped.value.run.folder / ".scratch").exists()


def test_without_the_option_no_profile_is_made(trained: Run) -> None:
    assert not (trained.folder / "profile").exists()


def test_a_profile_of_a_cluster_is_refused(tiny: Experiment, dataset: Dataset, tmp_path: Path) -> None:
    document = tiny.document.override(["backend={type: ray}"])

    with pytest.raises(InputError, match="--profile needs a local training"):
        training.train(dataclasses.replace(tiny, document=document), dataset, root=tmp_path, profile=True)

    assert list(tmp_path.iterdir()) == []
