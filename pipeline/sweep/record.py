"""What a sweep did: `sweep.json` in its folder, written after every event, so that nothing is lost however it ends."""

import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pneumo.pipeline.runs.folders import RecordFolder
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel

SWEEPS = Path("sweeps")


class TrialStatus(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    """It ran to its end."""
    STOPPED = "stopped"
    """The scheduler, the time budget or the person ended it early; its rounds count."""
    FAILED = "failed"


class Round(FrozenModel):
    """One evaluation round of a trial.

    Attributes:
        epoch: Epochs done; `step` steps done.
        value: The sweep's metric on the validation split.
        seconds: Since the trial began to work, without what it waited.
        at: Seconds since the sweep began, as a clock on the wall tells.
    """

    epoch: int
    step: int
    value: float
    seconds: float
    at: float


class Trial(BaseModel):
    """One set of parameters, trained once.

    Attributes:
        name: `t01`, `t02`, ... in the order of their beginning.
        id: Ray Tune's name of it.
        parameters: Values by the names that stand under `hyperopt.parameters`.
        seed: Of weights and shuffling.
        repeats: The trial whose parameters this one repeats with another seed.
        started: Seconds from the sweep's beginning to this trial's.
        rounds: Evaluation rounds in order.
        seconds: Of work in all; `training` those of epochs alone, without loading, predicting and measuring.
        error: Why it failed, in a line.
        run: Its run folder, relative to the sweep's folder, or an address in the storage.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    id: str = ""
    parameters: dict[str, Any]
    seed: int
    repeats: str | None = None
    status: TrialStatus = TrialStatus.WAITING
    started: float | None = None
    rounds: list[Round] = []
    seconds: float = 0.0
    training: float = 0.0
    error: str | None = None
    run: str | None = None

    def best_round(self, goal: "Goal") -> Round | None:
        """The round that the trial's weights are from, or None before the first."""
        sign = 1 if goal == "maximize" else -1
        known = [each for each in self.rounds if math.isfinite(each.value)]
        return max(known, key=lambda each: sign * each.value, default=None)

    def value(self, goal: "Goal") -> float | None:
        """The best value so far."""
        best = self.best_round(goal)
        return None if best is None else best.value


Goal = Literal["minimize", "maximize"]


class Sweep(BaseModel):
    """`sweep.json`.

    Attributes:
        name: The folder's name.
        command: The command line that made it.
        config: Name of the config file.
        data: Folder of the data set, absolute, with its `data_fingerprint`.
        metric: What is optimised, on the validation split, towards `goal`.
        space: `hyperopt.parameters` as in the config.
        search: Name of the search algorithm; `scheduler` of the scheduler.
        wanted: Trials asked for, without repetitions; `epochs` of one that is not stopped.
        time_budget: Seconds, or None.
        seed: First seed; `seeds` repetitions in all of the `top` best trials.
        refit: Whether the winner is to be trained again on training and validation images.
        cpus: Cores of a trial; `gpus` GPUs; `concurrency` trials at a time at most.
        address: Ray cluster that was joined; `storage` where its trials are kept, both None on this machine.
        tracking: W&B mode.
        started: When it began, again after a resume; `seconds` all of its wall time before that.
        status: Where it stands.
        trials: In the order of their beginning.
        winner: Name of the best trial, of the seed that did best; None before one finished a round.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    command: list[str]
    config: str
    data: str
    data_fingerprint: str
    metric: str
    goal: Goal
    space: dict[str, Any]
    search: str
    scheduler: str
    wanted: int
    epochs: int
    time_budget: float | None = None
    seed: int
    seeds: int = 1
    top: int = 0
    refit: bool = False
    cpus: float
    gpus: float
    concurrency: int
    address: str | None = None
    storage: str | None = None
    tracking: str = "disabled"
    started: datetime
    seconds: float = 0.0
    status: Literal["running", "done", "interrupted", "failed"] = "running"
    error: str | None = None
    trials: list[Trial] = []
    winner: str | None = None

    def trial(self, name: str) -> Trial | None:
        """A trial by name."""
        return next((each for each in self.trials if each.name == name), None)

    def ranked(self) -> list[Trial]:
        """First trials (no repetitions) that finished a round, the best first."""
        sign = -1 if self.goal == "maximize" else 1
        found = [(each.value(self.goal), each) for each in self.trials if each.repeats is None]
        known = [(value, each) for value, each in found if value is not None and math.isfinite(value)]
        return [each for _, each in sorted(known, key=lambda pair: sign * pair[0])]

    def family(self, trial: Trial) -> list[Trial]:
        """A first trial and its repetitions with other seeds that have a value."""
        return [
            each
            for each in self.trials
            if trial.name in (each.name, each.repeats) and each.value(self.goal) is not None
        ]


@dataclass(frozen=True)
class SweepFolder(RecordFolder):
    """A sweep's folder: `sweep.json`, `config.yaml`, `runs/`; at the end `best.yaml`, `trials.csv`, `sweep.html`."""

    RECORD = "sweep.json"
    KIND = "sweep"
    COMMAND = "pneumo sweep CONFIG"
    ROOT = SWEEPS

    @property
    def runs(self) -> Path:
        """Run folders of the trials."""
        return self.folder / "runs"

    @property
    def tune(self) -> Path:
        """Ray Tune's own files, which a resume needs."""
        return self.folder / "tune"

    @property
    def best(self) -> Path:
        """The winner's config, complete."""
        return self.folder / "best.yaml"

    @property
    def table(self) -> Path:
        """All trials, CSV."""
        return self.folder / "trials.csv"

    @property
    def report(self) -> Path:
        """The report, HTML."""
        return self.folder / "sweep.html"

    def read(self) -> Sweep:
        """Read `sweep.json`.

        Raises:
            InputError: It is missing or damaged.
        """
        return self.read_record(Sweep)

    def save(self, sweep: Sweep) -> None:
        """Write `sweep.json` atomically."""
        write_text(self.record_file, sweep.model_dump_json(indent=1) + "\n")

    def refit_run(self, winner: str) -> Run:
        """Return the run that the refit of a winner is written to; it need not exist."""
        return Run(self.runs / f"{winner}-refit")

    def run_of(self, trial: Trial) -> Run | None:
        """The run of a trial, where it has one here."""
        run = Run(self.folder / trial.run) if trial.run and "://" not in trial.run else None
        return run if run and run.record_file.is_file() else None
