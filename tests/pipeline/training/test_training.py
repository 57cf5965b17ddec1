"""One training a session (`trained`), and a few more where a run must be broken, repeated or resumed."""

import dataclasses
import json
import math
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pneumo.pipeline import training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.data.training_images import ludwig_frame, name_for_ludwig, read_images
from pneumo.pipeline.evaluation import read_metrics
from pneumo.pipeline.evaluation.stress.selection import EpochMetric
from pneumo.pipeline.runs.run import Run, Status
from pneumo.pipeline.training.run import TrainingError, TrainingInterruptedError
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.preparation import Preparation, Storage, encode_png
from tests.support.reporters import RecordingReporter, StopAt

PREPARATION = Preparation(size=64, height=32, width=32, channels=3)


def copy_of(dataset: Dataset, folder: Path) -> Dataset:
    """Copy the data set, to damage it."""
    for row in dataset.rows:
        target = folder / row.image
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(dataset.path(row).read_bytes())
    manifest.write_dataset(folder, dataset.rows, dataset.info)
    return manifest.read_dataset(folder)


def test_a_run_folder_holds_all_of_the_contract(trained: Run, dataset: Dataset) -> None:
    info = trained.info()

    assert info.status is Status.DONE
    assert info.data_fingerprint == dataset.info.fingerprint
    assert info.classes == ["NORMAL", "PNEUMONIA"]
    assert info.positive == "PNEUMONIA"
    assert {"load", "read", "train", "predict", "evaluate"} <= set(info.durations)
    assert info.hardware["cores"] >= 1
    for path in (trained.config, trained.metrics, trained.predictions, trained.report, trained.log, trained.history):
        assert path.stat().st_size > 0, path
    assert (trained.model / "model_hyperparameters.json").is_file()
    assert not (trained.folder / ".scratch").exists()


def test_predictions_of_every_split_are_kept_in_manifest_order(trained: Run, dataset: Dataset) -> None:
    frame = pd.read_parquet(trained.predictions)

    assert list(frame["image"]) == [row.image for row in dataset.rows]
    assert set(frame["split"]) == {"train", "validation", "test"}
    probabilities = np.stack(frame["probabilities"].to_list())
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    logits = np.stack(frame["logits"].to_list())
    np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])))


def test_learning_curves_have_one_entry_an_epoch(trained: Run) -> None:
    history = json.loads(trained.history.read_text(encoding="utf-8"))

    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert all({"loss", "auroc"} <= set(entry["validation"]) for entry in history)


def test_the_same_config_data_and_seed_give_the_same_metrics(
    trained: Run, copied: "Copied", tiny: Experiment, dataset: Dataset, tmp_path: Path
) -> None:
    again, other = training.train(tiny, dataset, root=tmp_path, seed=7), copied.run

    first, second, third = (pd.read_parquet(run.predictions)["logits"].to_list() for run in (trained, again, other))
    np.testing.assert_array_equal(np.stack(first), np.stack(second))
    assert not np.array_equal(np.stack(first), np.stack(third))
    assert read_metrics(trained).splits == read_metrics(again).splits


def test_the_best_epoch_is_kept_not_the_last(trained: Run) -> None:
    history = json.loads(trained.history.read_text(encoding="utf-8"))
    best = max(entry["validation"]["auroc"] for entry in history)

    value = read_metrics(trained).splits["validation"].metrics["auroc"].value

    assert value == pytest.approx(best, abs=1e-4)


