"""Experiment tracking with Weights & Biases: a run's config, rounds, curves, metrics and artifacts.

Every run folder is complete without tracking. Tracking never asks anything, never fails a run, and sends no images.
After an error it warns once and stops. wandb is imported only if tracking is on. Ludwig's WandbCallback is not used: it
uploads the whole run folder, and its errors end the training.
"""

import contextlib
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumo.pipeline.runs.reporter import SILENT, Reporter, TrackingMode
from pneumo.serving.contracts.errors import first_line

if TYPE_CHECKING:
    import wandb

Values = Mapping[str, object]

PROJECT = "pneumo"
_SERVERS = ("https://api.wandb.ai", "https://api.forge.coreweave.com")
"""wandb's default servers, before and since its move; a key for one is valid for the other."""
_INIT_TIMEOUT = 20.0  # seconds that a server may take to answer when a run begins
_FINISH_TIMEOUT = 60.0  # seconds that sending the rest may take when a run ends
_FLUSH_INTERVAL = 1.0  # seconds after which tracked values are on disk, so that a kill -9 loses no more
_QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
"""wandb reads these when it is imported and when its service starts; it has no such settings."""
_POINTS = 100  # largest number of points per uploaded curve
_IMAGES = frozenset((".png", ".jpg", ".jpeg", ".dcm", ".bmp", ".tif", ".tiff", ".gif", ".webp"))
_ENVIRONMENT = threading.Lock()


@dataclass(frozen=True)
class TrackedRun:
    """Identity of a tracked run."""

    name: str  # a resumed run continues the tracked run of that name
    config: Values  # nested
    data_fingerprint: str
    group: str | None = None  # its sweep
    job_type: str = "train"  # or `trial`, `export`, `promote`


@dataclass(frozen=True)
class Artifact:
    """A model to upload with a run."""

    name: str
    path: Path  # a file, or a folder whose image files are left out
    aliases: tuple[str, ...] = ()  # of this version, such as `champion`
    facts: Values = field(default_factory=dict)  # metadata, such as a digest


@dataclass(frozen=True)
class Plot:
    """A curve that is not over epochs, with the names of its coordinates."""

    title: str
    x: str
    y: str
    points: Sequence[tuple[float, float]]


class Tracker:
    """One run at Weights & Biases; without `run` it does nothing."""

    def __init__(self, run: "wandb.Run | None" = None, reporter: Reporter = SILENT) -> None:
        self._run = run
        self._reporter = reporter

    @property
    def active(self) -> bool:
        """Whether anything is tracked."""
        return self._run is not None

    @classmethod
    def start(
        cls, mode: TrackingMode | str, tracked: TrackedRun, folder: Path, reporter: Reporter = SILENT
    ) -> "Tracker":
        """Begin to track a run with wandb's files below `folder`, in any thread; leave the process unchanged.

        If tracking is not possible as requested, the reporter gets a warning and the tracker may do nothing.
        """
        possible = resolve_mode(mode, reporter)
        if possible is TrackingMode.DISABLED:
            return cls()
        failure = ""
        for attempt in dict.fromkeys((possible, TrackingMode.OFFLINE)):
            try:
                run = _begin(attempt, folder, tracked, is_fallback=attempt is not possible)
            except Exception as error:
                failure = failure or _first_line(error)
                continue
            if failure:
                reporter.warning(f"W&B: {failure}; stored here, send it with: wandb sync {folder / 'wandb'}/offline-*")
            tracker = cls(run, reporter)
            tracker._try(partial(_describe, mode=attempt, data_fingerprint=tracked.data_fingerprint))
            return tracker
        reporter.warning(f"W&B: {failure}; {tracked.name} is not tracked")
        return cls()

    def round(self, entry: Values) -> None:
        """Track one evaluation round, an entry of `history.json`."""
        self._try(lambda run: run.log(_flatten(entry)))

    def draw(self, make: Callable[[], Sequence[Plot]]) -> None:
        """Track curves that are not over epochs; `make` is called only if there is a run."""
        if self._run is None:
            return
        try:
            plots = make()
        except Exception as error:
            self._reporter.warning(f"W&B: no curves ({_first_line(error)})")
            return
        self._try(lambda run: _draw(run, plots))

    def finish(self, metrics: Values | None = None, status: str = "done", artifact: Artifact | None = None) -> None:
        """End the tracked run with nested metrics as its summary; a second call does nothing.

        Any status other than `done`, `finished` or `stopped` counts as a failure.
        """

        def end(run: "wandb.Run") -> None:
            run.summary.update({**_flatten(metrics or {}), "status": status})
            if artifact:
                _upload(run, artifact)
            with _silence_wandb():
                run.finish(exit_code=0 if status in ("done", "finished", "stopped") else 1)
            _wait_until_written(Path(str(run.settings.sync_file)))

        self._try(end)
        self._run = None

    def _try(self, action: "Callable[[wandb.Run], object]") -> None:
        """Call an action if there is a run; an error ends tracking with one warning."""
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            self._run = None
            self._reporter.warning(f"W&B: {_first_line(error)}; tracking stops, the run continues")


