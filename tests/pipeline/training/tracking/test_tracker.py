"""Weights & Biases: what reaches its run file; any tracker: that nothing about it can hurt a run."""

import json
import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.training.tracking import tracker as tracking
from pneumo.pipeline.training.tracking import wandb_run
from pneumo.pipeline.training.tracking.interface import Artifact, Plot, TrackedRun
from pneumo.pipeline.training.tracking.tracker import Tracker, parse_trackers
from pneumo.serving.contracts.errors import InputError
from tests.support.wandb_files import records, rounds_of, summary_of

ENTRIES = [
    {
        "epoch": epoch,
        "step": 10 * epoch,
        "learning_rate": 0.001 / epoch,
        "train": {"loss": 1 / epoch},
        "validation": {"loss": 1.5 / epoch, "auroc": 0.9 + epoch / 100, "odd": float("nan")},
    }
    for epoch in (1, 2, 3)
]
CONFIG = {"trainer": {"epochs": 3}, "input_features": [{"name": "image"}]}
NO_ACCOUNT = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL", "WANDB_MODE", "WANDB_DIR")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide any account of this machine."""
    for name in NO_ACCOUNT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def begin(folder: Path, trackers: str = "wandb:offline", said: list[str] | None = None, **given: Any) -> Tracker:
    given = {"name": "20260102T030405Z-smoke-ab12", "data_fingerprint": "f" * 64, "config": CONFIG} | given
    return Tracker.start(trackers, TrackedRun(**given), folder, SILENT if said is None else Reporter(said.append))


def test_each_evaluation_round_becomes_one_step(tmp_path: Path) -> None:
    tracker = begin(tmp_path)
    for entry in (*ENTRIES, *ENTRIES):  # a round that is told again is not tracked again
        tracker.round(entry)
    tracker.finish({"test": {"auroc": 0.97, "none": None}}, "done")

    found = rounds_of(tmp_path)

    assert [found["_step"] for found in found] == [10, 20, 30]
    for entry, one in zip(ENTRIES, found, strict=True):
        assert one["epoch"] == entry["epoch"]
        assert one["step"] == entry["step"]
        assert one["train/loss"] == pytest.approx(entry["train"]["loss"])  # type: ignore[index]
        assert one["validation/auroc"] == pytest.approx(entry["validation"]["auroc"])  # type: ignore[index]
        assert "validation/odd" not in one


def test_the_run_file_says_what_was_trained_on_what_and_how_it_ended(tmp_path: Path) -> None:
    tracker = begin(tmp_path, group="sweep-1", job_type="trial")
    tracker.round(ENTRIES[0])
    tracker.finish({"test": {"auroc": 0.97, "none": None}}, "failed")

    every = records(tmp_path)
    run = next(record.run for record in every if record.HasField("run"))
    told = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in run.config.update}

    assert (run.project, run.display_name, run.run_group) == ("pneumo", "20260102T030405Z-smoke-ab12", "sweep-1")
    assert run.run_id == "20260102T030405Z-smoke-ab12"
    assert run.job_type == "trial"
    assert told["trainer"] == {"epochs": 3}
    assert told["data_fingerprint"] == "f" * 64
    assert {"test/auroc": 0.97, "status": "failed"}.items() <= summary_of(tmp_path).items()
    assert "test/none" not in summary_of(tmp_path)
    assert next(record.exit.exit_code for record in every if record.HasField("exit")) == 1


def test_neither_images_nor_code_nor_console_nor_commit_are_in_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "inner").mkdir(parents=True)
    for name in ("bundle.json", "inner/card.md", "inner/xray.png", "XRAY.JPEG"):
        (bundle / name).write_bytes(name.encode())
    tracker = begin(tmp_path)
    print("said to the console")
    tracker.keep(Artifact("model of mine", bundle, aliases=("champion",)))
    tracker.finish()

    every = records(tmp_path)
    (kept,) = (record.artifact for record in every if record.HasField("artifact"))
    assert sorted(entry.path for entry in kept.manifest.contents) == ["bundle.json", "inner/card.md"]
    assert (kept.type, kept.name) == ("model", "model-of-mine")
    assert "champion" in kept.aliases
    assert not any(record.HasField("output_raw") or record.HasField("output") for record in every)
    run = next(record.run for record in every if record.HasField("run"))
    assert not run.git.commit
    assert not [path for path in tmp_path.glob("wandb/**/*") if path.name in ("requirements.txt", "diff.patch")]
    assert capfd.readouterr().err == ""