def test_a_missing_image_is_refused_by_name(tiny: Experiment, dataset: Dataset, tmp_path: Path) -> None:
    broken = copy_of(dataset, tmp_path / "data")
    victim = broken.path(broken.rows[3])
    victim.unlink()

    with pytest.raises(InputError, match=victim.name):
        training.train(tiny, broken, root=tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    assert Run(run).info().status is Status.FAILED
    assert victim.name in (Run(run).info().error or "")


@pytest.mark.parametrize("content", [b"", b"not an image", encode_png(np.zeros((64, 64), np.uint8))])
def test_an_image_changed_since_the_import_is_refused_by_name(dataset: Dataset, tmp_path: Path, content: bytes) -> None:
    broken = copy_of(dataset, tmp_path / "data")
    victim = broken.path(broken.rows[5])
    victim.write_bytes(content)

    with pytest.raises(InputError, match=f"{victim.name}: changed since the import"):
        read_images(broken, broken.rows, PREPARATION)


@pytest.mark.parametrize("content", [b"", b"not an image", encode_png(np.zeros((10, 10), np.uint8))])
def test_a_damaged_image_is_refused_by_name(dataset: Dataset, tmp_path: Path, content: bytes) -> None:
    broken = copy_of(dataset, tmp_path / "data")
    victim = broken.path(broken.rows[5])
    victim.write_bytes(content)
    manifest.write_dataset(broken.folder, broken.rows, broken.info)

    with pytest.raises(InputError, match=victim.name):
        read_images(manifest.read_dataset(broken.folder), broken.rows, PREPARATION)


def test_an_image_changed_under_the_same_path_changes_what_is_trained_on(
    trained: Run, tiny: Experiment, dataset: Dataset, tmp_path: Path
) -> None:
    mine = copy_of(dataset, tmp_path / "data")
    for row in mine.select(Split.TRAIN):
        mine.path(row).write_bytes(encode_png(np.full((64, 64), 128, np.uint8)))
    with pytest.raises(InputError, match="changed since the import"):
        training.train(tiny, mine, root=tmp_path / "runs", seed=7)
    manifest.write_dataset(mine.folder, mine.rows, mine.info)  # as an import into the same place would
    mine = manifest.read_dataset(mine.folder)

    after = training.train(tiny, mine, root=tmp_path / "runs", seed=7)

    first, second = (np.stack(pd.read_parquet(run.predictions)["logits"].to_list()) for run in (trained, after))
    held_out = [row.split is not Split.TRAIN for row in mine.rows]
    assert not np.allclose(first[held_out], second[held_out])


@dataclass(frozen=True)
class Copied:
    """Train the tiny model on a copy of the data, with the default seed and its own temporary folder."""

    run: Run
    data: Path
    scratch: Path


@pytest.fixture(scope="module")
def copied(tiny: Experiment, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Copied:
    folder = tmp_path_factory.mktemp("copied")
    mine = copy_of(dataset, folder / "data")
    (folder / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(folder / "tmp"))
        run = training.train(tiny, mine, root=folder / "runs")
    return Copied(run, mine.folder, folder / "tmp")


def test_nothing_is_left_beside_the_data_or_in_the_temporary_folder(copied: Copied) -> None:
    assert sorted(path.name for path in copied.data.iterdir()) == [
        "dataset.json",
        "images",
        "images.sha256",
        "manifest.csv",
    ]
    assert list(copied.scratch.iterdir()) == []


def test_gray_is_repeated_for_encoders_that_want_three_channels(dataset: Dataset) -> None:
    pixels = read_images(dataset, dataset.rows[:2], PREPARATION)[0]

    assert pixels.shape == (32, 32, 3)
    assert pixels.any()
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 1])
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_ludwig_sees_the_pixels_that_were_read(
    ludwig: object, tiny: Experiment, dataset: Dataset, trained: Run
) -> None:
    from ludwig.data.preprocessing import preprocess_for_prediction

    from pneumo.pipeline.ludwig.inference import load_model

    model = load_model(trained)
    preparation = tiny.preparation(Storage(size=64))
    images = read_images(dataset, dataset.rows[:5], preparation)
    frame = ludwig_frame(dataset.rows[:5], images, image="image", label="label")

    seen, _ = preprocess_for_prediction(
        model.config_obj.to_dict(), frame, model.training_set_metadata, backend=model.backend, split="full"
    )

    (column,) = [name for name in seen.dataset if name.startswith("image")]
    expected = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.testing.assert_allclose(np.asarray(seen.dataset[column]).reshape(expected.shape), expected, atol=1e-7)


def test_a_split_without_a_class_is_refused(tiny: Experiment, dataset: Dataset, tmp_path: Path) -> None:
    rows = tuple(row for row in dataset.rows if not (row.split is Split.VALIDATION and row.label == "PNEUMONIA"))

    with pytest.raises(InputError, match="no PNEUMONIA image in the validation split"):
        training.train(tiny, dataclasses.replace(dataset, rows=rows), root=tmp_path)


