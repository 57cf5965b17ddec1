"""Run folders: one per training, complete by itself.

`config.yaml` as resolved, `run.json`, `model/` (Ludwig's own), `metrics.json`, `predictions.parquet`, `report.html`,
`train.log`, and `history.json` (one entry per evaluation round, for the learning curves).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pneumo.pipeline.runs.folders import FileIn, RecordFolder
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel

RUNS = Path("runs")


class Status(StrEnum):
    """Status of a run."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Fold(FrozenModel):
    """The part of a data set that a run of a cross-validation is tested on (`pneumo.pipeline.data.folds`).

    Attributes:
        number: Number of the fold, from 1 to `folds`.
        repeat: Number of the repeat, from 1.
        seed: Seed of the division into folds.
    """

    number: int = Field(ge=1)
    folds: int = Field(ge=2)
    repeat: int = Field(default=1, ge=1)
    seed: int


class RunInfo(BaseModel):
    """`run.json`: provenance and status of a run.

    Attributes:
        config: Name of the config file.
        data: Folder of the data set, absolute.
        classes: Class names; the index of a class is its column in `logits`.
        positive: The positive class; None with more than two classes.
        preparation: Preparation of the images: `size`, `fit`, `decode`, `height`, `width`, `channels`.
        image: Name of the image feature and its column; `label` is that of the label feature.
        remarks: What was completed, changed or ignored in the config, with the place of each.
        fit_on: Images that the decisions are fitted to, as the config says: `validation` or `shifts`.
        fold: For a run of a cross-validation, the part of the data set that is its test split.
        members: For an ensemble of a cross-validation's folds, names of their run folders beside it; its `fold` is that
            of the first.
        versions: Versions of Python and of the packages that can change a result.
        git_commit: Commit of the working directory, with `-dirty` if files differ; None outside git.
        hardware: Processor, cores, memory in GiB, accelerators.
        durations: Seconds per stage.
        status: Status; `error` is the reason of a failure, in one line.
    """

    model_config = ConfigDict(extra="ignore")  # of options that are no more

    name: str
    command: list[str]
    config: str
    data: str
    data_fingerprint: str
    classes: list[str]
    positive: str | None
    preparation: dict[str, Any]
    image: str
    label: str
    remarks: list[str] = []
    seed: int
    fit_on: str = "validation"
    fold: Fold | None = None
    members: list[str] = []
    versions: dict[str, str]
    git_commit: str | None
    hardware: dict[str, Any]
    durations: dict[str, float] = {}
    started: datetime
    status: Status = Status.RUNNING
    pid: int
    error: str | None = None


@dataclass(frozen=True)
class Run(RecordFolder):
    """A run folder."""

    RECORD = "run.json"
    KIND = "run"
    COMMAND = "pneumo train CONFIG"
    ROOT = RUNS

    model = FileIn("model")
    """Ludwig's model folder."""
    metrics = FileIn("metrics.json")
    """Metrics with intervals, JSON."""
    history = FileIn("history.json")
    """Learning curves, JSON."""
    predictions = FileIn("predictions.parquet")
    """Predictions of every split, Parquet."""
    report = FileIn("report.html")
    """The report, HTML."""
    log = FileIn("train.log")
    """Ludwig's messages."""

    def info(self) -> RunInfo:
        """Read `run.json`; raise `InputError` if it is missing or damaged."""
        return self.read_record(RunInfo)

    def save(self, info: RunInfo) -> None:
        """Write `run.json` atomically."""
        write_text(self.record_file, info.model_dump_json(indent=2) + "\n")

    def is_done(self) -> bool:
        """Return whether the run exists and is done."""
        return self.record_file.is_file() and self.info().status is Status.DONE

    def list_members(self) -> "list[Run]":
        """Return the runs whose networks this run joins; itself if it was trained."""
        return [Run(self.folder.parent / name) for name in self.info().members] or [self]

    def is_locked(self) -> bool:
        """Return whether a process trains it now."""
        try:
            with self.locked():
                return False
        except InputError:
            return True
        except OSError:  # a read-only folder: nothing trains in it
            return False