def test_curves_are_kept_as_tables_of_points_with_both_ends(tmp_path: Path) -> None:
    points = [(n / 1000, (n / 1000) ** 0.5) for n in range(1001)]
    tracker = begin(tmp_path)
    tracker.draw(lambda: [Plot("roc", "1 - specificity", "sensitivity", points)])
    tracker.finish()

    (path,) = tmp_path.glob("wandb/offline-run-*/files/media/table/plots/roc_table*.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["1 - specificity", "sensitivity"]
    assert table["data"][0] == [0.0, 0.0]
    assert table["data"][-1] == [1.0, 1.0]
    assert len(table["data"]) <= 102


def test_curves_that_cannot_be_made_cost_neither_the_run_nor_the_rest(tmp_path: Path) -> None:
    said: list[str] = []

    def make() -> list[Plot]:
        raise OSError("no predictions")

    tracker = begin(tmp_path, said=said)
    tracker.draw(make)
    tracker.finish({"a": 1.0})

    assert said == ["tracking: no curves (no predictions)"]
    assert summary_of(tmp_path)["a"] == 1.0


def test_it_works_in_a_thread_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    before = dict(os.environ), sys.exit, sys.excepthook
    failures: list[BaseException] = []

    def work() -> None:
        try:
            tracker = begin(tmp_path)
            tracker.round(ENTRIES[0])
            tracker.finish(status="finished")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=120)

    assert failures == []
    assert len(rounds_of(tmp_path)) == 1
    assert before == (dict(os.environ), sys.exit, sys.excepthook)


def test_two_trackers_at_once_do_not_mix(tmp_path: Path) -> None:
    one, other = (begin(tmp_path / name, name=name) for name in ("one", "other"))
    one.round(ENTRIES[0])
    other.round(ENTRIES[1])
    one.round(ENTRIES[2])
    one.finish()
    other.finish()

    assert [found["epoch"] for found in rounds_of(tmp_path / "one")] == [1, 3]
    assert [found["epoch"] for found in rounds_of(tmp_path / "other")] == [2]


def test_disabled_does_nothing_and_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would raise
    said: list[str] = []

    tracker = begin(tmp_path, "wandb:disabled", said)
    tracker.round(ENTRIES[0])
    tracker.finish({"a": 1.0}, "done")

    assert not tracker.trackers
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_online_without_an_account_is_disabled_with_a_line(tmp_path: Path) -> None:
    said: list[str] = []

    tracker = begin(tmp_path, "wandb:online", said)

    assert not tracker.trackers
    assert len(said) == 1
    assert "WANDB_API_KEY" in said[0]


def test_a_tracker_that_is_not_installed_is_left_out_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    said: list[str] = []

    assert not begin(tmp_path, "wandb:offline,mlflow,tensorboard", said, name="r").trackers
    assert said == [
        "W&B: not installed (pip install wandb); r is not tracked",
        "MLflow: not installed (pip install mlflow-skinny); r is not tracked",
        "TensorBoard: not installed (pip install tensorboard); r is not tracked",
    ]


def test_an_account_is_found_in_the_environment_and_in_the_netrc_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not wandb_run.has_account()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert wandb_run.has_account()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not wandb_run.has_account()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert wandb_run.has_account()


def test_a_server_that_cannot_be_reached_leaves_an_offline_run_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_run, "_INIT_TIMEOUT", 2.0)
    said: list[str] = []

    tracker = begin(tmp_path, "wandb", said)
    tracker.round(ENTRIES[0])
    tracker.finish({"a": 1.0})

    assert len(said) == 1
    assert "wandb sync" in said[0]
    assert "a" * 40 not in said[0]
    assert [found["epoch"] for found in rounds_of(tmp_path)] == [1]


class Raising(ModuleType):
    """A wandb in which something raises."""

    def __init__(self, *broken: str) -> None:
        super().__init__("wandb")
        self.__spec__ = None
        self.broken = broken
        self.calls: list[str] = []
        self.step = 0
        self.summary: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*_: Any, **__: Any) -> Any:
            self.calls.append(name)
            if name in self.broken:
                raise OSError("quota exceeded.\nand a traceback")
            return self

        return call


@pytest.mark.parametrize("broken", [("init",), ("Settings",), ("define_metric",), ("log",), ("finish",)])
def test_whatever_raises_is_one_line_and_then_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: tuple[str, ...]
) -> None:
    fake = Raising(*broken)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(tracking, "find_spec", lambda name: fake)
    said: list[str] = []

    tracker = begin(tmp_path, "wandb:offline", said)
    for entry in ENTRIES:
        tracker.round(entry)
    tracker.finish({"a": 1.0})
    tracker.finish({"a": 1.0})

    assert len(said) == 1
    assert said[0].startswith("W&B: quota exceeded; ")
    assert fake.calls.count(broken[0]) == 1


def test_a_wandb_that_cannot_be_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(tracking, "find_spec", lambda name: True)
    said: list[str] = []

    assert not begin(tmp_path, "wandb:offline", said).trackers
    assert len(said) == 1


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("", ""),
        (["wandb"], "wandb:online"),
        (["tensorboard, mlflow", "wandb:offline"], "tensorboard,mlflow,wandb:offline"),
        (["mlflow:http://host:5000", "mlflow:http://host:5000"], "mlflow:http://host:5000"),
        (["wandb:disabled", "tensorboard"], "tensorboard"),
    ],
)
def test_trackers_are_named_in_one_text(given: str | list[str], meant: str) -> None:
    assert parse_trackers(given) == meant
    assert parse_trackers(meant) == meant


def test_the_mode_of_wandb_can_come_from_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert parse_trackers("wandb") == "wandb:offline"
    assert parse_trackers("wandb:online") == "wandb:online"


@pytest.mark.parametrize("wrong", ["weights", "offline", "wandb:here", "tensorboard:a", "wandb:online,wandb:offline"])
def test_a_tracker_that_does_not_exist_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="--track"):
        parse_trackers(wrong)
