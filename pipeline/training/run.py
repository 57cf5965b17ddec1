"""From a checked config and a data set to a run folder."""

import contextlib
import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumo.pipeline import config
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.ludwig import checkpoints, runtime
from pneumo.pipeline.ludwig.cluster.placement import Workers, read_workers
from pneumo.pipeline.ludwig.fit import fit
from pneumo.pipeline.runs import provenance
from pneumo.pipeline.runs.reporter import SILENT, Reporter, TrackingMode
from pneumo.pipeline.runs.run import RUNS, Run, RunInfo, Status
from pneumo.pipeline.runs.training_profile import Profile
from pneumo.pipeline.training.cluster import connect_ray
from pneumo.pipeline.training.environment import handle_signals, use_scratch_folder
from pneumo.pipeline.training.hooks import Hooks, track_run
from pneumo.serving.contracts.errors import InputError, PneumoError, first_line
from pneumo.serving.images.preparation import Preparation

if TYPE_CHECKING:
    import pandas as pd


SEED = 42


class TrainingError(PneumoError):
    """Training broke for a reason that is neither the config's nor the data's."""


class TrainingInterruptedError(KeyboardInterrupt):
    """Training was stopped from outside; what was done is kept in `run`."""

    def __init__(self, run: Run, rounds: int) -> None:
        super().__init__(f"{run.name}: interrupted after {rounds} evaluation rounds")
        self.run = run
        self.rounds = rounds


