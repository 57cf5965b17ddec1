"""Weights & Biases. Ludwig's WandbCallback is not used: docs/architecture.md says why."""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.pipeline.training.tracking.interface import (
    PROJECT,
    SUCCEEDED,
    Artifact,
    Plot,
    TrackedRun,
    TrackerRun,
    tracker_environment,
)
from pneumo.serving.contracts.errors import first_line

if TYPE_CHECKING:
    import wandb

_SERVERS = ("https://api.wandb.ai", "https://api.forge.coreweave.com")
"""wandb's default servers, before and since its move; a key for one is valid for the other."""
_INIT_TIMEOUT = 20.0  # seconds that a server may take to answer when a run begins
_FINISH_TIMEOUT = 60.0  # seconds that sending the rest may take when a run ends
_FLUSH_INTERVAL = 1.0  # seconds after which tracked values are on disk, so that a kill -9 loses no more
_silence = partial(tracker_environment, {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"})
"""wandb reads these when it is imported and when its service starts; it has no such settings."""


def begin(mode: str, tracked: TrackedRun, folder: Path, warn: Callable[[str], None]) -> "WandbRun":
    """Begin a run with wandb's files below `folder`; without a network it is an offline one, with a warning."""
    if mode == "offline":
        return WandbRun(_begin(mode, folder, tracked))
    if not has_account():
        raise OSError("no account here (set WANDB_API_KEY, or `wandb login`; wandb:offline needs none)")
    try:
        run = _begin(mode, folder, tracked)
    except Exception as error:
        run = _begin("offline", folder, tracked, is_fallback=True)
        reason = first_line(error).rstrip(".")
        warn(f"{reason}; stored here, send it with: wandb sync {folder / 'wandb'}/offline-*")
        return WandbRun(run)
    import wandb

    fingerprint = tracked.data_fingerprint  # offline wandb takes no lineage; the fingerprint is in the config
    run.use_artifact(wandb.Artifact(f"data-{fingerprint[:12]}", "dataset", metadata={"fingerprint": fingerprint}))
    return WandbRun(run)


def has_account() -> bool:
    """Return whether there are credentials for Weights & Biases, in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    from requests.utils import get_netrc_auth

    url = os.environ.get("WANDB_BASE_URL")
    return any(get_netrc_auth(server) for server in ([url] if url else _SERVERS))


class WandbRun(TrackerRun):
    """A run at Weights & Biases, or in a file that `wandb sync` sends later."""

    def __init__(self, run: "wandb.Run") -> None:
        self._run = run
        self.last_step = run.step - 1
        run.define_metric("*", step_metric="epoch")

    def log(self, values: Mapping[str, float], step: int, moment: float) -> None:
        """Log a round; wandb notes the time itself."""
        self._run.log(dict(values), step=step, commit=True)

    def draw(self, plots: Sequence[Plot]) -> None:
        """Log tables, drawn as lines."""
        import wandb

        drawn = {}
        for plot in plots:
            table = wandb.Table(columns=[plot.x, plot.y], data=[list(point) for point in plot.thin()])
            drawn[f"plots/{plot.title}"] = wandb.plot.line(table, plot.x, plot.y, title=plot.title)
        if drawn:
            self._run.log(drawn)

    def keep(self, artifact: Artifact) -> None:
        """Log an artifact of type `model`; the same content is the same version."""
        import wandb

        upload = wandb.Artifact(_make_name(artifact.name), "model", metadata=dict(artifact.facts))
        for file, name in artifact.files():
            upload.add_file(str(file), name=name.as_posix())
        self._run.log_artifact(upload, aliases=list(artifact.aliases))

    def finish(self, metrics: Mapping[str, float], status: str) -> None:
        """Set the summary, and wait until everything is sent or written."""
        self._run.summary.update({**metrics, "status": status})
        with _silence():
            self._run.finish(exit_code=0 if status in SUCCEEDED else 1)
        file, until, size = Path(str(self._run.settings.sync_file)), time.monotonic() + 2, -1
        while time.monotonic() < until and file.is_file() and file.stat().st_size != size:
            size = file.stat().st_size  # wandb's service writes the end a moment after a run has finished
            time.sleep(0.2)


def _make_name(text: str) -> str:
    return re.sub(r"[^\w.-]", "-", text)[-128:]


def _begin(mode: str, folder: Path, tracked: TrackedRun, *, is_fallback: bool = False) -> "wandb.Run":
    hooks = sys.exit, sys.excepthook
    try:
        with _silence():
            import wandb

            url = os.environ.get("WANDB_BASE_URL")
            settings = wandb.Settings(
                **({"base_url": url} if url else {}),  # type: ignore[arg-type]
                mode=mode,  # type: ignore[arg-type]
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
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                name=tracked.name,
                id=None if is_fallback else _make_name(tracked.name),
                group=tracked.group,
                job_type=tracked.job_type,
                config=tracked.describe(),
                resume="allow" if mode == "online" else None,
                settings=settings,
            )
    finally:
        sys.exit, sys.excepthook = hooks  # wandb replaces them  # type: ignore[assignment]
