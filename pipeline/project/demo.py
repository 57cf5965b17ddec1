"""The whole loop on phantom images, each step the same function that its command calls."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumo.serving.contracts.errors import CheckFailedError, PneumoError

if TYPE_CHECKING:
    from pneumo.pipeline.config import Experiment
    from pneumo.pipeline.data.manifest import Dataset
    from pneumo.pipeline.runs.reporter import Reporter
    from pneumo.pipeline.runs.run import Run
    from pneumo.serving.drift.verdict import DriftCheck

IMAGES = 640
SEED = 0
READY_S = 60.0
"""Longest wait for the service to answer, in seconds."""


@dataclass(frozen=True)
class Demo:
    """Where everything lies, and what the service said.

    Attributes:
        folder: The demo's folder; `data`, `run`, `bundle`, `models` and `drift_report` lie in it.
        image: The test image that was sent.
        prediction: The service's answer.
        metrics: Value of each metric on the test split.
        drift: Whether the test images look like those that the model knows.
        seconds: What each step took.
    """

    folder: Path
    data: Path
    run: Path
    bundle: Path
    models: Path
    drift_report: Path
    image: Path
    prediction: dict[str, Any]
    metrics: dict[str, float]
    drift: "DriftCheck"
    seconds: dict[str, float]


def run_demo(
    folder: Path,
    config: Path,
    *,
    reporter: "Reporter",
) -> Demo:
    """Make images, import, audit, train, export, promote, serve, predict over HTTP, stop, judge drift.

    A second call reuses what is there and is still right: the images, the data set, the finished run and its bundle.

    Args:
        folder: Gets everything.
        config: What to train.
        reporter: Receives progress.

    Raises:
        PneumoError: A step failed.
    """
    from pneumo.pipeline import config as configs
    from pneumo.pipeline.data import audit, importer, phantom
    from pneumo.pipeline.data.manifest import Split
    from pneumo.pipeline.drift.check import check_files, write_drift_report
    from pneumo.pipeline.evaluation import read_metrics
    from pneumo.pipeline.export import bundle_export
    from pneumo.pipeline.release import registry
    from pneumo.pipeline.release.gate import judge_candidate, read_gate
    from pneumo.pipeline.release.gate.decide import GateContext
    from pneumo.serving.model.bundle import Bundle

    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str, text: str) -> Iterator[None]:
        reporter.message(f"[{len(seconds) + 1}/8] {text} ...")
        began = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - began, 1)

    raw, data, models = folder / "phantoms", folder / "data", folder / "models"
    with step("phantom", f"drawing {IMAGES} synthetic radiographs into {raw}"):
        phantom.write_phantoms(raw, images=IMAGES, seed=SEED)
    with step("import", f"importing them into {data}, split by patient"):
        dataset = importer.import_dataset(raw, data, seed=SEED)
    with step("audit", "auditing for damage, duplicates and leakage"):
        found = audit.audit(data)
        if found.defects:
            raise CheckFailedError(f"{data}: {len(found.defects)} defects; see `pneumo data check {data}`")
    experiment = configs.load_config(config)
    with step("train", f"training and evaluating {config.name}"):
        run = _finished(folder / "runs", experiment, dataset) or _train(folder, experiment, dataset, reporter)
    with step("export", "exporting to ONNX, checked against Ludwig"):
        bundle = registry.current_bundle(run) or bundle_export.export_run(run, reporter=reporter)
    with step("promote", f"promoting to champion in {models}"):
        verdict = judge_candidate(
            bundle, registry.CHAMPION, read_gate(), GateContext(models, data, audit=found, reporter=reporter)
        )
        for why in verdict.objections:
            reporter.message(f"the gate would refuse it: {why}")
        registry.promote(bundle, root=models, admission=verdict.admission("the demo shows its newest run"))
    image = dataset.path(dataset.select(Split.TEST)[0])
    with step("serve", "starting the service, sending it a test image, stopping it"):
        prediction = serve_once(models, image)
    images, drift_report = data / "images" / "test", folder / "drift-report"
    with step("drift", f"judging whether the images in {images} look like those that the model knows"):
        drift, _ = check_files(Bundle.open(bundle), [images])
        write_drift_report(drift, drift_report)
    estimates = read_metrics(run).splits["test"].metrics
    metrics = {name: estimate.value for name, estimate in estimates.items() if estimate.value is not None}
    return Demo(
        folder, data, run.folder, bundle, models, drift_report, image, prediction, metrics, drift.check, seconds
    )


def serve_once(models: Path, image: Path) -> dict[str, Any]:
    """Start `pneumo serve` on a free port of 127.0.0.1, post one image, stop it by its own pid; the JSON answer.

    Its prediction log lies beside the registry.

    Raises:
        CheckFailedError: The service did not come up, or refused the image.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = f"sqlite:///{models.parent / 'predictions.sqlite3'}"
    options = ["--models-dir", str(models), "--port", str(port), "--log", log]
    command = [sys.executable, "-m", "pneumo", "serve", *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_ready(server, port)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/predict", data=image.read_bytes(), headers={"Content-Type": "image/png"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            raise CheckFailedError(f"the service answered {error.code}: {error.read().decode()[:300]}") from None
        return answer
    finally:
        server.terminate()
        try:
            server.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()


def _wait_until_ready(server: "subprocess.Popen[str]", port: int) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            reason = (server.stderr.read() if server.stderr else "").strip().splitlines()
            raise CheckFailedError(f"the service ended at once: {reason[-1] if reason else 'it said nothing'}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise CheckFailedError(f"the service was not ready after {READY_S:.0f} s")


def _finished(root: Path, experiment: "Experiment", dataset: "Dataset") -> "Run | None":
    """A finished run of the same config, data and package versions, if there is one."""
    from pneumo.pipeline.runs import provenance
    from pneumo.pipeline.runs.run import Status, list_runs

    versions = provenance.read_versions()
    for run in reversed(list_runs(root)):
        try:
            info = run.info()
            same = (info.data_fingerprint, info.versions) == (dataset.info.fingerprint, versions)
            if info.status is Status.DONE and same and run.config.read_text(encoding="utf-8") == experiment.to_yaml():
                return run
        except (PneumoError, OSError):
            continue
    return None


def _train(
    folder: Path,
    experiment: "Experiment",
    dataset: "Dataset",
    reporter: "Reporter",
) -> "Run":
    from pneumo.pipeline import training

    command = ["pneumo", "demo"]
    return training.train(experiment, dataset, root=folder / "runs", command=command, reporter=reporter)
