"""What all trackers are told, read back from what each of them keeps: an offline file, a store, event files."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.evaluation import evaluate_run
from pneumo.pipeline.evaluation.results import read_values
from pneumo.pipeline.runs.history import read_history
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.pipeline.training.hooks import Hooks, track_run
from pneumo.pipeline.training.tracking.bundle_artifact import track_bundle
from pneumo.pipeline.training.tracking.interface import Plot, TrackedRun
from pneumo.pipeline.training.tracking.mlflow_run import connect
from pneumo.pipeline.training.tracking.tracker import Tracker
from tests.pipeline.conftest import SynthesiseRun
from tests.support.bundles import make_bundle
from tests.support.tensorboard_files import read_events, read_texts
from tests.support.uv import find_uv
from tests.support.wandb_files import rounds_of, summary_of

ROUNDS: list[dict[str, Any]] = [
    {
        "epoch": epoch,
        "step": 10 * epoch,
        "time": 1_700_000_000.5 + epoch,
        "learning_rate": 0.001,
        "train": {"loss": 1 / epoch},
        "validation": {"loss": 1.5 / epoch, "auroc": 0.9 + epoch / 100, "odd": float("nan")},
    }
    for epoch in (1, 2, 3)
]


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide any account and server of this machine."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


class Store:
    """What an MLflow store or server holds, read with its client."""

    def __init__(self, address: str) -> None:
        with connect(address):
            from mlflow import MlflowClient

            self.address = address
            self.client = MlflowClient(tracking_uri=address, registry_uri=address)

    def runs(self) -> dict[str, Any]:
        with connect(self.address):
            places = [each.experiment_id for each in self.client.search_experiments()]
            return {run.info.run_name: run for run in self.client.search_runs(places)}

    def curve(self, name: str, metric: str) -> list[tuple[int, int, float]]:
        with connect(self.address):
            run = self.runs()[name].info.run_id
            history = self.client.get_metric_history(run, metric)
            return sorted((each.step, each.timestamp, each.value) for each in history)

    def table(self, name: str, title: str, into: Path) -> dict[str, Any]:
        with connect(self.address):
            run = self.runs()[name].info.run_id
            path = self.client.download_artifacts(run, f"plots/{title}.json", str(into))
        found: dict[str, Any] = json.loads(Path(path).read_text())
        return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"file:{tmp_path / 'store'}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the full MLflow in an environment of its own; its packages do not fit ours."""
    folder = tmp_path_factory.mktemp("mlflow")
    if (uv := find_uv()) is None:
        pytest.skip("uv is not installed (`make .uv/bin/uv`)")
    try:
        for command in (["venv", "-q", "--python", sys.executable], ["pip", "install", "-q", "mlflow", "--python"]):
            subprocess.run([uv, *command, str(folder / "env")], check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"the full MLflow cannot be installed here: {error}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(folder / "env/bin/mlflow"), "server", "--port", str(port), "--workers", "1"]
    database = ["--backend-store-uri", f"sqlite:///{folder / 'runs.db'}", "--artifacts-destination", folder / "kept"]
    log = (folder / "log").open("wb")
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    whole = [*map(str, command), *map(str, database)]
    process = subprocess.Popen(whole, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
    until = time.monotonic() + 180
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < until, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its web server too
        process.wait(30)


def track(trackers: str, folder: Path, rounds: list[dict[str, Any]] = ROUNDS, **given: Any) -> Tracker:
    """Track a run with rounds and a curve, and end it."""
    given = {"name": "run-1", "config": {"trainer": {"epochs": 3}}, "data_fingerprint": "f" * 64} | given
    warnings: list[str] = []
    tracker = Tracker.start(trackers, TrackedRun(**given), folder, Reporter(warnings.append))
    for entry in rounds:
        tracker.round(entry)
    tracker.draw(lambda: [Plot("roc", "1 - specificity", "sensitivity", [(0.0, 0.0), (0.5, 0.9), (1.0, 1.0)])])
    tracker.finish({"test": {"auroc": 0.97, "sensitivity:COVID (19)": 0.5, "none": None}}, "done")
    assert warnings == []
    return tracker


def check_mlflow(store: Store, folder: Path) -> None:
    """A run, its resume, and a sweep with a trial."""
    track(f"mlflow:{store.address}", folder, ROUNDS[:2])
    track(f"mlflow:{store.address}", folder, ROUNDS)  # resumed: continues the same run
    sweep = Tracker.start(f"mlflow:{store.address}", TrackedRun("s", {}, "f", group="s", job_type="sweep"), folder)
    track(f"mlflow:{store.address}", folder, name="s-t01", group="s", job_type="trial")
    sweep.finish({"validation/auroc": 0.9}, "interrupted")

    runs = store.runs()
    assert sorted(runs) == ["run-1", "s", "s-t01"]
    run = runs["run-1"]
    assert [(step, value) for step, _, value in store.curve("run-1", "validation/auroc")] == [
        (10, 0.91),
        (20, 0.92),
        (30, 0.93),
    ]
    assert store.curve("run-1", "train/loss")[0][1] == 1_700_000_001_500
    assert run.data.metrics["test/auroc"] == 0.97
    assert run.data.metrics["test/sensitivity:COVID _19_"] == 0.5
    assert run.data.params["trainer.epochs"] == "3"
    assert run.data.params["data_fingerprint"] == "f" * 64
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "done")
    assert runs["s-t01"].data.tags["mlflow.parentRunId"] == runs["s"].info.run_id
    assert runs["s"].info.status == "KILLED"
    assert store.table("run-1", "roc", folder)["data"] == [[0, 0], [0.5, 0.9], [1, 1]]


def check_models(store: Store, folder: Path) -> None:
    """A bundle under two aliases is one version, without images."""
    bundle = make_bundle(folder / "tiny", version="3")
    warnings: list[str] = []
    for job, aliases in (("export", []), ("promote", ["champion"])):
        track_bundle(
            bundle,
            f"mlflow:{store.address},tensorboard",
            job=job,
            folder=folder,
            aliases=aliases,
            reporter=Reporter(warnings.append),
        )
    assert warnings == ["TensorBoard: keeps no models; wandb and mlflow do"] * 2
    assert not (folder / "tensorboard").exists()
    with connect(store.address):
        (version,) = store.client.search_model_versions("name = 'tiny'")
        assert store.client.get_model_version_by_alias("tiny", "champion").version == version.version
        kept = store.client.download_artifacts(version.run_id, "bundle", str(folder))
    assert version.tags["digest"] == bundle.digest
    assert version.tags["test/auroc"] == "0.9"
    files = {path.relative_to(bundle.folder) for path in bundle.folder.rglob("*") if path.is_file()}
    assert {path.relative_to(kept) for path in Path(kept).rglob("*") if path.is_file()} == files


def test_mlflow_has_each_round_once_with_step_and_time_and_the_trials_of_a_sweep(store: Store, tmp_path: Path) -> None:
    check_mlflow(store, tmp_path)


def test_a_bundle_is_a_registered_model(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_models(store, tmp_path)
    assert not (tmp_path / "mlflow.db").exists()  # the client's default


@pytest.mark.slow
def test_a_server_of_mlflow_keeps_the_same_as_a_store(
    server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    check_mlflow(Store(server), tmp_path)
    check_models(Store(server), tmp_path)
    assert capfd.readouterr().out == ""  # `--json` prints its document there


def test_tensorboard_has_each_round_once_with_step_and_time_also_after_a_resume(tmp_path: Path) -> None:
    track("tensorboard", tmp_path, ROUNDS[:2])
    track("tensorboard", tmp_path)

    events, texts = read_events(tmp_path), read_texts(tmp_path)
    wanted = [(entry["step"], entry["time"], entry["validation"]["auroc"]) for entry in ROUNDS]
    assert np.array(events["validation/auroc"]) == pytest.approx(np.array(wanted))
    assert events["test/auroc"][0][2] == pytest.approx(0.97)
    assert "validation/odd" not in events
    assert "epochs: 3" in texts["config"]
    assert "| 0.5 | 0.9 |" in texts["plots/roc"]
    assert texts["status"] == "done"


def test_a_server_that_is_away_costs_one_line_and_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings: list[str] = []
    tracked = TrackedRun("run-1", {}, "f")

    tracker = Tracker.start(
        "mlflow:http://me:secret@127.0.0.1:9,tensorboard", tracked, tmp_path, Reporter(warnings.append)
    )
    for entry in ROUNDS:
        tracker.round(entry)
    tracker.finish({}, "done")

    (warning,) = warnings
    assert warning.startswith("MLflow: ")
    assert warning.endswith("; run-1 is not tracked")
    assert "secret" not in warning
    assert len(read_events(tmp_path)["train/loss"]) == 3


def test_mlflow_without_an_address_says_what_to_set(tmp_path: Path) -> None:
    warnings: list[str] = []
    assert not Tracker.start("mlflow", TrackedRun("run-1", {}, "f"), tmp_path, Reporter(warnings.append)).trackers
    assert warnings == ["MLflow: no server: set MLFLOW_TRACKING_URI, or give mlflow:URI; run-1 is not tracked"]


def test_a_store_that_breaks_during_a_run_stops_only_its_own_tracking(store: Store, tmp_path: Path) -> None:
    warnings: list[str] = []
    both = f"mlflow:{store.address},tensorboard"
    tracker = Tracker.start(both, TrackedRun("run-1", {}, "f"), tmp_path, Reporter(warnings.append))
    tracker.round(ROUNDS[0])
    shutil.rmtree(tmp_path / "store")
    for entry in ROUNDS:
        tracker.round(entry)
    tracker.finish({}, "done")
    assert len(warnings) == 1
    assert warnings[0].endswith("; tracking stops, the run continues")
    assert len(read_events(tmp_path)["train/loss"]) == 3


@pytest.mark.usefixtures("no_pages")
def test_nothing_that_is_sent_names_an_image_a_patient_or_a_path(
    synthesise_run: SynthesiseRun, tiny: Experiment, store: Store, tmp_path: Path
) -> None:
    run = synthesise_run()
    evaluate_run(run, resamples=10)
    info = run.info()
    weights = {"backend": {"type": "local", "cache_dir": str(tmp_path / "secret" / "cache")}, "own": "weights/net.pt"}
    experiment = replace(tiny, document=replace(tiny.document, data=tiny.document.data | weights))
    warnings: list[str] = []

    hooks = Hooks(Reporter(warnings.append), tracking=f"wandb:offline,mlflow:{store.address},tensorboard")
    with track_run(run, info, experiment, hooks):
        pass

    assert warnings == []
    rounds, auroc = read_history(run), read_values(run)["test"]["auroc"]
    assert len(rounds_of(run.folder)) == len(store.curve(run.name, "epoch")) == len(rounds)
    assert summary_of(run.folder)["test/auroc"] == auroc == store.runs()[run.name].data.metrics["test/auroc"]
    assert read_events(run.folder)["test/auroc"][0][2] == pytest.approx(auroc)
    sent = [
        path.read_bytes()
        for folder in (run.folder / "wandb", tmp_path / "store", run.folder / "tensorboard")
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".log" and path.name != "meta.yaml"  # local; and the store's own address
    ]
    everything = b"\n".join(sent)
    assert b"(path)" in everything
    assert info.data_fingerprint.encode() in everything
    dataset = Path(info.data)
    # wandb's own folder of waiting tables, below the home folder, is in its file, which `wandb sync` reads here
    cells = {cell for row in (dataset / "manifest.csv").read_text().splitlines() for cell in row.split(",")}
    private = {cell for cell in cells if cell.startswith(("images/", "person"))} | {"secret", "net.pt", str(tmp_path)}
    assert len(private) > 100
    assert [text for text in private if text.encode() in everything] == []
