"""Run folders: one per training, complete by themselves.

`config.yaml` as resolved, `run.json`, `model/` (Ludwig's own), `metrics.json`, `predictions.parquet`, `report.html`,
`train.log`, and `history.json` (one entry an evaluation round, for the learning curves).
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.files import open_locked, write_text

RUNS = Path("runs")


class Status(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class RunInfo(BaseModel):
    """`run.json`: where a run came from and how it went.

    Attributes:
        name: The run's folder name.
        command: The command line that made it.
        config: Name of the config file.
        data: Folder of the data set, absolute.
        data_fingerprint: Fingerprint of the data set.
        classes: Class names; the index of a class is its column in `logits`.
        positive: The class whose probability is reported, or None with more than two classes.
        preparation: How the model takes its images: `size`, `fit`, `decode`, `height`, `width`, `channels`.
        image: Name of the image feature, which is its column; `label` of the label feature.
        seed: Seed of weights and shuffling.
        refit_of: The run whose config, seed and decisions this one has, trained on its validation images too.
        versions: Of Python and the packages that matter.
        git_commit: Commit of the working directory, or None; with `-dirty` where files differ.
        hardware: Processor, cores, memory in GiB, accelerators.
        durations: Seconds by stage.
        status: Where it stands; `error` says in a line why it failed.
    """

    model_config = ConfigDict(extra="forbid")

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
    seed: int
    refit_of: str | None = None
    versions: dict[str, str]
    git_commit: str | None
    hardware: dict[str, Any]
    durations: dict[str, float] = {}
    started: datetime
    status: Status = Status.RUNNING
    pid: int
    error: str | None = None


@dataclass(frozen=True)
class Run:
    """A run folder."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.folder / "config.yaml"

    @property
    def model(self) -> Path:
        """Ludwig's model folder."""
        return self.folder / "model"

    @property
    def metrics(self) -> Path:
        """Metrics with intervals, JSON."""
        return self.folder / "metrics.json"

    @property
    def history(self) -> Path:
        """Learning curves, JSON."""
        return self.folder / "history.json"

    @property
    def predictions(self) -> Path:
        """Predictions of every split, Parquet."""
        return self.folder / "predictions.parquet"

    @property
    def report(self) -> Path:
        """The report, HTML."""
        return self.folder / "report.html"

    @property
    def log(self) -> Path:
        """What Ludwig had to say."""
        return self.folder / "train.log"

    @classmethod
    def create(cls, config_name: str, *, root: Path = RUNS, now: datetime | None = None) -> "Run":
        """Make an empty folder `<UTC time>-<config name>-<4 hex>` under `root`."""
        return cls(new_folder(config_name, root=root, now=now or datetime.now(UTC)))

    @classmethod
    def open(cls, name: str | Path, *, root: Path = RUNS) -> "Run":
        """Find a run by folder, by name under `root`, by the unique start of a name, or by the word `latest`.

        Raises:
            InputError: No such run, or several that start so.
        """
        given = Path(name)
        if (given / "run.json").is_file():
            return cls(given)
        folders = [run.folder for run in list_runs(root)]
        return cls(find_folder(name, folders, kind="run", root=root, maker="pneumo train CONFIG"))

    def info(self) -> RunInfo:
        """Read `run.json`.

        Raises:
            InputError: It is missing or damaged.
        """
        path = self.folder / "run.json"
        try:
            return RunInfo.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: missing; {self.folder} is not a run") from None
        except ValidationError as error:
            raise InputError(f"{path}: {first_problem(error)}") from None

    def save(self, info: RunInfo) -> None:
        """Write `run.json` atomically."""
        write_text(self.folder / "run.json", info.model_dump_json(indent=2) + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run while it is trained; the system frees it when the process ends, however it ends.

        Raises:
            InputError: Another process holds it.
        """
        with lock_folder(self.folder, self.name):
            yield

    def is_done(self) -> bool:
        """Return whether the run exists and was finished."""
        return (self.folder / "run.json").is_file() and self.info().status is Status.DONE

    def is_locked(self) -> bool:
        """Whether a process is training it now."""
        try:
            with self.locked():
                return False
        except InputError:
            return True
        except OSError:  # a read-only folder: nothing trains in it
            return False


def list_runs(root: Path = RUNS) -> list[Run]:
    """All run folders under `root`, oldest first."""
    if not root.is_dir():
        return []
    return [Run(path.parent) for path in sorted(root.glob("*/run.json"))]


def find_folder(name: str | Path, folders: Sequence[Path], *, kind: str, root: Path, maker: str) -> Path:
    """The folder that a name, the unique start of one, or the word `latest` means.

    Args:
        name: What is given on the command line.
        folders: Those there are, oldest first.
        kind: What they are, for messages.
        root: Where they are, for messages.
        maker: The command that makes one, for messages.

    Raises:
        InputError: None or several are meant.
    """
    if str(name) == "latest" and folders:
        return folders[-1]
    matches = [folder for folder in folders if folder.name.startswith(str(name))] if str(name) else []
    exact = next((folder for folder in matches if folder.name == str(name)), None)
    if exact is not None or len(matches) == 1:
        return exact or matches[0]
    if matches:
        raise InputError(f"{name}: {len(matches)} {kind}s in {root} start so: give more letters of the name")
    known = f"the newest is {folders[-1].name}" if folders else f"there is none yet: `{maker}` makes one"
    raise InputError(f"{name}: no such {kind} in {root}; {known}")


@contextmanager
def lock_folder(folder: Path, name: str) -> Iterator[None]:
    """Hold a folder for this process; the system frees it when the process ends, however it ends.

    Raises:
        InputError: Another process holds it.
    """
    try:
        lock = open_locked(folder / ".lock")
    except BlockingIOError:
        raise InputError(f"{name}: still running; wait for it, or stop it first") from None
    with lock:
        yield


def new_folder(config_name: str, *, root: Path, now: datetime) -> Path:
    """Make an empty folder `<UTC time>-<config name>-<4 hex>` under `root`."""
    stem = re.sub(r"[^A-Za-z0-9_.]+", "-", config_name)[:60].strip("-._") or "run"
    folder = root / f"{now:%Y%m%dT%H%M%SZ}-{stem}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    return folder
