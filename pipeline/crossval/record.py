"""The record of a cross-validation: `crossval.json` in its folder, written after every fold."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pneumo.pipeline.evaluation.results import Bootstrap, SplitResult
from pneumo.pipeline.runs.folders import FileIn, RecordFolder
from pneumo.pipeline.runs.run import RUNS, Fold, Run, Status
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel

CROSSVALS = Path("crossvals")


class FoldRun(FrozenModel):
    """The finished run of a fold: its folder, relative to the cross-validation's, and its metrics on the fold."""

    run: str
    fold: int
    repeat: int
    seed: int
    images: int
    patients: int
    metrics: dict[str, float]


class Spread(FrozenModel):
    """How much a metric differs between the folds of all repeats.

    Folds share training images, so that their standard deviation makes no interval.
    """

    mean: float
    deviation: float
    low: float
    high: float


class Crossval(BaseModel):
    """Content of `crossval.json`.

    Attributes:
        config: Name of the config file.
        data: Folder of the data set, absolute.
        classes: Class names in the order of the columns of `logits` in `predictions.parquet`; empty before the end.
        seed: Seed of the first repeat: of its folds, of weights and shuffling. Each further repeat has the next one.
        seconds: Wall time of all sessions.
        runs: The finished folds, in order.
        pooled: Metrics of all out-of-fold predictions, each under the decisions of its fold's run; an image counts once
            per repeat, and patients are resampled. None before the end.
        spread: Spread of each metric over the folds.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    name: str
    command: list[str]
    config: str
    data: str
    data_fingerprint: str
    classes: list[str] = []
    positive: str | None
    folds: int
    repeats: int
    seed: int
    tracking: str = ""
    git_commit: str | None = None
    started: datetime
    status: Status = Status.RUNNING
    error: str | None = None
    seconds: float = 0.0
    runs: list[FoldRun] = []
    bootstrap: Bootstrap = Bootstrap()
    pooled: SplitResult | None = None
    spread: dict[str, Spread] = {}

    def list_folds(self) -> Iterator[Fold]:
        """Yield the folds of all repeats, in the order of their training."""
        for repeat in range(1, self.repeats + 1):
            for number in range(1, self.folds + 1):
                yield Fold(number=number, folds=self.folds, repeat=repeat, seed=self.seed + repeat - 1)


@dataclass(frozen=True)
class CrossvalFolder(RecordFolder):
    """A cross-validation's folder: `crossval.json`, `config.yaml`, `runs/`; at the end `predictions.parquet`."""

    RECORD = "crossval.json"
    KIND = "cross-validation"
    COMMAND = "pneumo crossval CONFIG"
    ROOT = CROSSVALS

    runs = FileIn("runs")
    """Parent of the folds' run folders."""
    predictions = FileIn("predictions.parquet")
    """Out-of-fold predictions, Parquet: a run's columns with `fold` and `repeat`, a row per image and repeat."""

    def read(self) -> Crossval:
        """Read `crossval.json`; raise an `InputError` if it is missing or damaged."""
        return self.read_record(Crossval)

    def save(self, record: Crossval) -> None:
        """Write `crossval.json` atomically."""
        write_text(self.record_file, record.model_dump_json(indent=1) + "\n")

    def find_run(self, fold: Fold) -> Run | None:
        """Return the run of a fold, finished or not; None before it began."""
        runs = ((run, run.info()) for run in Run.list_folders(self.runs))
        return next((run for run, info in runs if info.fold == fold and not info.members), None)

    def list_runs(self) -> dict[Fold, Run]:
        """Return the finished runs by fold, in order."""
        pairs = [(fold, self.find_run(fold)) for fold in self.read().list_folds()]
        return {fold: run for fold, run in pairs if run and run.is_done()}


def open_predictions(name: str, *, runs: Path = RUNS, crossvals: Path = CROSSVALS) -> Run | CrossvalFolder:
    """Find a run or a cross-validation as `RecordFolder.open` does; `latest` is the newer one of both.

    Raises:
        InputError: There is no such run or cross-validation, or several names start with this.
    """
    found: list[Run | CrossvalFolder] = []
    refused = []
    for kind, root in ((Run, runs), (CrossvalFolder, crossvals)):
        try:
            found.append(kind.open(name, root=root))
        except InputError as error:
            refused.append(str(error))
    if not found:
        others = refused[1:] if CrossvalFolder.list_folders(crossvals) else []
        raise InputError("; ".join([refused[0], *(text.removeprefix(f"{name}: ") for text in others)]))
    if name == "latest":
        return max(found, key=lambda folder: folder.name)  # names begin with the time
    exact = [folder for folder in found if folder.name == Path(name).name]
    if len(found) > 1 and len(exact) != 1:
        raise InputError(f"{name}: a run and a cross-validation start with this; give more letters")
    return (exact or found)[0]
