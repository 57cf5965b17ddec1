"""Evidently's own user interface over stored checks."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from pneumo.pipeline.drift import evidently_ui
from pneumo.pipeline.drift.evidently_ui import store_check, write_workspace
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.drift.check import check_drift
from pneumo.serving.drift.stored_checks import PAGES, add_check, latest_check, list_checks, read_page
from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.predictions.store import LogStore
from tests.support import prediction_logs as simulated
from tests.support.bundles import make_bundle
from tests.support.paths import ROOT
from tests.support.waiting import until

pytest.importorskip("evidently", reason="evidently is not installed (extra drift)")


NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> LogStore:
    """A log with two checks that were drawn, of a darker detector and of one as it was."""
    folder = tmp_path_factory.mktemp("interface")
    bundle = simulated.with_reference(make_bundle(folder / "tiny"))
    store = LogStore(f"sqlite:///{folder / 'log.sqlite3'}")
    store.prepare()
    for number, darker in enumerate([False, True]):
        rows, _ = simulated.rows(60, NOW - timedelta(days=1), NOW, seed=1 + number, darker=darker)
        store.add(rows)
        when = NOW + timedelta(hours=number)
        store_check(store, check_drift(bundle, rows, window="the last 60 images", now=when))
    return store


def test_a_check_that_is_stored_has_evidentlys_page(log):
    newest, oldest = list_checks(log)
    assert (newest.check.verdict, oldest.check.verdict) == ("drift", "ok")
    assert newest.has_page
    assert read_page(log, newest.id)


def test_a_check_of_too_few_images_is_stored_without_a_page(tmp_path):
    bundle = simulated.with_reference(make_bundle(tmp_path / "tiny"))
    store = LogStore(f"sqlite:///{tmp_path / 'log.sqlite3'}")
    rows, _ = simulated.rows(5, NOW - timedelta(days=1), NOW)
    store_check(store, check_drift(bundle, rows, window="the last 60 images"))
    found = latest_check(store)
    assert (found.check.verdict, found.has_page) == ("too_few", False)
    with pytest.raises(
        InputError, match=r"1 drift checks are stored, all without Evidently's page.*only /drift shows them"
    ):
        write_workspace(store, tmp_path / "workspace")


def test_a_log_without_checks_says_how_to_make_one(tmp_path):
    store = LogStore(f"sqlite:///{tmp_path / 'log.sqlite3'}")
    with pytest.raises(InputError, match="no drift check is stored; `pneumo drift report --store` makes one"):
        write_workspace(store, tmp_path / "workspace")


def test_checks_without_a_page_are_counted_and_hide_no_other(log, tmp_path):
    with (
        closing(sqlite3.connect(log.engine.url.database)) as from_,
        closing(sqlite3.connect(tmp_path / "log.sqlite3")) as to,
    ):
        from_.backup(to)
    store = LogStore(f"sqlite:///{tmp_path / 'log.sqlite3'}")
    newest = list_checks(store)[0].check
    for number in range(PAGES + 1):
        late = newest.time + timedelta(hours=number + 1)
        add_check(store, newest.model_copy(update={"time": late, "verdict": Verdict.TOO_FEW, "columns": []}), None)
    assert write_workspace(store, tmp_path / "workspace") == (2, PAGES + 1)


def test_the_workspace_has_a_project_a_version_and_a_run_a_check(log, tmp_path):
    from evidently.ui.workspace import Workspace

    assert write_workspace(log, tmp_path / "workspace") == (2, 0)
    workspace = Workspace(str(tmp_path / "workspace"))
    (project,) = workspace.list_projects()
    assert project.name == "tiny:1"
    runs = [workspace.get_run(project.id, key) for key in workspace.list_runs(project.id)]
    assert {run.timestamp.hour: run.metadata["verdict"] for run in runs} == {12: "ok", 13: "drift"}


def test_one_measure_is_one_line_over_all_checks(log, tmp_path):
    write_workspace(log, tmp_path / "workspace")
    files = list((tmp_path / "workspace").glob("*/snapshots/*.json"))
    measures = [
        {key for key, each in json.loads(file.read_text())["metric_results"].items() if "count" in each}
        for file in files
    ]
    assert len(measures) == 2
    assert measures[0] == measures[1] != set()


def test_a_folder_that_holds_something_is_left_alone(log, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        write_workspace(log, tmp_path)


def test_the_command_opens_it_and_leaves_nothing_behind(log, pneumo, monkeypatch):
    served = []

    def serve(folder: Path, *, host: str, port: int) -> int:
        served.append((folder, len(list(folder.glob("*/snapshots/*.json"))), host, port))
        return 0

    monkeypatch.setattr(evidently_ui, "serve_workspace", serve)
    found = pneumo("drift", "dashboard", "--log", f"sqlite:///{log.engine.url.database}", "--port", "8123")
    assert found.code == 0
    assert "2 checks; Evidently starts on http://127.0.0.1:8123" in found.err
    assert "research software, not a medical device" in found.err
    ((folder, runs, host, port),) = served
    assert (runs, host, port) == (2, "127.0.0.1", 8123)
    assert not folder.exists()


def answers(port: int, path: str) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/{path}", timeout=10)
    except httpx.HTTPError:
        return False
    return True


@pytest.mark.lengthy
@pytest.mark.slow  # Evidently takes half a minute to start on a busy machine
def test_evidently_serves_the_checks(log, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pneumo", "drift", "dashboard", "--port", str(port)]
    environment = os.environ | {"PNEUMO_LOG_URL": f"sqlite:///{log.engine.url.database}"}
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        until(lambda: answers(port, "api/projects") or process.poll() is not None, timeout=240)
        assert process.poll() is None, (tmp_path / "output").read_text()
        (project,) = httpx.get(f"http://127.0.0.1:{port}/api/projects", timeout=10).json()
        assert project["name"] == "tiny:1"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    until(lambda: not answers(port, ""))
