"""Train a checked config on a data set, into a run folder."""

import os
import shutil
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.pipeline import config
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.config.selection_metric import is_ludwigs
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.folds import apply_fold
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.ludwig import checkpoints, runtime
from pneumo.pipeline.ludwig.cluster.placement import Workers, read_workers
from pneumo.pipeline.ludwig.fit import FitOptions, fit
from pneumo.pipeline.runs import provenance
from pneumo.pipeline.runs.history import read_history
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import RUNS, Fold, Run, RunInfo, Status
from pneumo.pipeline.training.cluster import connect_ray
from pneumo.pipeline.training.environment import use_scratch_folder
from pneumo.pipeline.training.hooks import Hooks, track_run
from pneumo.serving.contracts.errors import InputError, PneumoError, first_line
from pneumo.serving.contracts.process_state import restore_signals
from pneumo.serving.images.preparation import Preparation

if TYPE_CHECKING:
    import pandas as pd

    from pneumo.pipeline.ludwig import protocols
    from pneumo.pipeline.ludwig.protocols import LudwigModel

SEED = 42


class TrainingError(PneumoError):
    """Training failed, though config and data are valid."""


class TrainingInterruptedError(KeyboardInterrupt):
    """Training was stopped by a signal; `run` has its last checkpoint."""

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
    fold: Fold | None = None,
    address: str | None = None,
    profile: bool = False,
    tracking: str = "",
    command: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> Run:
    """Train a model, predict every split, evaluate; return the run, with status `done`.

    The validation split chooses the best epoch. With a `fold`, the splits are those of `apply_fold`. A config with
    `backend: {type: ray}` joins the cluster at `address`, or starts one. `profile` traces a few steps into `profile/`
    of the run folder.

    Raises:
        InputError: The data set and the config do not fit, or an image is damaged.
        TrainingInterruptedError: Ctrl-C or SIGTERM; the best weights so far are kept and the run can be resumed.
        TrainingError: Ludwig failed; `train.log` has the details.
    """
    dataset = apply_fold(dataset, fold) if fold else dataset
    experiment = complete_experiment(experiment, dataset)
    for remark in experiment.remarks:
        reporter.message(remark)
    workers = _read_workers(experiment, address, profile=profile)
    run = Run.create(experiment.name, root=root)
    run.config.write_text(experiment.to_yaml(), encoding="utf-8")
    commit = provenance.read_git_commit(Path.cwd())
    info = describe_run(run, experiment, dataset, seed=seed, command=command, commit=commit)
    info = info.model_copy(update={"fold": fold})
    with run.locked():
        run.save(info)
        hooks = Hooks(reporter, tracking=tracking, profile=profile)
        return execute_run(run, info, experiment, dataset, hooks, workers)


def describe_run(
    run: Run, experiment: Experiment, dataset: Dataset, *, seed: int, command: Sequence[str], commit: str | None
) -> RunInfo:
    """Return the `run.json` of a run that begins in this process."""
    stored = dataset.info
    return RunInfo(
        name=run.name,
        command=list(command),
        config=experiment.document.name,
        data=str(dataset.folder.resolve()),
        data_fingerprint=stored.fingerprint,
        classes=stored.classes,
        positive=experiment.positive,
        preparation=experiment.preparation(stored).model_dump(mode="json"),
        image=experiment.image,
        label=experiment.label,
        remarks=list(experiment.remarks),
        fit_on=experiment.decisions.fit_on,
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
    tracking: str = "",
    reporter: Reporter = SILENT,
) -> Run:
    """Resume a run after its last finished epoch; raise an `InputError` if it is done, locked, or its data changed."""
    from pneumo.pipeline.evaluation.run_dataset import read_run_dataset

    with run.locked():
        info = run.info()
        if info.status is Status.DONE:
            raise InputError(f"{run.name}: already done; nothing to resume")
        dataset = read_run_dataset(info)
        experiment = config.load_config(run.config)
        workers = _read_workers(experiment, address, profile=profile)
        info = info.model_copy(update={"status": Status.RUNNING, "pid": os.getpid(), "error": None})
        run.save(info)
        if not checkpoints.restore_checkpoint(run):
            reporter.message(f"{run.name}: no epoch was finished; starting from the beginning")
        hooks = Hooks(reporter, tracking=tracking, profile=profile)
        return execute_run(run, info, experiment, dataset, hooks, workers)


def complete(run: Run, *, reporter: Reporter = SILENT) -> Run:
    """Predict every split with a run's best weights and measure it, if a sweep did not; raise as `resume` does."""
    from pneumo.pipeline.evaluation import evaluate_run
    from pneumo.pipeline.evaluation.run_dataset import read_run_dataset

    with run.locked():
        info = run.info()
        dataset = read_run_dataset(info)
        frame = _make_frame(config.load_config(run.config), dataset, info)
        runtime.load_ludwig(reporter)
        with runtime.log_to_file(run.log), use_scratch_folder(run.folder):
            from pneumo.pipeline.ludwig.fit import save_best
            from pneumo.pipeline.ludwig.inference import load_model

            save_best(run)
            _predict(run, info, load_model(run), dataset, frame)
        evaluate_run(run)
        run.save(run.info().model_copy(update={"status": Status.DONE, "error": None}))
        _remove_leftovers(run)
    return run


def _read_workers(experiment: Experiment, address: str | None, *, profile: bool) -> Workers | None:
    workers = read_workers(experiment, address)
    if workers is not None and profile:
        raise InputError("--profile needs a local training; set backend: {type: local}")
    return workers


