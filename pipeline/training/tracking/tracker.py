"""Weights & Biases: what a run is, how it goes and what came out, for those who want it there too.

Every run folder is complete without it. Tracking never asks anything, never fails a run, and sends no images: where
something is wrong it says so once and is silent from then on. wandb is imported only where tracking is wanted.
"""

import contextlib
import math
import netrc
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pneumo.pipeline.runs.reporter import SILENT, Reporter, TrackingMode
from pneumo.serving.contracts.errors import first_line

PROJECT = "pneumo"

_SERVERS = ("api.wandb.ai", "api.forge.coreweave.com")
"""Where wandb sends by default, before and since its move: keys of one are good for the other."""

_PATIENCE = 20.0
"""Seconds that a server may take to answer when a run begins."""

_FAREWELL = 60.0
"""Seconds that the rest may take to be sent when a run ends."""

_WRITTEN = 1.0
"""Seconds after which what was tracked is on the disk, so that kill -9 costs no more."""

_QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
"""wandb reads these as it is imported and as its service starts; its settings have no such switches."""

_POINTS = 100
"""Points of a curve that is drawn there."""

_IMAGES = frozenset((".png", ".jpg", ".jpeg", ".dcm", ".bmp", ".tif", ".tiff", ".gif", ".webp"))
_GOOD_ENDS = ("done", "finished", "stopped")
_SURROUNDINGS = threading.Lock()


@dataclass(frozen=True)
class Artifact:
    """Files to keep with a run.

    Attributes:
        name: Its name in the project, such as the bundle's.
        path: A file, or a folder whose image files are left out.
        kind: What it is: `model`, `report`, ...
        aliases: Names of this version, such as `champion`.
        facts: What stands beside it, such as its digest.
    """

    name: str
    path: Path
    kind: str = "model"
    aliases: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plot:
    """A curve that does not run over epochs.

    Attributes:
        title: What it is.
        x: Name of the first coordinate.
        y: Name of the second.
        points: Its points; no more than a hundred or so are kept.
    """

    title: str
    x: str
    y: str
    points: Sequence[tuple[float, float]]


class Tracker:
    """One run at Weights & Biases; without `run` the null tracker, which does nothing.

    Args:
        run: A `wandb.Run`.
        reporter: Receives progress.
    """

    def __init__(self, run: Any = None, reporter: Reporter = SILENT) -> None:
        self._run = run
        self._reporter = reporter

    @property
    def active(self) -> bool:
        """Whether anything is tracked."""
        return self._run is not None

    @classmethod
    def start(
        cls,
        mode: TrackingMode | str,
        *,
        run_name: str,
        config: Mapping[str, Any],
        folder: Path,
        data_fingerprint: str,
        group: str | None = None,
        job_type: str = "train",
        project: str = PROJECT,
        tags: Sequence[str] = (),
        reporter: Reporter = SILENT,
    ) -> "Tracker":
        """Begin to track a run; works in any thread and leaves the process as it was.

        Args:
            mode: Where to.
            run_name: The run folder's name, which is the run's identity there too: resumed, it goes on.
            config: The resolved config, nested as it is.
            folder: The run folder; what wandb writes goes below it.
            data_fingerprint: Fingerprint of the data set.
            group: The sweep that it belongs to.
            job_type: `train`, `trial`, ...
            project: The project at Weights & Biases.
            tags: Words to find it by.
            reporter: Receives a warning if a run is not tracked as asked.

        Returns:
            A tracker; the null tracker where tracking is not possible.
        """
        asked = resolve_mode(mode, reporter)
        if asked is TrackingMode.DISABLED:
            return cls()
        given: dict[str, Any] = {
            "project": project,
            "name": run_name,
            "group": group,
            "job_type": job_type,
            "tags": list(tags),
            "config": {**config, "data_fingerprint": data_fingerprint},
        }
        try:
            run = _begin(asked, folder, given | {"id": re.sub(r"[^\w.-]", "-", run_name)[-128:]})
        except Exception as error:
            if asked is TrackingMode.OFFLINE:
                reporter.warning(f"W&B: {_in_a_line(error)}; {run_name} is not tracked")
                return cls()
            try:
                run = _begin(TrackingMode.OFFLINE, folder, given)
            except Exception:
                reporter.warning(f"W&B: {_in_a_line(error)}; {run_name} is not tracked")
                return cls()
            reporter.warning(
                f"W&B: {_in_a_line(error)}; kept here instead, send it with: wandb sync {folder / 'wandb'}/offline-*"
            )
            asked = TrackingMode.OFFLINE
        tracker = cls(run, reporter)
        tracker._guarded(lambda: _describe(run, asked, data_fingerprint))
        return tracker

    def round(self, entry: Mapping[str, Any]) -> None:
        """Track one evaluation round.

        Args:
            entry: An entry of `history.json`: `epoch`, `step`, `learning_rate`, and metrics under `train` and
                `validation`.
        """
        self._guarded(lambda: self._run.log(_flat(entry)))

    def draw(self, make: Callable[[], Sequence[Plot]]) -> None:
        """Track curves that do not run over epochs; `make` is asked for them only where there is a run."""
        if self._run is None:
            return
        try:
            plots = make()
        except Exception as error:
            self._reporter.warning(f"W&B: no curves ({_in_a_line(error)})")
            return
        self._guarded(lambda: _draw(self._run, plots))

    def finish(
        self, metrics: Mapping[str, Any] | None = None, status: str = "done", artifacts: Sequence[Artifact] = ()
    ) -> None:
        """End it; a second call does nothing.

        Args:
            metrics: What came out, nested as you like; kept as the run's summary.
            status: `done`, `finished` or `stopped`; anything else counts as a failure.
            artifacts: What to keep with it.
        """

        def end() -> None:
            self._run.summary.update({**_flat(metrics or {}), "status": status})
            for artifact in artifacts:
                _keep(self._run, artifact)
            with _quietly():
                self._run.finish(exit_code=0 if status in _GOOD_ENDS else 1)
            _settle(Path(str(self._run.settings.sync_file)))

        self._guarded(end)
        self._run = None

    def _guarded(self, action: Callable[[], None]) -> None:
        if self._run is None:
            return
        try:
            action()
        except Exception as error:
            self._run = None
            self._reporter.warning(f"W&B: {_in_a_line(error)}; tracking ends here, the run goes on")


