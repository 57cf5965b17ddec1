"""One trial, as a Ray worker carries it out: a run like any other, told of to Ray Tune round by round.

A worker process does one trial after the other, so that Ludwig is loaded and images are prepared once. What Ray Tune
keeps as a trial's checkpoint is its run folder as it stands, so that it can go on anywhere. A trial that fails for a
reason of its own (diverged, out of memory, an impossible config) reports that reason as its last word instead of
raising: Ray Tune would end the worker and try again. Only a worker that dies is tried again.
"""

import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray import tune

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.data.training_images import ludwig_frame
from pneumo.pipeline.ludwig import checkpoints, runtime
from pneumo.pipeline.runs.reporter import Reporter, TrackingMode
from pneumo.pipeline.runs.run import Run, RunInfo, Status
from pneumo.pipeline.sweep.record import Goal
from pneumo.pipeline.sweep.space import Space
from pneumo.pipeline.training.hooks import Hooks
from pneumo.pipeline.training.run import describe_run, execute_run
from pneumo.serving.contracts.errors import PneumoError
from pneumo.serving.images import preparation as image
from pneumo.serving.images.preparation import Preparation

if TYPE_CHECKING:
    import pandas as pd

VALUE = "value"
"""Name of the best value so far among what is reported to Ray Tune."""
POINT = "point"
"""Key of a stated point, `{"parameters": ..., "seed": ...}`, among what Ray Tune hands out; without it, it drew one."""


class DivergedError(PneumoError):
    """The loss is not a finite number any more."""


@dataclass(frozen=True)
class Task:
    """What all trials of a sweep have in common.

    Attributes:
        sweep: Name of the sweep.
        space: What is varied.
        dataset: What is trained on; its folder need not be there.
        metric: Ludwig's name of the validation metric, with its `goal`.
        seed: Of weights and shuffling.
        cpus: Cores of a trial.
        command: The command line; `commit` the git commit, for the record.
        board: Ray actor that knows the best value of all finished trials, or None: nothing is measured.
        tracking: Where Weights & Biases goes.
    """

    sweep: str
    space: Space
    dataset: Dataset
    metric: str
    goal: Goal
    seed: int
    cpus: float
    command: tuple[str, ...]
    commit: str | None
    board: Any = None
    tracking: TrackingMode = TrackingMode.DISABLED

    @property
    def worst(self) -> float:
        """What a failed trial reports, worse than any other: searches and schedulers take no NaN."""
        return 0.0 if self.goal == "maximize" else 1e30

    def better(self, one: float, other: float | None) -> bool:
        """Whether a value beats another, or the lack of one."""
        return other is None or (one > other if self.goal == "maximize" else one < other)

    def point(self, drawn: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Parameters and seed of what Ray Tune handed out."""
        stated = drawn.get(POINT)
        if stated is not None:
            return stated["parameters"], stated["seed"]
        return self.space.decode(drawn), self.seed


def run_trial(drawn: dict[str, Any], *, task: Task, pixels: NDArray[np.uint8]) -> None:
    """Ray Tune's trainable.

    Args:
        drawn: What Ray Tune handed out.
        task: What all trials have in common.
        pixels: uint8 [N, size, size], the images of the data set's rows as they are stored.
    """
    name = tune.get_context().get_trial_name()
    run_name = f"{task.sweep}-{name}"
    with _folder(run_name) as folder:
        run = Run(folder)
        reporter = _TrialReporter(task, run)
        try:
            parameters, seed = task.point(drawn)
            experiment = task.space.experiment(parameters)
            info = _begin(run, experiment, task, seed)
            if info.status is not Status.DONE:  # done, and killed before the driver heard of it
                _train(run, info, experiment, task, pixels, reporter, parameters)
        except PneumoError as error:
            reporter.failure(str(error))
            return
        except (MemoryError, OSError) as error:
            reporter.failure(f"{type(error).__name__}: {error}")
            return
        reporter.end()


def _train(
    run: Run,
    info: RunInfo,
    experiment: Experiment,
    task: Task,
    pixels: NDArray[np.uint8],
    reporter: "_TrialReporter",
    parameters: dict[str, Any],
) -> None:
    _use_threads(task.cpus)
    preparation = Preparation.model_validate(info.preparation)
    hooks = Hooks(
        reporter=reporter,
        frame=lambda: _frame(task.dataset, pixels, preparation, experiment),
        measures=lambda: reporter.best is not None and _is_best(task, reporter.best),
        tracking=task.tracking,
        group=task.sweep,
        parameters=parameters,
    )
    with run.locked():
        run.save(info)
        execute_run(run, info, experiment, task.dataset, hooks)


def _is_best(task: Task, value: float) -> bool:
    if task.board is None:
        return False
    try:
        return bool(ray.get(task.board.beats.remote(value), timeout=30))
    except ray.exceptions.RayError:
        return False  # the driver measures what it needs


def _begin(run: Run, experiment: Experiment, task: Task, seed: int) -> RunInfo:
    """Make the run folder: from the trial's checkpoint where it has one."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        checkpoint.to_directory(run.folder)
        before = run.info()
        if before.status is Status.DONE:
            return before
        checkpoints.restore_checkpoint(run)
    run.config.write_text(experiment.to_yaml(), encoding="utf-8")
    return describe_run(run, experiment, task.dataset, seed=seed, command=task.command, commit=task.commit)


class _TrialReporter(Reporter):
    """Reports a trial to Ray Tune."""

    def __init__(self, task: Task, run: Run) -> None:
        super().__init__()
        self.task = task
        self.run = run
        self.session = uuid.uuid4().hex[:8]
        self.began = time.perf_counter()
        self.best: float | None = None
        self.last: dict[str, Any] = {"epoch": 0, "step": 0, "training": 0.0}

    def round(self, entry: dict[str, Any], seconds: float) -> None:
        """Report an evaluation round, with the run as it stands."""
        measured = entry["validation"]
        value = measured.get(self.task.metric)
        if value is None or not math.isfinite(value) or "loss" not in measured:
            raise DivergedError(
                f"diverged: {self.task.metric} or loss is not a finite number at epoch {entry['epoch']}"
            )
        if self.best is None:
            self.best = _best_before(self.run, entry, self.task)
        if self.task.better(value, self.best):
            self.best = value
        self.last = {"epoch": entry["epoch"], "step": entry["step"], "training": seconds}
        with _snapshot(self.run) as folder:
            self._report({"round_value": value}, tune.Checkpoint.from_directory(folder))

    def failure(self, reason: str) -> None:
        """Report why the trial ends without a result."""
        tune.report(self._facts() | {VALUE: self.task.worst, "error": reason.splitlines()[0][:300]})

    def end(self) -> None:
        """Report that the trial ran to its end, with the finished run."""
        if self.best is None:
            self.best = _best_before(self.run, None, self.task)
        with _snapshot(self.run) as folder:
            self._report({"finished": True}, tune.Checkpoint.from_directory(folder))

    def _report(self, told: dict[str, Any], checkpoint: Any) -> None:
        tune.report(self._facts() | {VALUE: self.best} | told, checkpoint=checkpoint)

    def _facts(self) -> dict[str, Any]:
        return self.last | {
            "run": self.run.name,
            "session": self.session,
            "work": time.perf_counter() - self.began,
            "pid": os.getpid(),
        }


def _best_before(run: Run, entry: dict[str, Any] | None, task: Task) -> float | None:
    """The best value of the rounds that a resumed run had behind it."""
    best: float | None = None
    for known in json.loads(run.history.read_text(encoding="utf-8")) if run.history.is_file() else []:
        value = known["validation"].get(task.metric)
        earlier = entry is None or known["step"] < entry["step"]
        if earlier and value is not None and task.better(value, best):
            best = value
    return best


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """A folder for the run inside Ray's own, which goes with it; beside what Ray Tune copies to the storage."""
    trial = Path(tune.get_context().get_trial_dir())
    folder = trial.parent.parent / "runs" / trial.name / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)


