"""Real sweeps on Ray. Each starts a cluster on this machine, whose workers load Ludwig."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pneumo.pipeline import config, training
from pneumo.pipeline.comparing.run_list import summarise_runs
from pneumo.pipeline.config.document import parse_document, read_document
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.evaluation import read_metrics
from pneumo.pipeline.runs.history import read_history
from pneumo.pipeline.runs.run import Run, Status
from pneumo.pipeline.sweep import search
from pneumo.pipeline.sweep import winner as finish
from pneumo.pipeline.sweep.record import Sweep, SweepFolder, Trial, TrialStatus
from pneumo.pipeline.sweep.search import Plan
from pneumo.pipeline.sweep.space import Space, read_space
from pneumo.pipeline.sweep.sweep_settings import SweepLimits
from pneumo.serving.contracts.errors import InputError
from tests.conftest import TINY, Outcome
from tests.support.paths import CONFIGS
from tests.support.reporters import UpdateReporter
from tests.support.tensorboard_files import read_events
from tests.support.waiting import until
from tests.support.wandb_files import records, rounds_of, summary_of

pytestmark = pytest.mark.slow

GOAL = {"goal": "maximize", "metric": "roc_auc", "output_feature": "label"}
RATE = "trainer.learning_rate_scheduler.max_lr"
SPACE = {
    RATE: {"space": "loguniform", "lower": 0.0005, "upper": 0.02},
    "image.encoder.fc_layers": {"space": "choice", "categories": [[{"output_size": 16}], [{"output_size": 8}]]},
}


def make_space(parameters: dict[str, object], *overrides: str, **section: object) -> Space:
    config = read_document(CONFIGS / "smoke.yaml").override([*TINY, *overrides]).data
    config |= {"hyperopt": {**GOAL, "parameters": parameters, **section}}
    return read_space(parse_document(yaml.safe_dump(config), "tiny.yaml"), "tiny")


def by_status(record: Sweep) -> dict[str, int]:
    return {status: sum(trial.status == status for trial in record.trials) for status in TrialStatus}


@pytest.fixture(scope="module")
def swept(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """Four trials on two workers: one diverges, one asks for more memory than there is."""
    encoders = [
        {"type": "stacked_cnn"},
        {"fc_layers": [{"output_size": 2_000_000_000}]},
    ]
    points = [
        {RATE: 0.002, "image.encoder": {"type": "stacked_cnn"}, "trainer.optimizer": {"type": "adamw"}},
        {RATE: 1e30, "image.encoder": {"type": "stacked_cnn"}, "trainer.optimizer": {"type": "sgd"}},
        {RATE: 0.002, "image.encoder": encoders[1], "trainer.optimizer": {"type": "adamw"}},
    ]
    asked = make_space(
        {
            RATE: {"space": "choice", "categories": [0.002, 0.005, 0.01, 1e30]},
            "image.encoder": {"space": "choice", "categories": encoders},
            "trainer.optimizer": {"space": "choice", "categories": [{"type": "adamw"}, {"type": "sgd"}]},
        },
        search_alg={"type": "optuna", "points_to_evaluate": points},
    )
    plan = Plan(SweepLimits(trials=4, concurrency=2), seed=3, tracking="wandb:offline,tensorboard")
    return search.run_sweep(asked, dataset, plan=plan, root=tmp_path_factory.mktemp("sweeps"))


@pytest.mark.lengthy
def test_trials_that_break_are_told_with_their_reason_and_sink_nothing(swept: SweepFolder) -> None:
    record = swept.read()
    assert record.status == "done"
    diverged, huge = record.trials[1], record.trials[2]
    assert diverged.status is TrialStatus.FAILED
    assert "NaN or Inf" in str(diverged.error) or "not a finite number" in str(diverged.error)
    assert huge.status is TrialStatus.FAILED
    assert "memory" in str(huge.error)
    assert record.trials[0].status is TrialStatus.DONE


@pytest.mark.lengthy
def test_a_trial_is_a_run_like_any_other(swept: SweepFolder) -> None:
    record = swept.read()
    run = swept.run_of(record.trials[0])
    assert run is not None
    info = run.info()
    assert info.status is Status.DONE
    assert info.name == run.name
    assert config.load_config(run.config).config["trainer"]["learning_rate_scheduler"]["max_lr"] == 0.002
    assert run.name in [summary.name for summary in summarise_runs(swept.runs)]


@pytest.mark.lengthy
def test_each_trial_is_a_tracked_run_in_the_group_of_its_sweep(swept: SweepFolder) -> None:
    trial = swept.read().trials[0]
    run = swept.run_of(trial)
    assert run is not None
    every = records(run.folder)
    tracked = next(record.run for record in every if record.HasField("run"))
    assert (tracked.run_group, tracked.display_name, tracked.job_type) == (swept.name, run.name, "trial")
    told = {item.key: item.value_json for item in tracked.config.update}
    assert json.loads(told["parameters"]) == trial.parameters
    assert len(rounds_of(run.folder)) == len(trial.rounds)
    parent = next(record.run for record in records(swept.folder) if record.HasField("run"))
    assert (parent.run_group, parent.display_name, parent.job_type) == (swept.name, swept.name, "sweep")
    assert summary_of(swept.folder)["validation/auroc"] == trial.value("maximize")
    assert len(read_events(run.folder)["validation/auroc"]) >= len(trial.rounds)


@pytest.mark.lengthy
def test_workers_take_one_trial_after_the_other(swept: SweepFolder) -> None:
    pids = {run.info().pid for run in Run.list_folders(swept.runs)}
    assert len(pids) <= 2 < len(swept.read().trials)


@pytest.mark.lengthy
def test_the_winner_is_measured_and_its_config_complete(swept: SweepFolder) -> None:
    run = finish.best_run(swept)
    assert run.metrics.is_file()
    best = config.load_config(swept.best)
    assert "hyperopt" not in best.config
    assert best.config == config.load_config(run.config).config
    assert swept.report.is_file()
    assert swept.table.read_text(encoding="utf-8").count("\n") == 1 + len(swept.read().trials)


@pytest.mark.lengthy
def test_the_winner_is_promoted_without_training_it_again(
    swept: SweepFolder, pneumo: Callable[..., Outcome], tmp_path: Path
) -> None:
    before = len(Run.list_folders(swept.runs))
    outcome = pneumo("promote", "best", "--sweep", swept.folder, "--models-dir", tmp_path / "models")
    assert outcome.code == 0, outcome.err
    assert len(Run.list_folders(swept.runs)) == before
    assert "champion is now" in outcome.err


@pytest.mark.lengthy
def test_a_trial_that_was_not_measured_is_when_it_is_evaluated(
    swept: SweepFolder, pneumo: Callable[..., Outcome], tmp_path: Path
) -> None:
    trained = swept.run_of(swept.read().trials[0])
    assert trained is not None
    run = Run(tmp_path / trained.name)
    shutil.copytree(trained.folder, run.folder)
    run.predictions.unlink(missing_ok=True)
    run.metrics.unlink(missing_ok=True)
    outcome = pneumo("evaluate", run.folder)
    assert outcome.code == 0, outcome.err
    assert run.metrics.is_file()


@pytest.mark.lengthy
def test_a_finished_sweep_is_not_resumed(swept: SweepFolder) -> None:
    with pytest.raises(InputError, match="done already"):
        search.resume_sweep(swept)


@pytest.mark.lengthy
def test_schedulers_stop_early_and_seeds_decide(dataset: Dataset, tmp_path: Path) -> None:
    asked = make_space(
        SPACE,
        "trainer.epochs=4",
        metric="roc_auc + stress.auroc",
        executor={"scheduler": {"type": "async_hyperband", "reduction_factor": 2}},
    )
    plan = Plan(SweepLimits(trials=5), seeds=2, top=2)
    folder = search.run_sweep(asked, dataset, plan=plan, root=tmp_path)
    record = folder.read()
    first = [trial for trial in record.trials if trial.repeats is None]
    again = [trial for trial in record.trials if trial.repeats is not None]
    assert len(first) == 5
    for trial in first:
        run = folder.run_of(trial)
        rounds = [entry["validation"] for entry in read_history(run)] if run else []
        assert [each.value for each in trial.rounds] == [each["roc_auc + stress.auroc"] for each in rounds]
        assert all(each["stress.worst"] <= each["stress.auroc"] for each in rounds)
    assert any(trial.status is TrialStatus.STOPPED and len(trial.rounds) < 4 for trial in first)
    assert len(again) == 2
    assert {trial.repeats for trial in again} == {trial.name for trial in record.ranked()[:2]}
    for trial in again:
        original = record.trial(str(trial.repeats))
        assert original is not None
        assert trial.parameters == original.parameters
        assert trial.seed == original.seed + 1
    stopped = next(trial for trial in first if trial.status is TrialStatus.STOPPED)
    run = folder.run_of(stopped)
    assert run is not None
    assert run.info().status is Status.INTERRUPTED
    training.complete(run)
    assert run.info().status is Status.DONE
    best = stopped.value("maximize")
    measured = read_metrics(run).splits["validation"].metrics["auroc"].value
    assert measured == pytest.approx(best, abs=1e-4)


@pytest.mark.lengthy
@pytest.mark.parametrize("algorithm", ["variant_generator", "optuna"])
def test_a_finished_sweep_is_extended_by_new_points(dataset: Dataset, tmp_path: Path, algorithm: str) -> None:
    asked = make_space(SPACE, "trainer.epochs=1", search_alg={"type": algorithm})
    folder = search.run_sweep(asked, dataset, plan=Plan(SweepLimits(trials=2), seeds=2, top=1), root=tmp_path)
    before = folder.read()
    search.resume_sweep(folder, trials=4)
    record = folder.read()
    assert (record.status, record.wanted, record.added) == ("done", 4, [2])
    assert [trial.model_dump() for trial in record.trials[:3]] == [trial.model_dump() for trial in before.trials]
    first = [trial for trial in record.trials if trial.repeats is None]
    assert [trial.status for trial in first] == [TrialStatus.DONE] * 4
    assert len({json.dumps(trial.parameters) for trial in first}) == 4
    best = record.ranked()[0]
    assert best.name in {trial.repeats for trial in record.trials}  # the new best is repeated with another seed too
    assert all(folder.run_of(trial) is not None for trial in record.trials)
    assert folder.table.read_text(encoding="utf-8").count("\n") == 1 + len(record.trials)
    with pytest.raises(InputError, match="done already"):
        search.resume_sweep(folder)


@pytest.mark.lengthy
def test_another_search_and_another_scheduler_work(dataset: Dataset, tmp_path: Path) -> None:
    asked = make_space(
        SPACE,
        "trainer.epochs=4",
        search_alg={"type": "hyperopt"},
        executor={"scheduler": {"type": "median_stopping_rule"}},
    )
    record = search.run_sweep(asked, dataset, plan=Plan(SweepLimits(trials=4)), root=tmp_path).read()
    assert len(record.ranked()) == 4
    assert not [trial.error for trial in record.trials if trial.error]


@pytest.mark.lengthy
def test_no_trial_goes_on_after_the_time_budget(dataset: Dataset, tmp_path: Path) -> None:
    asked = make_space(SPACE, "trainer.epochs=1000")
    limits = SweepLimits(trials=20, time_budget=100, concurrency=1)
    record = search.run_sweep(asked, dataset, plan=Plan(limits), root=tmp_path).read()
    assert record.status == "done"
    assert record.seconds < 150
    assert record.trials[0].status is TrialStatus.STOPPED
    assert len(record.trials) < 20


@pytest.mark.lengthy
def test_a_worker_that_is_killed_is_replaced_and_its_trial_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(record: Sweep, now: float) -> None:
        for trial in record.trials:
            if len(trial.rounds) == 2 and not killed:
                killed.extend(_workers())
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

    asked = make_space(SPACE, "trainer.epochs=6")
    folder = search.run_sweep(
        asked,
        dataset,
        plan=Plan(SweepLimits(trials=2, concurrency=1)),
        root=tmp_path,
        reporter=UpdateReporter(kill),
    )
    record = folder.read()
    assert killed
    assert by_status(record)["done"] == 2
    assert [entry.epoch for entry in record.trials[0].rounds] == [1, 2, 3, 4, 5, 6]


def _workers() -> list[int]:
    """Processes of this process's cluster that carry out trials."""
    found = subprocess.run(["pgrep", "-f", "ray::ImplicitFunc"], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in found.split()]


