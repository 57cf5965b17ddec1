"""The interface of all trackers: what is tracked, and what a tracker can do with it."""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pneumo.pipeline.runs.settings import hide_paths
from pneumo.serving.contracts.process_state import set_environment

Values = Mapping[str, object]

PROJECT = "pneumo"
SUCCEEDED = ("done", "finished", "stopped")
"""Statuses that are no failure."""
_POINTS = 100  # largest number of points per curve
_IMAGES = frozenset((".png", ".jpg", ".jpeg", ".dcm", ".bmp", ".tif", ".tiff", ".gif", ".webp"))
_ENVIRONMENT = threading.RLock()


@dataclass(frozen=True)
class TrackedRun:
    """Identity of a tracked run."""

    name: str  # a resumed run continues the tracked run of that name
    config: Values  # nested
    data_fingerprint: str
    group: str | None = None  # its sweep
    job_type: str = "train"  # or `trial`, `sweep`, `export`, `promote`

    def describe(self) -> dict[str, Any]:
        """Return config and fingerprint without paths of this machine."""
        return {str(key): hide_paths(item) for key, item in self.config.items()} | {
            "data_fingerprint": self.data_fingerprint
        }


@dataclass(frozen=True)
class Artifact:
    """A model to keep with a run."""

    name: str
    folder: Path  # its image files are left out
    aliases: tuple[str, ...] = ()  # of this version, such as `champion`
    facts: Values = field(default_factory=dict)  # metadata by name, such as a digest

    def files(self) -> Iterator[tuple[Path, Path]]:
        """Yield each file that is no image, as its path and that in the folder."""
        for file in sorted(self.folder.rglob("*")):
            if file.is_file() and file.suffix.lower() not in _IMAGES:
                yield file, file.relative_to(self.folder)


@dataclass(frozen=True)
class Plot:
    """A curve that is not over epochs, with the names of its coordinates."""

    title: str
    x: str
    y: str
    points: Sequence[tuple[float, float]]

    def thin(self) -> list[tuple[float, float]]:
        """Return about a hundred of the points, with both ends."""
        points = [*self.points[:: math.ceil(len(self.points) / _POINTS) or 1]]
        return points if not points or points[-1] == self.points[-1] else [*points, self.points[-1]]


class TrackerRun(ABC):
    """One run at one tracker. Every method may raise; `Tracker` keeps that away from the training."""

    last_step = -1
    """Step of the last round that the tracker has."""

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int, moment: float) -> None:
        """Log the values of one round by full name, measured at `moment`, in seconds since 1970."""

    @abstractmethod
    def draw(self, plots: Sequence[Plot]) -> None:
        """Keep curves as tables of points."""

    @abstractmethod
    def keep(self, artifact: Artifact) -> None:
        """Keep a model under its name and aliases, if the tracker has a store of models."""

    @abstractmethod
    def finish(self, metrics: Mapping[str, float], status: str) -> None:
        """End the run with its final metrics by full name."""


@contextmanager
def tracker_environment(settings: Mapping[str, str], defaults: Mapping[str, str] | None = None) -> Iterator[None]:
    """Set variables for a tracker's library, in one thread at a time; `defaults` give way to those of the user."""
    with _ENVIRONMENT, set_environment(settings, replace=True), set_environment(defaults or {}):
        yield