@contextmanager
def _snapshot(run: Run) -> Iterator[str]:
    """The run folder as it stands, for Ray to copy, without what only this process needs."""
    folder = run.folder.parent / "snapshot"
    shutil.rmtree(folder, ignore_errors=True)
    skip = shutil.ignore_patterns(".lock", ".scratch", "training_checkpoints", "llm_eval_examples")
    shutil.copytree(run.folder, folder, ignore=_all_but_checkpoints(skip), copy_function=os.link)
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _all_but_checkpoints(skip: Any) -> Any:
    """Leave out `training_checkpoints` in `model/`, which Ludwig rewrites, and keep those that are whole."""

    def ignore(folder: str, names: list[str]) -> set[str]:
        found: set[str] = skip(folder, names)
        return found - {"training_checkpoints"} if checkpoints.FOLDER in Path(folder).parts else found

    return ignore


_prepared: dict[tuple[Any, ...], list[NDArray[np.uint8]]] = {}
"""Images at the last size that a trial of this process needed."""


def _frame(
    dataset: Dataset, pixels: NDArray[np.uint8], preparation: Preparation, experiment: Experiment
) -> "pd.DataFrame":
    key = (dataset.info.fingerprint, preparation.height, preparation.width, preparation.channels)
    if key not in _prepared:
        _prepared.clear()
        gray = (image.resize(each, preparation.height, preparation.width) for each in pixels)
        _prepared[key] = [np.repeat(each[:, :, None], preparation.channels, axis=2) for each in gray]
    return ludwig_frame(dataset.rows, _prepared[key], image=experiment.image, label=experiment.label)


def _use_threads(cpus: float) -> None:
    runtime.load_ludwig()
    import torch

    torch.set_num_threads(max(1, int(cpus)))
