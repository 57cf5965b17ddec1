"""One trial in a Ray worker: a run like any other, whose evaluation rounds are reported to Ray Tune.

A worker process runs one trial after the other, so that Ludwig is loaded and images are prepared once. The checkpoint
that Ray Tune keeps of a trial is its whole run folder, so that any machine can resume it. A trial that fails for its
own reason (diverged, out of memory, impossible config) reports that reason instead of raising: after an exception, Ray
Tune would end the worker and retry. Only a trial whose worker dies is retried.
"""

import math
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import ray
from numpy.typing import NDArray
from ray import tune

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.data.training_images import ludwig_frame
from pneumo.pipeline.ludwig import checkpoints, runtime
from pneumo.pipeline.runs.history import read_history
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.pipeline.runs.run import Run, RunInfo, Status
from pneumo.pipeline.sweep.best_value_actor import BestValue
from pneumo.pipeline.sweep.record import Sweep
from pneumo.pipeline.sweep.space import Space
from pneumo.pipeline.training.hooks import Hooks
from pneumo.pipeline.training.run import describe_run, execute_run
from pneumo.serving.contracts.errors import PneumoError, first_line
from pneumo.serving.images import preparation as image
from pneumo.serving.images.preparation import Preparation

if TYPE_CHECKING:
    import pandas as pd
    from ray.actor import ActorHandle

VALUE = "value"
"""Key of the best value so far in a report to Ray Tune."""
POINT = "point"
"""Key of a fixed point, `{"parameters": ..., "seed": ...}`, in Ray Tune's config; without it, the config was drawn."""


class Report(TypedDict, total=False):
    """A trial's report to Ray Tune, after a round (with `round_value`), a failure (`error`) or the end (`finished`).

    `work` and `training` are the seconds of this attempt, whose ID is `session`.
    """

    value: float | None
    round_value: float
    error: str
    finished: bool
    epoch: int
    step: int
    training: float
    run: str
    session: str
    work: float