@pytest.fixture
def sweep_process(dataset: Dataset, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`pneumo sweep` in a process of its own, to be killed."""
    started: list[subprocess.Popen[str]] = []
    asked = make_space(SPACE, "trainer.epochs=12", "trainer.batch_size=4")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(asked.document.data), encoding="utf-8")

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from pneumo.pipeline.cli import main; main()", "sweep", *arguments]
        started.append(
            subprocess.Popen(
                command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _wait_for(root: Path, ready: Callable[[Sweep], bool]) -> SweepFolder:
    found: list[SweepFolder] = []

    def came_so_far() -> bool:
        found[:] = [folder for path in root.glob("*/sweep.json") if ready((folder := SweepFolder(path.parent)).read())]
        return bool(found)

    until(came_so_far, timeout=600)
    return found[0]


def _one_done_one_under_way(record: Sweep) -> bool:
    done = any(trial.status is TrialStatus.DONE for trial in record.trials)
    return done and any(trial.status is TrialStatus.RUNNING and len(trial.rounds) >= 3 for trial in record.trials)


def _rounds(trial: Trial) -> list[tuple[int, float]]:
    return [(entry.step, entry.value) for entry in trial.rounds]


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(each, marks=pytest.mark.lengthy) for each in (signal.SIGINT, signal.SIGTERM))],
)
def test_an_ended_sweep_goes_on_where_it_was(
    dataset: Dataset, tmp_path: Path, sweep_process: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = sweep_process("tiny.yaml", "--data", str(dataset.folder), "--trials", "2", "--concurrency", "1")
    folder = _wait_for(tmp_path / "sweeps", _one_done_one_under_way)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    before = folder.read()
    if number is not signal.SIGKILL:
        assert process.returncode == 130, err
        assert "--resume" in err
        assert before.status == "interrupted"
    with pytest.raises(InputError, match="no such sweep"):
        SweepFolder.open("nothing", root=tmp_path / "sweeps")
    process = sweep_process("--resume", "latest")
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    after = folder.read()
    assert by_status(after)["done"] == 2
    done = next(trial for trial in before.trials if trial.status is TrialStatus.DONE)
    assert _rounds(done) == _rounds(next(trial for trial in after.trials if trial.name == done.name))
    assert len(after.trials) == 2
    under_way = next(
        trial for trial in before.trials if trial.status is TrialStatus.RUNNING or 0 < len(trial.rounds) < 12
    )
    continued = after.trial(under_way.name)
    assert continued is not None
    assert [entry.epoch for entry in continued.rounds] == list(range(1, 13))
    assert _rounds(continued)[: len(under_way.rounds) - 1] == _rounds(under_way)[:-1]
    assert "best:" in out


@pytest.mark.lengthy
def test_a_full_disk_is_said_and_the_sweep_goes_on_with_more_room(
    dataset: Dataset, tmp_path: Path, pneumo: Callable[..., Outcome]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(make_space(SPACE).document.data), encoding="utf-8")
        sweeps = ("--sweeps-dir", disk / "sweeps")
        outcome = pneumo("sweep", tmp_path / "tiny.yaml", "--data", dataset.folder, "--trials", "2", *sweeps)
        assert outcome.code == 3, outcome.err
        assert "No space left on device" in outcome.err
        assert "Traceback" not in outcome.err
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        outcome = pneumo("sweep", "--resume", "latest", *sweeps)
        assert outcome.code == 0, outcome.err
        record = SweepFolder.open("latest", root=disk / "sweeps").read()
        assert by_status(record)["done"] == 2
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.lengthy
def test_a_machine_that_leaves_in_the_middle_costs_no_trial(dataset: Dataset, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    removed = threading.Event()

    def watch(record: Sweep, now: float) -> None:
        busy = [trial for trial in record.trials if trial.status is TrialStatus.RUNNING and trial.rounds]
        if len(busy) == 2 and not removed.is_set():
            removed.set()
            threading.Thread(target=cluster.remove_node, args=(second,), kwargs={"allow_graceful": False}).start()

    try:
        asked = make_space(SPACE, "trainer.epochs=20", "trainer.batch_size=4")
        plan = Plan(SweepLimits(trials=4, cpus=1), address=cluster.address, storage=str(tmp_path / "shared"))
        folder = search.run_sweep(asked, dataset, plan=plan, root=tmp_path, reporter=UpdateReporter(watch))
    finally:
        cluster.shutdown()
    record = folder.read()
    assert removed.is_set()
    assert by_status(record)["done"] == 4
    assert all([entry.epoch for entry in trial.rounds] == list(range(1, 21)) for trial in record.trials)
    assert all(folder.run_of(trial) is not None for trial in record.trials)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    """Address of a bucket of a Google Cloud Storage emulator on this machine."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="sweeps")
    server.start()
    port = server._api._httpd.socket.getsockname()[1]
    yield f"gs://anonymous@sweeps/here?scheme=http&endpoint_override=127.0.0.1:{port}&retry_limit_seconds=5"
    server.stop()


@pytest.mark.lengthy
def test_trials_can_be_kept_in_a_bucket(dataset: Dataset, tmp_path: Path, bucket: str) -> None:
    asked = make_space(SPACE, "trainer.epochs=2")
    folder = search.run_sweep(asked, dataset, plan=Plan(SweepLimits(trials=2), storage=bucket), root=tmp_path)
    record = folder.read()
    assert [trial.name for trial in record.trials if "://" not in str(trial.run)] == [record.winner]
    run = folder.run_of(record.trial(str(record.winner)))
    assert run is not None
    assert run.metrics.is_file()
    assert finish.best_run(folder).info().status is Status.DONE


@pytest.mark.lengthy
def test_ludwig_takes_the_same_file(dataset: Dataset, tmp_path: Path, ludwig: object) -> None:
    from ludwig.hyperopt.execution import RayTuneExecutor
    from ludwig.schema.model_types.base import ModelConfig

    asked = make_space(SPACE, executor={"num_samples": 2}, search_alg={"type": "optuna"})
    data: Any = asked.document.data
    settings = ModelConfig.from_dict(data).to_dict()["hyperopt"]
    names, _ = RayTuneExecutor._get_search_space(RayTuneExecutor, settings["parameters"])  # type: ignore[arg-type]
    assert set(names) == {parameter.name for parameter in asked.parameters}