def _settle(file: Path) -> None:
    """Wait until a run file stops growing: wandb's service writes its end a moment after a run has finished."""
    until, size = time.monotonic() + 2, -1
    while time.monotonic() < until and file.is_file() and file.stat().st_size != size:
        size = file.stat().st_size
        time.sleep(0.2)


def resolve_mode(mode: TrackingMode | str, reporter: Reporter = SILENT) -> TrackingMode:
    """What is possible of what was asked: `disabled` without wandb, and online without an account.

    Args:
        mode: What was asked.
        reporter: Receives progress.
    """
    asked = TrackingMode(mode)
    if asked is TrackingMode.DISABLED:
        return asked
    if find_spec("wandb") is None:
        reporter.warning("W&B: not installed (pip install wandb); not tracked")
        return TrackingMode.DISABLED
    if asked is TrackingMode.ONLINE and not has_account():
        reporter.warning(
            "W&B: no account here (set WANDB_API_KEY, or `wandb login`); not tracked. --wandb offline needs none"
        )
        return TrackingMode.DISABLED
    return asked


def has_account() -> bool:
    """Whether there are credentials for Weights & Biases: in the environment, or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    own = os.environ.get("WANDB_BASE_URL")
    hosts = (urlsplit(own).hostname or "",) if own else _SERVERS
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return path.is_file() and any(netrc.netrc(path).authenticators(host) for host in hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def _begin(mode: TrackingMode, folder: Path, given: Mapping[str, Any]) -> Any:
    hooks = sys.exit, sys.excepthook
    try:
        with _quietly():
            import wandb

            own = {"base_url": os.environ["WANDB_BASE_URL"]} if os.environ.get("WANDB_BASE_URL") else {}
            settings = wandb.Settings(
                **own,  # type: ignore[arg-type]
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
                x_transaction_log_flush_interval=_WRITTEN,
                init_timeout=_PATIENCE,
                finish_timeout=_FAREWELL,
                finish_timeout_raises=True,
                stop_fn=_ignore,
            )
            online = {"resume": "allow"} if mode is TrackingMode.ONLINE else {}
            return wandb.init(**given, **online, settings=settings)  # type: ignore[arg-type]
    finally:
        sys.exit, sys.excepthook = hooks  # wandb puts its own there  # type: ignore[assignment]


def _describe(run: Any, mode: TrackingMode, data_fingerprint: str) -> None:
    """Say what curves run over, and which data the run is from."""
    run.define_metric("*", step_metric="epoch")
    if mode is TrackingMode.ONLINE:  # offline wandb takes no lineage; the fingerprint stands in the config
        import wandb

        data = wandb.Artifact(f"data-{data_fingerprint[:12]}", "dataset", metadata={"fingerprint": data_fingerprint})
        run.use_artifact(data)


def _draw(run: Any, plots: Sequence[Plot]) -> None:
    import wandb

    drawn = {}
    for plot in plots:
        points = plot.points[:: math.ceil(len(plot.points) / _POINTS) or 1]
        if plot.points and points[-1] != plot.points[-1]:
            points = [*points, plot.points[-1]]
        table = wandb.Table(columns=[plot.x, plot.y], data=[list(point) for point in points])
        drawn[f"plots/{plot.title}"] = wandb.plot.line(table, plot.x, plot.y, title=plot.title)
    if drawn:
        run.log(drawn)


def _keep(run: Any, artifact: Artifact) -> None:
    import wandb

    kept = wandb.Artifact(re.sub(r"[^\w.-]", "-", artifact.name), artifact.kind, metadata=_flat(artifact.facts))
    files = sorted(artifact.path.rglob("*")) if artifact.path.is_dir() else [artifact.path]
    for file in files:
        if file.is_file() and file.suffix.lower() not in _IMAGES:
            name = file.relative_to(artifact.path if artifact.path.is_dir() else artifact.path.parent)
            kept.add_file(str(file), name=name.as_posix())
    run.log_artifact(kept, aliases=list(artifact.aliases))


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"train": {"loss": 1}}` as `{"train/loss": 1}`, without what is no finite number, word or truth."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, str | bool) or (isinstance(value, int | float) and math.isfinite(value)):
            found[f"{prefix}{key}"] = value
    return found


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep wandb from talking and from reporting its errors home, and leave the environment as it was."""
    with _SURROUNDINGS:
        before = {name: os.environ.get(name) for name in _QUIET}
        os.environ.update(_QUIET)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _ignore() -> None:
    """What the button `stop` of the web page does: nothing, since wandb would interrupt the whole process."""


def _in_a_line(error: Exception) -> str:
    return first_line(error).rstrip(".")