class DivergedError(PneumoError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class Task:
    """The settings that all trials of a sweep share.

    Attributes:
        sweep: The record at the start of the session.
        dataset: Training data; its folder need not exist on the worker.
        board: Actor that keeps the best value of all finished trials, or None: then no trial is measured.
    """

    sweep: Sweep
    space: Space
    dataset: Dataset
    commit: str | None
    board: "ActorHandle[BestValue] | None" = None
    tracking: str = ""

    def best(self, one: float | None, other: float | None) -> float | None:
        """Return the better of two values; None stands for no value."""
        values = [value for value in (one, other) if value is not None]
        return (max if self.sweep.goal == "maximize" else min)(values, default=None)

    def point(self, drawn: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """Return the parameters and the seed of a config from Ray Tune."""
        if (fixed := drawn.get(POINT)) is not None:
            return fixed["parameters"], fixed["seed"]
        return self.space.decode(drawn), self.sweep.seed


def run_trial(drawn: dict[str, Any], *, task: Task, pixels: NDArray[np.uint8]) -> None:
    """Run one trial of Ray Tune's config `drawn` on the stored images [N, size, size]; Ray Tune's trainable."""
    with _run_folder(f"{task.sweep.name}-{tune.get_context().get_trial_name()}") as folder:
        reporter = _TrialReporter(task, Run(folder))
        try:
            parameters, seed = task.point(drawn)
            experiment = task.space.experiment(parameters).complete(task.dataset)
            info = _begin(reporter.run, experiment, task, seed)
            if info.status is not Status.DONE:  # DONE: killed between the end and the report of it
                _train(info, experiment, reporter, pixels, parameters)
        except (PneumoError, MemoryError, OSError) as error:
            reporter.failure(error)
        else:
            reporter.end()


def _begin(run: Run, experiment: Experiment, task: Task, seed: int) -> RunInfo:
    """Fill the run folder, from the trial's checkpoint if it has one."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        checkpoint.to_directory(run.folder)
        before = run.info()
        if before.status is Status.DONE:
            return before
        checkpoints.restore_checkpoint(run)
    run.config.write_text(experiment.to_yaml(), encoding="utf-8")
    return describe_run(run, experiment, task.dataset, seed=seed, command=task.sweep.command, commit=task.commit)


def _train(
    info: RunInfo,
    experiment: Experiment,
    reporter: "_TrialReporter",
    pixels: NDArray[np.uint8],
    parameters: Mapping[str, Any],
) -> None:
    runtime.load_ludwig()
    import torch

    task, run = reporter.task, reporter.run
    torch.set_num_threads(max(1, int(task.sweep.cpus)))
    preparation = Preparation.model_validate(info.preparation)
    places = {row.image: place for place, row in enumerate(task.dataset.rows)}
    hooks = Hooks(
        reporter=reporter,
        frame=lambda: _frame(task.dataset, pixels, preparation, experiment),
        stored=lambda rows: [pixels[places[row.image]] for row in rows],
        measures=reporter.is_best_trial,
        tracking=task.tracking,
        group=task.sweep.name,
        parameters=parameters,
    )
    with run.locked():
        run.save(info)
        execute_run(run, info, experiment, task.dataset, hooks)


class _TrialReporter(Reporter):
    """Reports a trial to Ray Tune."""

    def __init__(self, task: Task, run: Run) -> None:
        super().__init__()
        self.task = task
        self.run = run
        self.metric = task.sweep.metric_name.removeprefix("validation/")
        self.session = uuid.uuid4().hex[:8]
        self.began = time.perf_counter()
        self.best: float | None = None
        self.last = Report(epoch=0, step=0, training=0.0)

    def round(self, entry: dict[str, Any], seconds: float) -> None:
        measured = entry["validation"]
        value = measured.get(self.metric)
        if value is None or not math.isfinite(value) or "loss" not in measured:
            raise DivergedError(f"diverged: {self.metric} or loss is not a finite number at epoch {entry['epoch']}")
        self.best = self.task.best(value, self.best if self.best is not None else self._best_before(entry["step"]))
        self.last = Report(epoch=entry["epoch"], step=entry["step"], training=seconds)
        self._report(Report(round_value=value))

    def failure(self, error: BaseException) -> None:
        kind = "" if isinstance(error, PneumoError) else f"{type(error).__name__}: "
        worst = 0.0 if self.task.sweep.goal == "maximize" else 1e30  # searches and schedulers accept no NaN
        tune.report({**self._facts(), VALUE: worst, "error": kind + first_line(error, 300)})

    def end(self) -> None:
        if self.best is None:
            self.best = self._best_before(math.inf)
        self._report(Report(finished=True))

    def is_best_trial(self) -> bool:
        """Return True if the trial's best value beats those of all finished trials; False if that is unknown."""
        if self.best is None or self.task.board is None:
            return False
        try:
            return bool(ray.get(self.task.board.beats.remote(self.best), timeout=30))
        except ray.exceptions.RayError:
            return False  # the driver measures the winner itself

    def _report(self, event: Report) -> None:
        with _snapshot(self.run) as folder:
            tune.report({**self._facts(), VALUE: self.best, **event}, checkpoint=tune.Checkpoint.from_directory(folder))

    def _facts(self) -> Report:
        work = time.perf_counter() - self.began
        return {**self.last, "run": self.run.name, "session": self.session, "work": work}

    def _best_before(self, step: float) -> float | None:
        """Return the best value of a resumed run's rounds before a step."""
        best: float | None = None
        for entry in read_history(self.run):
            if entry["step"] < step:
                best = self.task.best(entry["validation"].get(self.metric), best)
        return best


@contextmanager
def _run_folder(name: str) -> Iterator[Path]:
    """Make a run folder inside Ray's session folder, beside the folder that Ray Tune copies to the storage."""
    trial = Path(tune.get_context().get_trial_dir())
    parent = trial.parent.parent / "runs" / trial.name
    shutil.rmtree(parent, ignore_errors=True)
    (parent / name).mkdir(parents=True)
    try:
        yield parent / name
    finally:
        shutil.rmtree(parent, ignore_errors=True)


@contextmanager
def _snapshot(run: Run) -> Iterator[str]:
    """Link the run folder's files into a folder for Ray to copy, without those that only this process needs."""
    folder = run.folder.parent / "snapshot"
    shutil.rmtree(folder, ignore_errors=True)
    skip = shutil.ignore_patterns(".lock", ".scratch", "training_checkpoints", "llm_eval_examples")

    def ignore(parent: str, names: list[str]) -> set[str]:
        """Skip `training_checkpoints` in `model/`, which Ludwig rewrites; keep it in complete checkpoints."""
        complete = checkpoints.FOLDER in Path(parent).parts
        return skip(parent, names) - ({"training_checkpoints"} if complete else set())

    shutil.copytree(run.folder, folder, ignore=ignore, copy_function=os.link)
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_prepared: dict[tuple[str | int, ...], list[NDArray[np.uint8]]] = {}
"""Images at the size of this process's latest trial."""


def _frame(
    dataset: Dataset, pixels: NDArray[np.uint8], preparation: Preparation, experiment: Experiment
) -> "pd.DataFrame":
    key = (dataset.info.fingerprint, preparation.height, preparation.width, preparation.channels)
    if key not in _prepared:
        _prepared.clear()
        gray = (image.resize(each, preparation.height, preparation.width) for each in pixels)
        _prepared[key] = [np.repeat(each[:, :, None], preparation.channels, axis=2) for each in gray]
    return ludwig_frame(dataset.rows, _prepared[key], image=experiment.image, label=experiment.label)
