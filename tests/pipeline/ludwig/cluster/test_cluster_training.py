"""Training on Ray: what a config may say of workers, how work is shared, and that the result is that of a local run."""

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.pipeline import config, training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.evaluation.results import read_metrics
from pneumo.pipeline.ludwig.cluster.placement import FOLDER_PREFIX, Placement, Workers, read_workers
from pneumo.pipeline.runs.reporter import Reporter, Step
from pneumo.pipeline.runs.run import Run, Status
from pneumo.pipeline.training.run import TrainingError
from pneumo.serving.contracts.errors import InputError, MachineError
from tests.support.paths import CONFIGS
from tests.support.reporters import RecordingReporter

TWO = "backend={type: ray, trainer: {num_workers: 2, use_gpu: false}}"
PLAIN = (
    "input_features.0.encoder.conv_layers=[{out_channels: 8, kernel_size: 3, pool_kernel_size: 2}]",
    "input_features.0.encoder.fc_layers=[{output_size: 16}]",
)
"""Neither batch norm nor dropout, so that nothing but rounding tells a shared batch from a whole one."""


def with_overrides(experiment: Experiment, *overrides: str) -> Experiment:
    return dataclasses.replace(experiment, document=experiment.document.override(overrides))


def test_a_config_without_ray_asks_for_no_workers_and_takes_no_address(tiny: Experiment) -> None:
    assert read_workers(tiny) is None
    with pytest.raises(InputError, match="--address joins a Ray cluster, but the config trains in this process"):
        read_workers(tiny, "auto")