def train(
    experiment: Experiment,
    dataset: Dataset,
    *,
    root: Path = RUNS,
    seed: int = SEED,
    address: str | None = None,
    profile: bool = False,
    tracking: TrackingMode = TrackingMode.DISABLED,
    command: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> Run:
    """Train a model, predict every split, evaluate.

    Args:
        experiment: A checked config.
        dataset: What to train on; its validation split chooses the best epoch.
        root: Folder that gets the run folder.
        seed: Seed of weights and shuffling.
        address: Ray cluster to join, for a config with `backend: {type: ray}`; without one, one is started here.
        profile: Write down where the time goes, into `profile/` of the run folder.
        tracking: Weights & Biases: online, offline or disabled.
        command: The command line, for the record.
        reporter: Receives progress.

    Returns:
        The run, with status `done`.

    Raises:
        InputError: The data set and the config do not fit, or an image is damaged.
        TrainingInterruptedError: Ctrl-C or SIGTERM; the best weights so far are kept and the run can be resumed.
        TrainingError: Ludwig failed; `train.log` has the details.
    """
    check_data(experiment, dataset)
    workers = _workers(experiment, address, profile=profile)
    run = Run.create(experiment.name, root=root)
    run.config.write_text(experiment.to_yaml(), encoding="utf-8")
    info = describe_run(
        run, experiment, dataset, seed=seed, command=command, commit=provenance.read_git_commit(Path.cwd())
    )
    with run.locked():
        run.save(info)
        hooks = Hooks(reporter=reporter, tracking=tracking)
        return execute_run(run, info, experiment, dataset, hooks, workers, profile=profile)


def describe_run(
    run: Run, experiment: Experiment, dataset: Dataset, *, seed: int, command: Sequence[str], commit: str | None
) -> RunInfo:
    """What `run.json` says of a run that is about to begin in this process."""
    return RunInfo(
        name=run.name,
        command=list(command),
        config=experiment.document.name,
        data=str(dataset.folder.resolve()),
        data_fingerprint=dataset.info.fingerprint,
        classes=dataset.info.classes,
        positive=experiment.positive,
        preparation=experiment.preparation(
            size=dataset.info.size, fit=dataset.info.fit, decode=dataset.info.decode
        ).model_dump(mode="json"),
        image=experiment.image,
        label=experiment.label,
        seed=seed,
        versions=provenance.read_versions(),
        git_commit=commit,
        hardware={},
        started=datetime.now(UTC),
        pid=os.getpid(),
    )


def resume(
    run: Run,
    *,
    address: str | None = None,
    profile: bool = False,
    tracking: TrackingMode = TrackingMode.DISABLED,
    reporter: Reporter = SILENT,
) -> Run:
    """Continue a run that was interrupted, from its last finished epoch, with the schedule where it was.

    Raises:
        InputError: The run is done, is running in another process, or its data set has changed since.
    """
    with run.locked():
        info = run.info()
        _refuse_refit(run, info)
        if info.status is Status.DONE:
            raise InputError(f"{run.name}: done already; nothing to resume")
        try:
            dataset = manifest.read_dataset(Path(info.data))
        except InputError as error:
            raise InputError(f"{run.name}: its data set cannot be read: {error}") from None
        if dataset.info.fingerprint != info.data_fingerprint:
            raise InputError(f"{info.data}: changed since {run.name} began; train anew")
        experiment = config.load_config(run.config)
        workers = _workers(experiment, address, profile=profile)
        info = info.model_copy(update={"status": Status.RUNNING, "pid": os.getpid(), "error": None})
        run.save(info)
        if not checkpoints.restore_checkpoint(run):
            reporter.message(f"{run.name}: no epoch was finished; starting anew")
        hooks = Hooks(reporter=reporter, tracking=tracking)
        return execute_run(run, info, experiment, dataset, hooks, workers, profile=profile)


def complete(run: Run, *, reporter: Reporter = SILENT) -> Run:
    """Predict every split with a run's best weights and measure it, where a sweep left that out or stopped it early.

    Raises:
        InputError: The run is being trained, has no weights yet, or its data set has changed since.
    """
    with run.locked():
        info = run.info()
        _refuse_refit(run, info)
        dataset = manifest.read_dataset(Path(info.data))
        if dataset.info.fingerprint != info.data_fingerprint:
            raise InputError(f"{info.data}: changed since {run.name} began; train anew")
        experiment = config.load_config(run.config)
        frame = _frame(experiment, dataset, Preparation.model_validate(info.preparation))
        runtime.load_ludwig(reporter)
        with runtime.log_to_file(run.log), use_scratch_folder(run.folder):
            from pneumo.pipeline.ludwig.fit import save_best
            from pneumo.pipeline.ludwig.inference import load_model

            save_best(run)
            _predict(run, info, load_model(run), dataset, frame)
        from pneumo.pipeline.evaluation import evaluate_run

        evaluate_run(run)
        run.save(run.info().model_copy(update={"status": Status.DONE, "error": None}))
        _tidy(run)
    return run


def _refuse_refit(run: Run, info: RunInfo) -> None:
    """Only `pneumo.pipeline.sweep.refit` knows that a refit has seen its validation images."""
    if info.refit_of:
        raise InputError(f"{run.name}: trained on validation images too; `pneumo sweep --resume` refits it anew")


def _workers(experiment: Experiment, address: str | None, *, profile: bool) -> Workers | None:
    workers = read_workers(experiment, address)
    if workers is not None and profile:
        raise InputError("--profile looks into a local training; set backend: {type: local}")
    return workers


def execute_run(
    run: Run,
    info: RunInfo,
    experiment: Experiment,
    dataset: Dataset,
    hooks: Hooks,
    workers: Workers | None = None,
    *,
    profile: bool = False,
) -> Run:
    """Train a run whose folder is there and held, from its newest checkpoint where it has one.

    Raises:
        InputError: The data set and the config do not fit, or an image is damaged.
        TrainingInterruptedError: Ctrl-C or SIGTERM; the best weights so far are kept and the run can be resumed.
        TrainingError: Ludwig failed; `train.log` has the details.
    """
    durations = dict(info.durations)
    profiled = Profile(run) if profile else None

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            with profiled.stage(name) if profiled else contextlib.nullcontext():
                yield
        finally:
            durations[name] = round(durations.get(name, 0.0) + time.perf_counter() - began, 3)

    def finish(status: Status, error: str | None = None) -> None:
        run.save(info.model_copy(update={"status": status, "error": error, "durations": durations}))
        if profiled:
            profiled.write()

    try:
        with handle_signals(), connect_ray(workers) as placement:
            with stage("read"):
                read = hooks.frame or (
                    lambda: _frame(experiment, dataset, Preparation.model_validate(info.preparation))
                )
                frame = read()
            with stage("load"):
                runtime.load_ludwig(hooks.reporter)
            info = info.model_copy(update={"hardware": provenance.read_hardware()})
            run.save(info)
            if workers is None and experiment.config["trainer"].get("use_mixed_precision") and not _has_gpu():
                hooks.reporter.message("trainer.use_mixed_precision needs a GPU and there is none: training in float32")
            hooks.reporter.message(f"training {run.name} on {len(frame)} images ...")
            with track_run(run, info, experiment, hooks) as tracked:
                with stage("train"), runtime.log_to_file(run.log), use_scratch_folder(run.folder):
                    model = fit(
                        run,
                        experiment,
                        frame,
                        placement,
                        profiled,
                        seed=info.seed,
                        reporter=tracked,
                    )
                info = info.model_copy(update={"classes": _classes(model, experiment)})
                run.save(info)
                if hooks.measures():
                    with stage("predict"):
                        _predict(run, info, model, dataset, frame)
                    with stage("evaluate"):
                        from pneumo.pipeline.evaluation import evaluate_run

                        evaluate_run(run)
    except KeyboardInterrupt:
        finish(Status.INTERRUPTED)
        rounds = len(json.loads(run.history.read_text(encoding="utf-8"))) if run.history.is_file() else 0
        raise TrainingInterruptedError(run, rounds) from None
    except PneumoError as error:
        finish(Status.FAILED, str(error))
        raise
    except Exception as error:
        reason = first_line(error)
        finish(Status.FAILED, reason)
        with run.log.open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        raise TrainingError(f"{run.name}: {reason}; details in {run.log}") from error
    finish(Status.DONE)
    _tidy(run)
    return run


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def check_data(experiment: Experiment, dataset: Dataset) -> None:
    """Refuse a data set that an experiment cannot be trained on.

    Raises:
        InputError: Other classes or columns, or a class without an image in training or validation.
    """
    experiment.check_classes(dataset.info.classes)
    columns = set(manifest.COLUMNS)
    for section, column in (("input_features", experiment.image), ("output_features", experiment.label)):
        wanted = "image" if section == "input_features" else "label"
        if column != wanted:
            hint = f"; it is a column, but not the {wanted}" if column in columns else ""
            experiment.document.fail(
                (section, 0, "name"), f"{column!r} must be {wanted!r}, the manifest's column{hint}"
            )
    for split in (Split.TRAIN, Split.VALIDATION):
        present = {row.label for row in dataset.select(split)}
        missing = [name for name in dataset.info.classes if name not in present]
        if missing:
            raise InputError(
                f"{dataset.folder / manifest.MANIFEST}: no {missing[0]} image in the {split.name.lower()} split; "
                "import with other fractions or another seed"
            )


def _frame(experiment: Experiment, dataset: Dataset, preparation: Preparation) -> "pd.DataFrame":
    from pneumo.pipeline.data.training_images import ludwig_frame, read_images

    images = read_images(dataset, dataset.rows, preparation)
    return ludwig_frame(dataset.rows, images, image=experiment.image, label=experiment.label)


def _tidy(run: Run) -> None:
    """Remove what only a resume needs, and Ludwig's own report and card, which know no threshold and no interval."""
    checkpoints.drop_checkpoints(run)
    shutil.rmtree(run.model / "llm_eval_examples", ignore_errors=True)
    for name in ("model_card.md", "training_report.json"):
        (run.folder / name).unlink(missing_ok=True)


def _classes(model: Any, experiment: Experiment) -> list[str]:
    from pneumo.pipeline.ludwig.inference import read_class_order

    return read_class_order(model, experiment.label)


def _predict(run: Run, info: RunInfo, model: Any, dataset: Dataset, frame: "pd.DataFrame") -> None:
    from pneumo.pipeline.ludwig.inference import make_predictions_frame, predict_logits

    logits = predict_logits(model, info, list(frame[info.image])[: len(dataset.rows)])  # a refit shows some twice
    make_predictions_frame(dataset.rows, logits).to_parquet(run.predictions, index=False)