def test_a_failure_inside_ludwig_is_one_line_and_marks_the_run(
    tiny: Experiment, dataset: Dataset, tmp_path: Path
) -> None:
    unknown = "input_features.0.encoder={type: timm, model_name: no_such_network, use_pretrained: false}"
    overrides = [unknown, "input_features.0.preprocessing.num_channels=3"]
    impossible = dataclasses.replace(tiny, document=tiny.document.override(overrides))

    with pytest.raises(TrainingError, match=r"details in .*train\.log") as caught:
        training.train(impossible, dataset, root=tmp_path)

    assert "\n" not in str(caught.value)
    (folder,) = tmp_path.iterdir()
    assert Run(folder).info().status is Status.FAILED
    assert "Traceback" in Run(folder).log.read_text(encoding="utf-8")


SCHEDULES = (
    "{decay: one_cycle, max_lr: 0.01}",
    "{decay: linear, warmup_fraction: 0.3}",
    "{decay: exponential, decay_steps: 5}",
    "{decay: cosine, t_0: 100}",
    "{reduce_on_plateau: 3, reduce_on_plateau_patience: 0, reduce_eval_metric: loss, reduce_eval_split: validation}",
)


@pytest.mark.parametrize(
    "schedule",
    [SCHEDULES[0], *(pytest.param(each, marks=[pytest.mark.slow, pytest.mark.lengthy]) for each in SCHEDULES[1:])],
)
def test_a_resumed_run_continues_the_learning_rate_schedule(
    tiny: Experiment, dataset: Dataset, tmp_path: Path, schedule: str
) -> None:
    document = tiny.document.override(["trainer.epochs=4", f"trainer.learning_rate_scheduler={schedule}"])
    experiment = dataclasses.replace(tiny, document=document)
    steps = math.ceil(len(dataset.select(Split.TRAIN)) / 16)
    whole = training.train(experiment, dataset, root=tmp_path / "whole", seed=3)

    with pytest.raises(TrainingInterruptedError) as stopped:
        training.train(experiment, dataset, root=tmp_path / "parts", seed=3, reporter=StopAt(2 * steps + 4))
    part = stopped.value.run
    assert part.info().status is Status.INTERRUPTED
    assert stopped.value.rounds == 2
    seen = RecordingReporter()
    training.resume(part, reporter=seen)

    assert list(dict.fromkeys(seen.steps)) == list(range(2 * steps + 1, 4 * steps + 1))
    assert part.info().status is Status.DONE
    rates = [
        [entry["learning_rate"] for entry in json.loads(run.history.read_text(encoding="utf-8"))]
        for run in (whole, part)
    ]
    assert len(rates[0]) == 4
    if (
        "plateau" in schedule
    ):  # the losses of the two runs differ a little after the resume, so only what came before is equal
        assert rates[0][:3] == pytest.approx(rates[1][:3], rel=1e-6)
    else:
        assert rates[0] == pytest.approx(rates[1], rel=1e-6)


@pytest.mark.slow
def test_the_best_epoch_may_be_chosen_by_a_mean_with_a_metric_under_change(
    tiny: Experiment, trained: Run, dataset: Dataset, tmp_path: Path
) -> None:
    from pneumo.pipeline.ludwig.inference import load_model, predict_logits

    metric = "roc_auc + 3 stress.worst"
    document = tiny.document.override([f"trainer.validation_metric={metric}", "trainer.epochs=4"])
    experiment = dataclasses.replace(tiny, document=document)
    whole = training.train(experiment, dataset, root=tmp_path / "whole", seed=7)
    steps = math.ceil(len(dataset.select(Split.TRAIN)) / 16)
    with pytest.raises(TrainingInterruptedError) as stopped:
        training.train(experiment, dataset, root=tmp_path / "parts", seed=7, reporter=StopAt(2 * steps + 4))
    plain = dataclasses.replace(tiny, document=tiny.document.override(["trainer.epochs=4"]))
    histories = [
        json.loads(run.history.read_text(encoding="utf-8"))
        for run in (
            whole,
            training.resume(stopped.value.run),
            training.train(plain, dataset, root=tmp_path / "plain", seed=7),
        )
    ]

    # It only looks: losses are those of a training that does not measure it, to the last bit.
    assert [entry["train"]["loss"] for entry in histories[0]] == [entry["train"]["loss"] for entry in histories[2]]
    for history in histories[:2]:
        measured = [entry["validation"] for entry in history]
        assert len(measured) == 4
        for each in measured:
            assert each[metric] == pytest.approx((each["auroc"] + 3 * each["stress.worst"]) / 4)
    best = max((entry["validation"] for entry in histories[0]), key=lambda each: each[metric])
    assert read_metrics(whole).splits["validation"].metrics["auroc"].value == pytest.approx(best["auroc"], abs=1e-6)
    model, info = load_model(whole), whole.info()
    kept = EpochMetric.prepare(metric, dataset, info).measure(
        {"roc_auc": best["auroc"]}, lambda images: predict_logits(model, info, images)[:, 1].astype(np.float64)
    )
    assert kept[metric] == pytest.approx(best[metric], abs=1e-6)


