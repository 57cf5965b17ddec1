"""The record of a sweep: `sweep.json` in its folder, written after every event, so that a kill loses nothing."""

import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.runs.folders import FileIn, RecordFolder
from pneumo.pipeline.runs.history import name_metric
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel

SWEEPS = Path("sweeps")
Goal = Literal["minimize", "maximize"]


class TrialStatus(StrEnum):
    """State of a trial."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    """All its epochs are done."""
    STOPPED = "stopped"
    """The scheduler, the time budget or the user ended it early; its rounds count."""
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """True if the trial does not run again."""
        return self not in (TrialStatus.WAITING, TrialStatus.RUNNING)


class Round(FrozenModel):
    """One evaluation round of a trial.

    Attributes:
        value: The sweep's metric on the validation split.
        seconds: Working time of the trial so far, without time in the queue.
        at: Wall time since the sweep began, in seconds.
    """

    epoch: int
    step: int
    value: float
    seconds: float
    at: float


class Trial(BaseModel):
    """One set of parameters, trained once.

    Attributes:
        name: `t01`, `t02`, ... in the order in which Ray Tune made the trials.
        parameters: Values by name, as under `hyperopt.parameters`.
        repeats: Name of the trial whose parameters this trial repeats with another seed.
        stage: Ray Tune's experiment that made it.
        started: Wall time at which the trial began, in seconds since the sweep began.
        training: Working time in epochs alone, without loading, predicting and measuring.
        run: Run folder relative to the sweep's folder, or an address in the storage.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    id: str = ""
    parameters: dict[str, Any]
    seed: int
    repeats: str | None = None
    stage: str = "trials"
    status: TrialStatus = TrialStatus.WAITING
    started: float | None = None
    rounds: list[Round] = []
    seconds: float = 0.0
    training: float = 0.0
    error: str | None = None
    run: str | None = None

    @property
    def epochs(self) -> int:
        """Number of epochs done."""
        return self.rounds[-1].epoch if self.rounds else 0

    def best_round(self, goal: Goal) -> Round | None:
        """Return the round with the best finite value, whose weights the trial keeps; None before the first."""
        finite = [each for each in self.rounds if math.isfinite(each.value)]
        return (max if goal == "maximize" else min)(finite, key=lambda each: each.value, default=None)

    def value(self, goal: Goal) -> float | None:
        """Return the best finite value so far, or None before the first."""
        best = self.best_round(goal)
        return None if best is None else best.value


class Sweep(BaseModel):
    """Content of `sweep.json`.

    Attributes:
        metric: Metric on the validation split that is optimised towards `goal`, by Ludwig's name.
        label_type: Type of the label in Ludwig, `binary` or `category`.
        wanted: Requested number of trials, without repeats; `added` are those that each extension added.
        epochs: Epochs of a trial that nothing stops early.
        seeds: Number of seeds of each of the `top` best trials; `seed` is the first of them.
        cpus: Cores per trial; `gpus` is the number of GPUs.
        address: Ray cluster that was joined, or None for a cluster on this machine.
        storage: Path or address where Ray Tune keeps the trials, or None for the sweep's folder.
        seconds: Wall time of all sessions.
        winner: Name of the best trial, among repeats the one with the best seed; None before the first round.
    """

    model_config = ConfigDict(extra="ignore")  # of options that are no more

    name: str
    command: list[str]
    config: str
    data: str
    data_fingerprint: str
    metric: str
    label_type: str = "binary"
    goal: Goal
    space: dict[str, Any]
    search: str
    scheduler: str
    wanted: int
    added: list[int] = []
    epochs: int
    time_budget: float | None = None
    seed: int
    seeds: int = 1
    top: int = 0
    cpus: float
    gpus: float
    concurrency: int
    address: str | None = None
    storage: str | None = None
    tracking: str = ""
    started: datetime
    seconds: float = 0.0
    status: Literal["running", "done", "interrupted", "failed"] = "running"
    error: str | None = None
    trials: list[Trial] = []
    winner: str | None = None

    @property
    def metric_name(self) -> str:
        """Full name of the metric, such as `validation/auroc`."""
        return f"validation/{name_metric(self.metric, self.label_type)}"

    @property
    def sign(self) -> int:
        """1 if larger values are better, -1 if smaller ones are."""
        return 1 if self.goal == "maximize" else -1

    def trial(self, name: str | None) -> Trial | None:
        """Return a trial by name, or None."""
        return next((each for each in self.trials if each.name == name), None)

    def ranked(self) -> list[Trial]:
        """Return the trials that are no repeats and finished a round, the best first."""
        pairs = [(trial.value(self.goal), trial) for trial in self.trials if trial.repeats is None]
        scored = [(value, trial) for value, trial in pairs if value is not None]
        return [trial for _, trial in sorted(scored, key=lambda pair: -self.sign * pair[0])]

    def count_trials(self, status: TrialStatus) -> int:
        """Return the number of trials in a state."""
        return sum(trial.status == status for trial in self.trials)


@dataclass(frozen=True)
class SweepFolder(RecordFolder):
    """A sweep's folder: `sweep.json`, `config.yaml`, `runs/`; at the end `best.yaml`, `trials.csv`, `sweep.html`."""

    RECORD = "sweep.json"
    KIND = "sweep"
    COMMAND = "pneumo sweep CONFIG"
    ROOT = SWEEPS

    runs = FileIn("runs")
    """Parent of the trials' run folders."""
    tune = FileIn("tune")
    """Ray Tune's files, which a resume needs."""
    best = FileIn("best.yaml")
    """The complete config of the winner, YAML."""
    table = FileIn("trials.csv")
    """The table of all trials, CSV."""
    report = FileIn("sweep.html")
    """The report, HTML."""

    def read(self) -> Sweep:
        """Read `sweep.json`; raise an InputError if it is missing or damaged."""
        return self.read_record(Sweep)

    def read_dataset(self) -> Dataset:
        """Read the sweep's data set; raise an InputError if it is missing, damaged, or changed since."""
        sweep = self.read()
        dataset = manifest.read_dataset(Path(sweep.data))
        if dataset.info.fingerprint != sweep.data_fingerprint:
            raise InputError(f"{sweep.data}: changed since {self.name} began; start a new sweep")
        return dataset

    def save(self, sweep: Sweep) -> None:
        """Write `sweep.json` atomically."""
        write_text(self.record_file, sweep.model_dump_json(indent=1) + "\n")

    def run_of(self, trial: Trial) -> Run | None:
        """Return the run of a trial, or None if it has none on this machine."""
        run = Run(self.folder / trial.run) if trial.run and "://" not in trial.run else None
        return run if run and run.record_file.is_file() else None
