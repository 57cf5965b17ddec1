"""Evidently's user interface for the checks in the prediction log."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.install_hints import missing_module
from pneumo.serving.contracts.process_state import set_environment
from pneumo.serving.drift.check import DriftResult
from pneumo.serving.drift.stored_checks import count_checks, list_checks, read_snapshot, store_result
from pneumo.serving.predictions.store import LogStore

if TYPE_CHECKING:
    from pneumo.serving.drift.verdict import DriftCheck

NOT_DRAWN = "without Evidently's page (too few images, too old, or made without Evidently): only /drift shows them"
"""Words about checks that Evidently's user interface leaves out."""


def store_check(store: LogStore, checked: DriftResult) -> str:
    """Store a check with Evidently's page in the prediction log, for `/drift` and for `write_workspace`; return its id.

    Raises:
        MachineError: Evidently is not installed, or the database cannot be written.
    """
    with store.translate_errors():
        store.prepare()
        return store_result(store, checked)


def write_workspace(store: LogStore, folder: Path) -> tuple[int, int]:
    """Write Evidently's workspace into an empty folder.

    It has a project for each model version, and a run for each stored check with Evidently's snapshot, oldest first.

    Returns:
        The number of runs, and that of stored checks without a snapshot.

    Raises:
        InputError: The folder is not empty, or no check with a snapshot is stored.
        MachineError: Evidently is not installed, or the database cannot be reached.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: not empty; give a new folder for Evidently's workspace")
    with store.translate_errors():
        store.prepare()
        stored = count_checks(store)
        snapshots = [(each.check, read_snapshot(store, each.id)) for each in list_checks(store, drawn=True)[::-1]]
    drawn = [(check, snapshot) for check, snapshot in snapshots if snapshot is not None]
    if not drawn:
        found = f"{stored} drift checks are stored, all {NOT_DRAWN}" if stored else "no drift check is stored"
        raise InputError(
            f"{store.shown}: {found}; `pneumo drift report --store` makes one, and with PNEUMO_DRIFT_MINUTES=60 the "
            "service makes them"
        )
    _add_runs(folder, drawn)
    return len(drawn), stored - len(drawn)


@set_environment({"DO_NOT_TRACK": "1"})
def _add_runs(folder: Path, snapshots: "Iterable[tuple[DriftCheck, bytes]]") -> None:
    try:
        from evidently.core.report import Snapshot
        from evidently.sdk.models import PanelMetric
        from evidently.sdk.panels import line_plot_panel
        from evidently.ui.workspace import Workspace
    except ModuleNotFoundError as error:
        raise MachineError(missing_module(error)) from None
    workspace = Workspace.create(str(folder))
    projects = {}
    for check, snapshot in snapshots:
        name = f"{check.model}:{check.version}"
        if name not in projects:
            projects[name] = workspace.create_project(name, "pneumo: research software, not a medical device")
            share = PanelMetric(metric="DriftedColumnsCount", metric_labels={"value_type": "share"}, legend="share")
            projects[name].dashboard.add_panel(line_plot_panel(title="Share of columns with drift", values=[share]))
        document = json.loads(snapshot)
        document["timestamp"] = check.time.replace(tzinfo=None).isoformat()  # it was drawn a moment later
        document["metadata"] = {"verdict": check.verdict.value, "summary": check.summary, "images": check.images}
        workspace.add_run(projects[name].id, Snapshot.loads(json.dumps(document)), name=check.verdict.value)


def serve_workspace(folder: Path, *, host: str, port: int) -> int:
    """Run Evidently's user interface until it ends, without network access; return its exit code."""
    command = [sys.executable, "-W", "ignore", "-m", "evidently.cli", "ui"]
    options = ["--workspace", str(folder), "--host", host, "--port", str(port)]
    with subprocess.Popen([*command, *options], env=os.environ | {"DO_NOT_TRACK": "1"}) as process:
        try:
            return process.wait()
        finally:
            process.terminate()  # which does nothing to a process that has ended
