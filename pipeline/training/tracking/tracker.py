"""Experiment tracking: a run's config, rounds, curves, metrics and models at any number of trackers.

Every run folder is complete without tracking. Tracking never asks anything, never fails a run, and sends no images. A
tracker that fails is warned of once and left out. Its library is imported only if it is used.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from pneumo.pipeline.runs.history import Entry, flatten_metrics
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.training.tracking.interface import Artifact, Plot, TrackedRun, TrackerRun, Values
from pneumo.serving.contracts.errors import InputError, first_line

_TITLES = {"wandb": "W&B", "mlflow": "MLflow", "tensorboard": "TensorBoard"}
_PACKAGES = {"wandb": "wandb", "mlflow": "mlflow-skinny", "tensorboard": "tensorboard"}
_MODES = ("online", "offline", "disabled")
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")


def parse_trackers(given: str | Iterable[str]) -> str:
    """Return trackers as one text, such as `wandb:offline,mlflow`; empty for none.

    Args:
        given: Names with commas between: `wandb` (mode `$WANDB_MODE` or online), `wandb:offline`, `mlflow` (server
            `$MLFLOW_TRACKING_URI`), `mlflow:URI`, `tensorboard`.

    Raises:
        InputError: There is no such tracker, or one is named twice in different ways.
    """
    chosen: dict[str, str] = {}
    for text in ",".join([given] if isinstance(given, str) else given).split(","):
        name, _, place = text.strip().partition(":")
        if name == "wandb":
            place = place or os.environ.get("WANDB_MODE") or "online"
        if name not in (*_TITLES, "") or (name == "wandb" and place not in _MODES) or (name == "tensorboard" and place):
            raise InputError(
                f"--track {text.strip()}: no such tracker; choose from wandb, wandb:offline, mlflow, mlflow:URI, "
                "tensorboard"
            )
        if chosen.setdefault(name, place) != place:
            raise InputError(f"--track: {name} is named twice, as {chosen[name] or name} and {place or name}; drop one")
    return ",".join(
        f"{name}:{place}" if place else name for name, place in chosen.items() if name and place != "disabled"
    )


class Tracker:
    """One run at several trackers; without any it does nothing."""

    def __init__(self, runs: dict[str, TrackerRun] | None = None, reporter: Reporter = SILENT) -> None:
        self._runs = runs or {}
        self._reporter = reporter
        self._warned: set[str] = set()

    @property
    def trackers(self) -> str:
        """The trackers that work, as `parse_trackers` returns them; empty if nothing is tracked."""
        return ",".join(self._runs)

    @classmethod
    def start(cls, trackers: str, tracked: TrackedRun, folder: Path, reporter: Reporter = SILENT) -> "Tracker":
        """Begin to track a run with local files below `folder`, in any thread; leave the process unchanged.

        The reporter gets a warning for each tracker that cannot be used; it is left out.
        """
        tracker = cls({}, reporter)
        for target in filter(None, parse_trackers(trackers).split(",")):
            name, _, place = target.partition(":")
            try:
                if find_spec(name) is None:
                    raise OSError(f"not installed (pip install {_PACKAGES[name]})")
                module = import_module(f"pneumo.pipeline.training.tracking.{name}_run")
                tracker._runs[target] = module.begin(place, tracked, folder, partial(tracker._warn, target))
            except Exception as error:
                tracker._warn(target, f"{_reason(error)}; {tracked.name} is not tracked")
        return tracker

    def round(self, entry: Entry) -> None:
        """Track one evaluation round, an entry of `history.json`, at the trackers that do not have it yet."""
        values = flatten_metrics({key: value for key, value in entry.items() if key != "time"})

        def log(run: TrackerRun) -> None:
            if entry["step"] > run.last_step:
                run.log(values, entry["step"], entry.get("time", time.time()))
                run.last_step = entry["step"]

        self._each(log)

    def draw(self, make: Callable[[], Sequence[Plot]]) -> None:
        """Track curves that are not over epochs; `make` is called only if there is a tracker."""
        if not self._runs:
            return
        try:
            plots = make()
        except Exception as error:
            self._reporter.warning(f"tracking: no curves ({_reason(error)})")
            return
        self._each(lambda run: run.draw(plots), "no curves", drop=False)

    def keep(self, artifact: Artifact) -> None:
        """Keep a model."""
        self._each(lambda run: run.keep(artifact), f"{artifact.name} is not kept", drop=False)

    def finish(self, metrics: Values | None = None, status: str = "done") -> None:
        """End the tracked run with nested metrics; a second call does nothing.

        Any status other than `done`, `finished` or `stopped` counts as a failure.
        """
        self._each(lambda run: run.finish(flatten_metrics(metrics or {}), status))
        self._runs = {}

    def _each(
        self,
        action: Callable[[TrackerRun], None],
        problem: str = "tracking stops, the run continues",
        *,
        drop: bool = True,
    ) -> None:
        for target, run in list(self._runs.items()):
            try:
                action(run)
            except Exception as error:
                if drop:
                    del self._runs[target]
                self._warn(target, f"{_reason(error)}; {problem}")

    def _warn(self, target: str, text: str) -> None:
        """Warn of a tracker, once."""
        if target not in self._warned:
            self._warned.add(target)
            self._reporter.warning(f"{_TITLES[target.partition(':')[0]]}: {text}")


def _reason(error: Exception) -> str:
    return _CREDENTIALS.sub("", first_line(error)).rstrip(".")