class _Record:
    """Keeps a run's `run.json` up to date while it is executed, with the duration of each stage."""

    def __init__(self, run: Run, info: RunInfo) -> None:
        self.run = run
        self.info = info
        self.durations = dict(info.durations)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.durations[name] = round(self.durations.get(name, 0.0) + time.perf_counter() - began, 3)
            self.update(durations=self.durations)  # now, since the report quotes them

    def update(self, **fields: object) -> None:
        self.info = self.info.model_copy(update=fields)
        self.run.save(self.info)

    def finish(self, status: Status, error: str | None = None) -> None:
        self.update(status=status, error=error)


def execute_run(
    run: Run, info: RunInfo, experiment: Experiment, dataset: Dataset, hooks: Hooks, workers: Workers | None = None
) -> Run:
    """Train a locked run, from its newest checkpoint if there is one; raises the errors of `train`."""
    record = _Record(run, info)
    try:
        with restore_signals(signal.default_int_handler), connect_ray(workers) as placement:
            with ThreadPoolExecutor(1) as pool:  # images are decoded without the interpreter's lock
                reading = pool.submit(hooks.frame or (lambda: _make_frame(experiment, dataset, info)))
                with record.stage("load"):
                    runtime.load_ludwig(hooks.reporter)
                from pneumo.pipeline.ludwig.encoders.weight_sources import download_weights

                download_weights(experiment.config, hooks.reporter)
                with record.stage("read"):
                    frame = reading.result()
            record.update(hardware=provenance.read_hardware())
            wants_gpu = workers is None and experiment.config["trainer"].get("use_mixed_precision")
            if wants_gpu and not record.info.hardware["accelerators"]:
                hooks.reporter.message("trainer.use_mixed_precision needs a GPU and there is none: training in float32")
            hooks.reporter.message(f"training {run.name} on {len(frame)} images ...")
            with track_run(run, info, experiment, hooks) as reporter:
                metric = _prepare_metric(experiment, dataset, info, hooks)
                options = FitOptions(info.seed, reporter, placement, hooks.profile, metric)
                with record.stage("train"), runtime.log_to_file(run.log), use_scratch_folder(run.folder):
                    model = fit(run, experiment, frame, options)
                from pneumo.pipeline.ludwig.inference import read_class_order

                record.update(classes=read_class_order(model, info))
                if hooks.measures():
                    with record.stage("predict"):
                        _predict(run, record.info, model, dataset, frame)
                    with record.stage("evaluate"):
                        from pneumo.pipeline.evaluation import evaluate_run

                        evaluate_run(run)
    except KeyboardInterrupt:
        record.finish(Status.INTERRUPTED)
        raise TrainingInterruptedError(run, len(read_history(run))) from None
    except PneumoError as error:
        record.finish(Status.FAILED, str(error))
        raise
    except Exception as error:
        reason = first_line(error)
        record.finish(Status.FAILED, reason)
        with run.log.open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        raise TrainingError(f"{run.name}: {reason}; details in {run.log}") from error
    record.finish(Status.DONE)
    _remove_leftovers(run)
    return run


def complete_experiment(experiment: Experiment, dataset: Dataset) -> Experiment:
    """Return an experiment with what its data set knows.

    Raises:
        InputError: The classes do not fit, a feature is named as another column of the manifest, or a class has no
            image in training or validation.
    """
    experiment = experiment.complete(dataset)
    columns = {*manifest.COLUMNS, *manifest.group_names(dataset.rows)}
    for section, column, expected in (
        ("input_features", experiment.image, "image"),
        ("output_features", experiment.label, "label"),
    ):
        if column in columns - {expected}:
            problem = f"is {column}, another column of the manifest; pneumo learns the column {expected}: name it so"
            experiment.document.reject((section, 0, "name"), problem)
    for split in (Split.TRAIN, Split.VALIDATION):
        present = {row.label for row in dataset.select(split)}
        missing = [name for name in dataset.info.classes if name not in present]
        if missing:
            raise InputError(
                f"{dataset.folder / manifest.MANIFEST}: no {missing[0]} image in the {split.name.lower()} split; "
                "import with other fractions or another seed"
            )
    return experiment


def _make_frame(experiment: Experiment, dataset: Dataset, info: RunInfo) -> "pd.DataFrame":
    from pneumo.pipeline.data.training_images import ludwig_frame, read_images

    images = read_images(dataset, dataset.rows, Preparation.model_validate(info.preparation))
    return ludwig_frame(dataset.rows, images, image=experiment.image, label=experiment.label)


def _prepare_metric(
    experiment: Experiment, dataset: Dataset, info: RunInfo, hooks: Hooks
) -> "protocols.EpochMetric | None":
    """Return the metric of the config that Ludwig does not know, if it is one and there are validation images."""
    from pneumo.pipeline.evaluation.stress.selection import EpochMetric

    name = experiment.config["trainer"]["validation_metric"]
    if is_ludwigs(name) or not dataset.select(Split.VALIDATION):
        return None
    return EpochMetric.prepare(name, dataset, info, hooks.stored)


def _predict(run: Run, info: RunInfo, model: "LudwigModel", dataset: Dataset, frame: "pd.DataFrame") -> None:
    from pneumo.pipeline.ludwig.inference import make_predictions_frame, predict_logits

    logits = predict_logits(model, info, list(frame[info.image]))
    make_predictions_frame(dataset.rows, logits).to_parquet(run.predictions, index=False)


def _remove_leftovers(run: Run) -> None:
    """Remove files that only a resume needs, and Ludwig's own report and card, which lack threshold and intervals."""
    checkpoints.drop_checkpoints(run)
    shutil.rmtree(run.model / "llm_eval_examples", ignore_errors=True)
    for name in ("model_card.md", "training_report.json"):
        (run.folder / name).unlink(missing_ok=True)
