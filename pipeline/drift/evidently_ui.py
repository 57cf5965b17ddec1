"""Evidently's own user interface over the checks that the prediction log holds."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.install_hints import missing_module
from pneumo.serving.drift.check import DriftResult
from pneumo.serving.drift.stored_checks import list_checks, read_snapshot, store_result
from pneumo.serving.predictions.store import LogStore, describe_error

if TYPE_CHECKING:
    from pneumo.serving.drift.stored_checks import StoredCheck


def store_check(store: LogStore, checked: DriftResult) -> str:
    """Put a check into the prediction log with Evidently's page, for `/drift` and for `write_workspace`.

    Returns:
        The check's id.

    Raises:
        MachineError: Evidently is not installed, or the database cannot be written.
    """
    try:
        store.prepare()
        return store_result(store, checked)
    except SQLAlchemyError as error:
        raise MachineError(f"{store.shown}: {describe_error(error)}") from None


def write_workspace(store: LogStore, folder: Path) -> int:
    """Write Evidently's workspace: a project a model version, a run a stored check, at the time of the check.

    Args:
        store: The log.
        folder: New or empty.

    Returns:
        How many runs.

    Raises:
        InputError: The folder holds something, or no check with its record is stored.
        MachineError: Evidently is not installed, or the database cannot be reached.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: not empty; give a new folder for Evidently's workspace")
    try:
        store.prepare()
        checks = [(each, read_snapshot(store, each.id)) for each in list_checks(store) if each.has_page]
    except SQLAlchemyError as error:
        raise MachineError(f"{store.shown}: {describe_error(error)}") from None
    found = [(check, record) for check, record in checks if record is not None]
    if not found:
        raise InputError(
            f"{store.shown}: no drift check is stored; `pneumo drift report --store` makes one, and with "
            "PNEUMO_DRIFT_MINUTES=60 the service does by itself"
        )
    _fill(folder, found[::-1])
    return len(found)


def _fill(folder: Path, found: "Sequence[tuple[StoredCheck, bytes]]") -> None:
    os.environ.setdefault("DO_NOT_TRACK", "1")
    try:
        from evidently.core.report import Snapshot
        from evidently.sdk.models import PanelMetric
        from evidently.sdk.panels import line_plot_panel
        from evidently.ui.workspace import Workspace
    except ModuleNotFoundError as error:
        raise MachineError(missing_module(error)) from None
    workspace = Workspace.create(str(folder))
    projects = {}
    for stored, record in found:
        check = stored.check
        name = f"{check.model}:{check.version}"
        if name not in projects:
            projects[name] = workspace.create_project(name, "pneumo: research software, not a medical device")
            share = PanelMetric(metric="DriftedColumnsCount", metric_labels={"value_type": "share"}, legend="share")
            projects[name].dashboard.add_panel(line_plot_panel(title="Share of columns that drifted", values=[share]))
        document = json.loads(record)
        document["timestamp"] = check.time.replace(tzinfo=None).isoformat()  # it was drawn a moment later
        document["metadata"] = {"verdict": check.verdict.value, "summary": check.summary, "images": check.images}
        workspace.add_run(projects[name].id, Snapshot.loads(json.dumps(document)), name=check.verdict.value)


def serve_workspace(folder: Path, *, host: str, port: int) -> int:
    """Run Evidently's user interface until it is ended; it asks nothing of the network.

    Returns:
        What it exited with.
    """
    command = [sys.executable, "-W", "ignore", "-m", "evidently.cli", "ui"]
    options = ["--workspace", str(folder), "--host", host, "--port", str(port)]
    with subprocess.Popen([*command, *options], env=os.environ | {"DO_NOT_TRACK": "1"}) as process:
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
