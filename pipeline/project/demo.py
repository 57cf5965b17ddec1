"""The demo: every step on phantom images, each the same function that its command calls."""

import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumo.serving.contracts.errors import CheckFailedError, PneumoError
from pneumo.serving.contracts.quantities import format_count

if TYPE_CHECKING:
    from pneumo.pipeline.config import Experiment
    from pneumo.pipeline.data.manifest import Dataset
    from pneumo.pipeline.runs.reporter import Reporter
    from pneumo.pipeline.runs.run import Run
    from pneumo.serving.drift.verdict import DriftCheck

IMAGES = 640
SEED = 0
READY_S = 60.0
"""Longest time for the service to start and answer, in seconds."""


@dataclass(frozen=True)
class Demo:
    """Results of the demo.

    `image` is the test image that was sent to the service, `metrics` are of the test split, `drift` is the check of the
    test images, `seconds` are of each step.
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


def run_demo(folder: Path, config: Path, *, reporter: "Reporter") -> Demo:
    """Draw images, import, audit, train, export, promote, predict over HTTP, and check for drift.

    A second call reuses what is still valid: the images, the data set, the finished run and its bundle.
    """
    from pneumo.pipeline import training
    from pneumo.pipeline.config import load_config
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

    raw, data, models, runs = folder / "phantoms", folder / "data", folder / "models", folder / "runs"
    with step("phantom", f"drawing {IMAGES} synthetic radiographs into {raw}"):
        phantom.write_phantoms(raw, phantom.Recipe(images=IMAGES, seed=SEED))
    with step("import", f"importing them into {data}, split by patient"):
        dataset = importer.import_dataset(raw, data, importer.ImportSettings(seed=SEED))
    with step("audit", "auditing for damage, duplicates and leakage"):
        audited = audit.audit(data)
        if audited.defects:
            defects = format_count(len(audited.defects), "defect")
            raise CheckFailedError(f"{data}: {defects}; see `pneumo data check {data}`")
    experiment = load_config(config)
    with step("train", f"training and evaluating {config.name}"):
        run = _find_finished_run(runs, experiment, dataset) or training.train(
            experiment, dataset, root=runs, command=["pneumo", "demo"], reporter=reporter
        )
    with step("export", "exporting to ONNX, with a parity check"):
        bundle = registry.current_bundle(run) or bundle_export.export_run(run, reporter=reporter)
    with step("promote", f"promoting to champion in {models}"):
        context = GateContext(models, data, audit=audited, reporter=reporter)
        verdict = judge_candidate(bundle, registry.CHAMPION, read_gate(), context)
        for objection in verdict.objections:
            reporter.message(f"the gate would refuse it: {objection}")
        registry.promote(bundle, root=models, admission=verdict.admission("the demo shows its newest run"))
    image = dataset.path(dataset.select(Split.TEST)[0])
    with step("serve", "starting the service, sending a test image, stopping the service"):
        prediction = serve_once(models, image)
    images, drift_report = data / "images" / "test", folder / "drift-report"
    with step("drift", f"checking {images} for drift"):
        drift, _ = check_files(Bundle.open(bundle), [images])
        write_drift_report(drift, drift_report)
    estimates = read_metrics(run).splits["test"].metrics
    metrics = {name: estimate.value for name, estimate in estimates.items() if estimate.value is not None}
    return Demo(
        folder, data, run.folder, bundle, models, drift_report, image, prediction, metrics, drift.check, seconds
    )


def serve_once(models: Path, image: Path) -> dict[str, Any]:
    """Start `pneumo serve` on a free port of 127.0.0.1, send one image, stop the service; return its answer.

    The prediction log lies beside the registry. Raises a `CheckFailedError` if the service does not start or refuses
    the image.
    """
    log = f"sqlite:///{models.parent / 'predictions.sqlite3'}"
    options = ["--models-dir", str(models), "--port", "0", "--log", log]
    command = [sys.executable, "-m", "pneumo", "serve", *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    watchdog = threading.Timer(READY_S, server.kill)
    watchdog.start()
    try:
        last = "without a message"
        while not (ready := re.search(r"listens on (http://\S+)", last)):
            if not (line := server.stderr.readline()):
                raise CheckFailedError(f"the service ended at once: {last}")
            last = line.strip()
        request = urllib.request.Request(  # noqa: S310 - the address begins with http://
            f"{ready[1]}/v1/predict", data=image.read_bytes(), headers={"Content-Type": "image/png"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - as above
            answer: dict[str, Any] = json.load(response)
        return answer
    except urllib.error.HTTPError as error:
        raise CheckFailedError(f"the service answered {error.code}: {error.read().decode()[:300]}") from None
    finally:
        watchdog.cancel()
        server.terminate()
        try:
            server.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()


def _find_finished_run(root: Path, experiment: "Experiment", dataset: "Dataset") -> "Run | None":
    """Return the newest finished run of the same config, data and package versions; None if there is none."""
    from pneumo.pipeline.runs import provenance
    from pneumo.pipeline.runs.run import Run, Status

    wanted = (Status.DONE, dataset.info.fingerprint, provenance.read_versions())
    for run in reversed(Run.list_folders(root)):
        try:
            info, config = run.info(), run.config.read_text(encoding="utf-8")
        except (PneumoError, OSError):
            continue
        if (info.status, info.data_fingerprint, info.versions) == wanted and config == experiment.to_yaml():
            return run
    return None