def _wait_until_written(file: Path) -> None:
    """Wait until a run file stops growing: wandb's service writes its end a moment after a run has finished."""
    until, size = time.monotonic() + 2, -1
    while time.monotonic() < until and file.is_file() and file.stat().st_size != size:
        size = file.stat().st_size
        time.sleep(0.2)


def resolve_mode(mode: TrackingMode | str, reporter: Reporter = SILENT) -> TrackingMode:
    """Return the mode that is possible: `disabled` without wandb, and instead of `online` without an account."""
    mode = TrackingMode(mode)
    if mode is TrackingMode.DISABLED:
        return mode
    if find_spec("wandb") is None:
        reporter.warning("W&B: not installed (pip install wandb); not tracked")
        return TrackingMode.DISABLED
    if mode is TrackingMode.ONLINE and not has_account():
        reporter.warning(
            "W&B: no account here (set WANDB_API_KEY, or `wandb login`); not tracked. --wandb offline needs none"
        )
        return TrackingMode.DISABLED
    return mode


def has_account() -> bool:
    """Return whether there are credentials for Weights & Biases, in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    from requests.utils import get_netrc_auth

    url = os.environ.get("WANDB_BASE_URL")
    return any(get_netrc_auth(server) for server in ([url] if url else _SERVERS))


def _begin(mode: TrackingMode, folder: Path, tracked: TrackedRun, *, is_fallback: bool) -> "wandb.Run":
    hooks = sys.exit, sys.excepthook
    try:
        with _silence_wandb():
            import wandb

            url = os.environ.get("WANDB_BASE_URL")
            settings = wandb.Settings(
                **({"base_url": url} if url else {}),  # type: ignore[arg-type]
                mode=mode.value,
                root_dir=str(folder.resolve()),
                reinit="create_new",
                console="off",
                silent=True,
                quiet=True,
                show_errors=False,
                show_warnings=False,
                show_info=False,
                disable_code=True,
                disable_git=True,
                save_code=False,
                x_disable_meta=True,
                x_save_requirements=False,
                x_transaction_log_flush_interval=_FLUSH_INTERVAL,
                init_timeout=_INIT_TIMEOUT,
                finish_timeout=_FINISH_TIMEOUT,
                finish_timeout_raises=True,
                stop_fn=lambda: None,  # the web page's button `stop` would interrupt the whole process
            )
            return wandb.init(
                project=PROJECT,
                name=tracked.name,
                id=None if is_fallback else re.sub(r"[^\w.-]", "-", tracked.name)[-128:],
                group=tracked.group,
                job_type=tracked.job_type,
                config={**tracked.config, "data_fingerprint": tracked.data_fingerprint},
                resume="allow" if mode is TrackingMode.ONLINE else None,
                settings=settings,
            )
    finally:
        sys.exit, sys.excepthook = hooks  # wandb replaces them  # type: ignore[assignment]


def _describe(run: "wandb.Run", mode: TrackingMode, data_fingerprint: str) -> None:
    """Set the axis of curves, and link the run to its data."""
    run.define_metric("*", step_metric="epoch")
    if mode is TrackingMode.ONLINE:  # offline wandb takes no lineage; the fingerprint is in the config
        import wandb

        data = wandb.Artifact(f"data-{data_fingerprint[:12]}", "dataset", metadata={"fingerprint": data_fingerprint})
        run.use_artifact(data)


def _draw(run: "wandb.Run", plots: Sequence[Plot]) -> None:
    import wandb

    drawn = {}
    for plot in plots:
        points = [*plot.points[:: math.ceil(len(plot.points) / _POINTS) or 1]]
        if plot.points and points[-1] != plot.points[-1]:
            points.append(plot.points[-1])
        table = wandb.Table(columns=[plot.x, plot.y], data=[list(point) for point in points])
        drawn[f"plots/{plot.title}"] = wandb.plot.line(table, plot.x, plot.y, title=plot.title)
    if drawn:
        run.log(drawn)


def _upload(run: "wandb.Run", artifact: Artifact) -> None:
    import wandb

    upload = wandb.Artifact(re.sub(r"[^\w.-]", "-", artifact.name), "model", metadata=_flatten(artifact.facts))
    root = artifact.path if artifact.path.is_dir() else artifact.path.parent
    for file in sorted(artifact.path.rglob("*")) if artifact.path.is_dir() else [artifact.path]:
        if file.is_file() and file.suffix.lower() not in _IMAGES:
            upload.add_file(str(file), name=file.relative_to(root).as_posix())
    run.log_artifact(upload, aliases=list(artifact.aliases))


def _flatten(nested: Values, prefix: str = "") -> dict[str, Any]:
    """Return `{"train": {"loss": 1}}` as `{"train/loss": 1}`, with only finite numbers, text and booleans."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}/")
        elif isinstance(value, str | bool) or (isinstance(value, int | float) and math.isfinite(value)):
            flat[f"{prefix}{key}"] = value
    return flat


@contextlib.contextmanager
def _silence_wandb() -> Iterator[None]:
    """Stop wandb from printing and from reporting its errors, and restore the environment."""
    with _ENVIRONMENT:
        before = {name: os.environ.get(name) for name in _QUIET}
        os.environ.update(_QUIET)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _first_line(error: Exception) -> str:
    return first_line(error).rstrip(".")
