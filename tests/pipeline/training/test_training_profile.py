"""`pneumo train --profile`: where the time goes, without changing what is learned."""

import dataclasses
import gzip
import json
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
from pneumo.pipeline.runs.training_profile import PARTS, Stopwatch
from pneumo.pipeline.training.run import TrainingInterruptedError
from pneumo.serving.contracts.errors import InputError
from tests.support.reporters import StopAt

if TYPE_CHECKING:
    from tests.conftest import Outcome


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_part_does_not_count_the_parts_inside_it() -> None:
    clock = Clock()
    watch = Stopwatch(clock)

    clock.now = 1
    with watch.part("evaluate"):
        clock.now = 3
        with watch.part("checkpoint"):
            clock.now = 7
        clock.now = 8
    clock.now = 10

    seconds = watch.stopped()
    assert (seconds["other"], seconds["evaluate"], seconds["checkpoint"]) == (3, 3, 4)
    assert sum(seconds.values()) == 10


def test_a_part_left_open_by_an_interrupt_ends_with_the_one_around_it() -> None:
    clock = Clock()
    watch = Stopwatch(clock)

    with watch.part("prepare"):
        watch.end("prepare")
        watch.end("data")
        watch.begin("data")
        clock.now = 2
    clock.now = 5

    assert (watch.stopped()["data"], watch.stopped()["other"]) == (2, 3)


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
    summary = json.loads((folder / "profile" / "summary.json").read_text(encoding="utf-8"))
    assert list(summary["seconds"]) == list(PARTS)
    busy = (
        "read",
        "prepare",
        "data",
        "forward",
        "backward",
        "optimizer",
        "evaluate",
        "checkpoint",
        "predict",
        "report",
    )
    assert all(summary["seconds"][name] > 0 for name in busy), summary["seconds"]
    stages = sum(Run(folder).info().durations.values())
    assert sum(summary["seconds"].values()) == pytest.approx(stages, abs=1)
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    assert summary["steps"] == history[-1]["step"]
    assert summary["images_per_second"] > 0
    assert summary["traced_steps"] == 4
    assert "conv" in " ".join(operator["name"] for operator in summary["operators"])
    assert len(summary["operators"]) == 10
    with gzip.open(folder / "profile" / "trace.json.gz", "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    assert len({event["name"] for event in events if event.get("name", "").startswith("ProfilerStep")}) == 4
    assert "backward" in outcome.err
    ours, theirs = (pd.read_parquet(run.predictions)["logits"] for run in (Run(folder), trained))
    np.testing.assert_array_equal(np.stack(ours.to_list()), np.stack(theirs.to_list()))


def test_an_interrupted_training_keeps_its_profile(tiny: Experiment, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingInterruptedError) as stopped:
        training.train(tiny, dataset, root=tmp_path, profile=True, reporter=StopAt(5))

    folder = stopped.value.run.folder / "profile"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["steps"] == 5
    assert summary["traced_steps"] == 2
    assert (folder / "trace.json.gz").stat().st_size > 0
    assert not (stopped.value.run.folder / ".scratch").exists()


def test_without_the_option_no_profile_is_made(trained: Run) -> None:
    assert not (trained.folder / "profile").exists()


def test_a_profile_of_a_cluster_is_refused(tiny: Experiment, dataset: Dataset, tmp_path: Path) -> None:
    document = tiny.document.override(["backend={type: ray}"])

    with pytest.raises(InputError, match="--profile needs a local training"):
        training.train(dataclasses.replace(tiny, document=document), dataset, root=tmp_path, profile=True)

    assert list(tmp_path.iterdir()) == []