def test_workers_are_read_from_the_config() -> None:
    stated = "backend={type: ray, trainer: {num_workers: 2, use_gpu: true, resources_per_worker: {CPU: 4, GPU: 0.5}}}"

    experiment = config.load_config(CONFIGS / "smoke.yaml", (stated,))

    assert read_workers(experiment, "auto") == Workers("auto", 2, True, 4, 0.5)


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("{type: ray, trainer: {num_worker: 2}}", "did you mean 'num_workers'"),
        ("{type: ray, trainer: {num_workers: 0}}", "the least is 1"),
        ("{type: ray, trainer: {resources_per_worker: {CPU: 0}}}", "more than 0"),
        ("{type: local, trainer: {num_workers: 2}}", "unknown key 'trainer' under backend"),
        ("{type: rey}", "did you mean 'ray'"),
    ],
)
def test_a_wrong_backend_is_refused(backend: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        config.load_config(CONFIGS / "smoke.yaml", (f"backend={backend}",))


def test_a_batch_that_the_workers_cannot_share_is_refused_with_its_place(tiny: Experiment) -> None:
    odd = with_overrides(tiny, "backend={type: ray, trainer: {num_workers: 3}}", "trainer.batch_size=32")

    with pytest.raises(InputError, match=r"-o trainer\.batch_size: .* multiple of the 3 workers, such as 33"):
        read_workers(odd)


def test_what_a_config_leaves_open_follows_the_cluster() -> None:
    open_ended = Workers("auto", None, None, None, None)

    assert open_ended.allocate_resources({"CPU": 32.0, "GPU": 8.0}, 4) == Placement(8, True, 1.0, 1.0)
    assert open_ended.allocate_resources({"CPU": 32.0}, 4) == Placement(4, False, 1.0, 0.0)
    assert Workers("auto", 2, False, 4, None).allocate_resources({"CPU": 8.0, "GPU": 8.0}, 4) == Placement(
        2, False, 4, 0.0
    )


@pytest.mark.parametrize(("use_gpu", "missing"), [(False, "4 workers need 4 CPU"), (True, "4 workers need 4 GPU")])
def test_a_cluster_that_is_too_small_is_said_at_once(use_gpu: bool, missing: str) -> None:
    cluster = {"CPU": 4.0, "GPU": 3.0} if use_gpu else {"CPU": 3.0, "GPU": 0.0}

    with pytest.raises(MachineError, match=missing):
        Workers("auto", 4, use_gpu, None, None).allocate_resources(cluster, 1)


@given(total=st.integers(1, 200), size=st.integers(1, 64), workers=st.integers(1, 8))
def test_each_batch_of_an_evaluation_goes_to_one_worker(ludwig: object, total: int, size: int, workers: int) -> None:
    from pneumo.pipeline.ludwig.cluster.parallel import WorkerSampler

    whole = [list(range(start, min(start + size, total))) for start in range(0, total, size)]

    shares = [list(WorkerSampler(total, size, rank, workers)) for rank in range(workers)]

    batches = [share[start : start + size] for share in shares for start in range(0, len(share), size)]
    assert sorted(batches) == whole


def test_of_several_failures_the_first_cause_is_named(ludwig: object) -> None:
    import ray
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    from pneumo.pipeline.ludwig.cluster.driver import find_reason

    class FailedError(Exception):
        worker_failures: dict[int, Exception]

    lost = FailedError("worker group failed")
    lost.worker_failures = {
        0: RuntimeError("gloo/transport: Connection closed by peer"),
        1: ray.exceptions.RayActorError(),
    }
    assert find_reason(lost, 2) == "worker 2 of 2 died (killed, out of memory, or its machine is gone)"
    lost.worker_failures = {0: WorkerHealthCheckFailedError("not healthy", failure=ray.exceptions.RayActorError())}
    assert find_reason(lost, 2) == "worker 1 of 2 died (killed, out of memory, or its machine is gone)"
    lost.worker_failures = {
        0: RuntimeError("Connection closed by peer"),
        1: RuntimeError("Traceback ...\nno such file"),
    }
    assert find_reason(lost, 2) == "worker 2 of 2: no such file"


@pytest.fixture
def quiet_machine() -> Iterator[None]:
    """Check at the end that the processes of Ray have ended and their folders are removed."""
    yield
    _, alive = psutil.wait_procs(ray_processes(), timeout=300)
    assert not alive
    assert not list(Path("/tmp").glob(f"{FOLDER_PREFIX}{os.getpid()}-*"))


def ray_processes(word: str = "") -> list[psutil.Process]:
    """Ray's processes below this one."""
    below = psutil.Process().children(recursive=True)
    lines = [(process, " ".join(process.cmdline())) for process in below if process.status() != psutil.STATUS_ZOMBIE]
    return [process for process, line in lines if ("ray::" in line or "/ray/" in line) and word in line]


def curves(run: Run) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = json.loads(run.history.read_text(encoding="utf-8"))
    return history


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_machine")
def test_two_workers_train_the_model_that_one_process_trains(
    tiny: Experiment, dataset: Dataset, tmp_path: Path
) -> None:
    plain = with_overrides(tiny, *PLAIN, "trainer.epochs=2")
    alone = training.train(plain, dataset, root=tmp_path / "alone", seed=7)

    shared = training.train(with_overrides(plain, TWO), dataset, root=tmp_path / "shared", seed=7)

    assert [entry["step"] for entry in curves(shared)] == [entry["step"] for entry in curves(alone)]
    assert [entry["learning_rate"] for entry in curves(shared)] == [entry["learning_rate"] for entry in curves(alone)]
    for entry, other in zip(curves(shared), curves(alone), strict=True):
        assert entry["validation"] == pytest.approx(other["validation"], abs=2e-3)
    for split in ("validation", "test"):
        values = [read_metrics(run).splits[split].metrics["auroc"].value for run in (shared, alone)]
        assert values[0] == pytest.approx(values[1], abs=0.01)
    assert shared.info().status is Status.DONE
    assert shared.report.is_file()
    assert not list(shared.folder.glob(".*checkpoints*"))


class KillWorker(Reporter):
    """kill -9 of one worker once an epoch is kept."""

    def __init__(self, runs: Path) -> None:
        super().__init__()
        self.runs = runs
        self.killed = False

    def step(self, step: Step) -> None:
        if not self.killed and any(self.runs.glob("*/.checkpoints/[0-9]*")):
            self.killed = True
            os.kill(ray_processes("RayTrainWorker")[0].pid, signal.SIGKILL)


@pytest.mark.lengthy
@pytest.mark.slow
@pytest.mark.usefixtures("quiet_machine")
def test_a_killed_worker_ends_the_run_in_a_line_and_it_can_be_resumed(
    tiny: Experiment, dataset: Dataset, tmp_path: Path
) -> None:
    experiment = with_overrides(tiny, TWO, "trainer.epochs=40")
    steps = -(-len(dataset.select(Split.TRAIN)) // 16)

    with pytest.raises(TrainingError, match=r"worker [12] of 2 died .*; details in .*train\.log"):
        training.train(experiment, dataset, root=tmp_path, seed=7, reporter=KillWorker(tmp_path))

    (folder,) = tmp_path.iterdir()
    run = Run(folder)
    assert run.info().status is Status.FAILED
    kept = len(curves(run))
    assert 1 <= kept < 40
    run.config.write_text(run.config.read_text(encoding="utf-8").replace("epochs: 40", f"epochs: {kept + 1}"))
    seen = RecordingReporter()

    training.resume(run, reporter=seen)

    assert run.info().status is Status.DONE
    assert [entry["epoch"] for entry in curves(run)] == list(range(1, kept + 2))
    assert min(seen.steps) > (kept - 1) * steps