def test_an_interrupted_run_keeps_the_best_model_so_far(tiny: Experiment, dataset: Dataset, tmp_path: Path) -> None:
    from pneumo.pipeline.ludwig.inference import load_model

    before = signal.getsignal(signal.SIGINT)
    steps = math.ceil(len(dataset.select(Split.TRAIN)) / 16)
    with pytest.raises(TrainingInterruptedError) as stopped:
        training.train(tiny, dataset, root=tmp_path, reporter=StopAt(steps + 3))

    assert load_model(stopped.value.run).model is not None
    assert signal.getsignal(signal.SIGINT) is before


def test_a_done_or_running_run_is_not_resumed(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already done"):
        training.resume(trained)

    running = Run(tmp_path / "running")
    running.folder.mkdir()
    running.save(trained.info().model_copy(update={"status": Status.RUNNING}))
    with running.locked(), pytest.raises(InputError, match="still running"):
        training.resume(running)


def test_a_run_is_not_resumed_on_other_data(trained: Run, dataset: Dataset, tmp_path: Path) -> None:
    stopped = Run(tmp_path / "stopped")
    stopped.folder.mkdir()
    changed = trained.info().model_copy(update={"status": Status.INTERRUPTED, "data_fingerprint": "0" * 64})
    stopped.save(changed)

    with pytest.raises(InputError, match="its fingerprint differs"):
        training.resume(stopped)


KILLED = """
import os, signal, sys
from pathlib import Path
from pneumo.pipeline import config, training
from pneumo.pipeline.data import manifest
from pneumo.pipeline.runs.reporter import Reporter

class KillInSecondEpoch(Reporter):
    def step(self, step):
        if step.epoch >= 2:
            os.kill(os.getpid(), signal.SIGKILL)

experiment = config.load_config(Path(sys.argv[1]))
dataset = manifest.read_dataset(Path(sys.argv[2]))
training.train(experiment, dataset, root=Path(sys.argv[3]), seed=7, reporter=KillInSecondEpoch())
"""


@pytest.mark.slow
def test_a_run_killed_with_sigkill_is_resumed_to_its_end(tiny: Experiment, dataset: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(tiny.to_yaml(), encoding="utf-8")
    root = tmp_path / "runs"
    died = subprocess.run([sys.executable, "-c", KILLED, str(file), str(dataset.folder), str(root)], timeout=300)
    assert died.returncode == -signal.SIGKILL
    run = Run.open("latest", root=root)
    assert run.info().status is Status.RUNNING
    assert not run.is_locked()
    steps = math.ceil(len(dataset.select(Split.TRAIN)) / 16)
    seen = RecordingReporter()

    training.resume(run, reporter=seen)

    assert seen.steps[0] == steps + 1  # killed before the second epoch was kept: the first is not trained again
    assert run.info().status is Status.DONE
    history = json.loads(run.history.read_text(encoding="utf-8"))
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert read_metrics(run).splits["validation"].metrics["auroc"].value is not None
    assert not (run.folder / ".checkpoints").exists()


def interrupted(tiny: Experiment, dataset: Dataset, root: Path, *, step: int) -> Run:
    """Train and stop after a step; return the run."""
    with pytest.raises(TrainingInterruptedError) as stopped:
        training.train(tiny, dataset, root=root, seed=3, reporter=StopAt(step))
    return stopped.value.run


LENGTHY = [pytest.mark.slow, pytest.mark.lengthy]


@pytest.mark.parametrize(
    "damage",
    ["training_progress.json", pytest.param("training_checkpoints/latest.ckpt.safetensors", marks=LENGTHY)],
)
def test_files_that_ludwig_was_killed_while_writing_do_not_matter(
    tiny: Experiment, dataset: Dataset, tmp_path: Path, damage: str
) -> None:
    steps = math.ceil(len(dataset.select(Split.TRAIN)) / 16)
    run = interrupted(tiny, dataset, tmp_path, step=2 * steps + 2)
    file = run.model / damage
    half = file.read_bytes()[:100]
    file.unlink()  # Ludwig replaces its checkpoints, so that copies of them stay whole
    file.write_bytes(half)
    (run.folder / ".checkpoints" / "partial").mkdir()
    seen = RecordingReporter()

    training.resume(run, reporter=seen)

    assert seen.steps[0] == 2 * steps + 1
    assert run.info().status is Status.DONE


def test_a_run_stopped_before_its_first_epoch_says_that_it_starts_anew(
    tiny: Experiment, dataset: Dataset, tmp_path: Path
) -> None:
    one_epoch = dataclasses.replace(tiny, document=tiny.document.override(["trainer.epochs=1"]))
    run = interrupted(one_epoch, dataset, tmp_path, step=2)
    seen = RecordingReporter()

    training.resume(run, reporter=seen)

    assert seen.steps[0] == 1
    assert any("starting from the beginning" in line for line in seen.messages)


def test_a_run_with_a_model_soup_is_not_resumed(tiny: Experiment, dataset: Dataset, tmp_path: Path) -> None:
    steps = math.ceil(len(dataset.select(Split.TRAIN)) / 16)
    souped = dataclasses.replace(tiny, document=tiny.document.override(["trainer.model_soup=uniform"]))
    run = interrupted(souped, dataset, tmp_path, step=steps + 2)

    with pytest.raises(InputError, match="model_soup: Ludwig cannot resume a model soup"):
        training.resume(run)


def test_a_run_stopped_after_training_is_only_predicted_and_evaluated(
    tiny: Experiment, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pneumo.pipeline.training.run._predict", stop)
        with pytest.raises(TrainingInterruptedError) as stopped:
            training.train(tiny, dataset, root=tmp_path, seed=7)
    run = stopped.value.run
    seen = RecordingReporter()

    training.resume(run, reporter=seen)

    assert seen.steps == []
    assert run.info().status is Status.DONE
    assert read_metrics(run).splits["test"].metrics["auroc"].value is not None


def test_a_second_signal_stops_at_once(ludwig: object, tmp_path: Path) -> None:
    from pneumo.pipeline.ludwig.callback import TrainingCallback

    callback = TrainingCallback(Run(tmp_path), "label", None)

    callback.stop(signal.SIGINT, None)
    assert callback.stopping
    with pytest.raises(KeyboardInterrupt):
        callback.stop(signal.SIGINT, None)


def test_no_class_has_a_name_that_ludwig_takes_for_a_value(ludwig: object) -> None:
    from ludwig.utils import strings_utils

    words = {*strings_utils.all_bool_strs(), "nan", "NaN", "Infinity", "1e3", "2", "\u0663", "<UNK>", "class 1"}
    names = {name_for_ludwig(word) for word in words}
    assert len(names) == len(words)
    assert not any(strings_utils.is_number(name) or strings_utils.are_conventional_bools([name]) for name in names)
    assert [name_for_ludwig(word) for word in ("NORMAL", "no finding", "\u00dcbersicht")] == [
        "NORMAL",
        "no finding",
        "\u00dcbersicht",
    ]


def test_what_only_ludwig_refuses_is_an_input_error(tiny: Experiment, dataset: Dataset, tmp_path: Path) -> None:
    odd = dataclasses.replace(tiny, document=tiny.document.override(["trainer.effective_batch_size=17"]))

    with pytest.raises(InputError, match="Ludwig refuses it"):
        training.train(odd, dataset, root=tmp_path)
