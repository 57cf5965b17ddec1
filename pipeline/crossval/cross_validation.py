"""A whole cross-validation: train every fold, one after the other, and pool what they predict.

All folds are trained in this process, so that Ludwig is loaded once and each training has all cores.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pneumo.pipeline import config, training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.crossval.pooling import describe_run, pool_folds
from pneumo.pipeline.crossval.record import CROSSVALS, Crossval, CrossvalFolder
from pneumo.pipeline.data.folds import apply_fold
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.evaluation.run_dataset import read_training_data
from pneumo.pipeline.runs import provenance
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import Fold, Run, Status
from pneumo.pipeline.training.run import complete_experiment
from pneumo.serving.contracts.errors import InputError, PneumoError


@dataclass(frozen=True)
class Plan:
    """Number of folds and of repeats, seed of the first repeat, and trackers as `parse_trackers` returns them."""

    folds: int = 5
    repeats: int = 1
    seed: int = training.SEED
    tracking: str = ""


def create_crossval(
    experiment: Experiment, dataset: Dataset, plan: Plan, *, root: Path = CROSSVALS, command: Sequence[str] = ()
) -> CrossvalFolder:
    """Make the folder of a cross-validation; `train_folds` does the rest.

    Raises:
        InputError: Config and data do not fit, or a class has too few patients for so many folds.
    """
    record = Crossval(
        name="",
        command=list(command),
        config=experiment.document.name,
        data=str(dataset.folder.resolve()),
        data_fingerprint=dataset.info.fingerprint,
        positive=None,
        folds=plan.folds,
        repeats=plan.repeats,
        seed=plan.seed,
        tracking=plan.tracking,
        git_commit=provenance.read_git_commit(Path.cwd()),
        started=datetime.now(UTC),
    )
    divided = [apply_fold(dataset, fold) for fold in record.list_folds()]  # all, before one of them fails after hours
    experiment = complete_experiment(experiment, divided[0])
    folder = CrossvalFolder.create(experiment.name, root=root)
    folder.config.write_text(experiment.to_yaml(), encoding="utf-8")
    record.name, record.positive = folder.name, experiment.positive
    folder.save(record)
    return folder


def train_folds(folder: CrossvalFolder, *, reporter: Reporter = SILENT) -> None:
    """Train the folds that are not done, an interrupted one from its last epoch; pool and measure the predictions.

    Raises:
        InputError: It is done, still running, or its data set has changed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; finished folds and epochs are kept.
        PneumoError: A fold failed; the next call tries it again.
    """
    with folder.locked():
        record = folder.read()
        if record.status is Status.DONE:
            raise InputError(f"{folder.name}: already done; nothing to resume")
        dataset = read_training_data(record.name, record.data, record.data_fingerprint)
        experiment = replace(config.load_config(folder.config), name=Path(record.config).stem)
        began = time.perf_counter() - record.seconds

        def save(status: Status, error: str | None = None) -> None:
            record.status, record.error, record.seconds = status, error, round(time.perf_counter() - began, 1)
            folder.save(record)

        try:
            record.runs = []
            for fold in record.list_folds():
                run = _train_fold(folder, record, fold, experiment, dataset, reporter)
                record.runs.append(describe_run(run, fold))
                save(Status.RUNNING)
            pool_folds(folder, record)
        except KeyboardInterrupt:
            save(Status.INTERRUPTED)
            raise
        except PneumoError as error:
            save(Status.FAILED, str(error))
            raise
        save(Status.DONE)


def _train_fold(
    folder: CrossvalFolder, record: Crossval, fold: Fold, experiment: Experiment, dataset: Dataset, reporter: Reporter
) -> Run:
    run = folder.find_run(fold)
    if run and run.is_done():
        return run
    reporter.message(f"fold {fold.number} of {fold.folds}, repeat {fold.repeat} of {record.repeats} ...")
    if run and not experiment.config["trainer"].get("model_soup"):
        return training.resume(run, tracking=record.tracking, reporter=reporter)
    if run:  # Ludwig cannot resume a model soup
        shutil.rmtree(run.folder)
    return training.train(
        experiment,
        dataset,
        root=folder.runs,
        seed=fold.seed,
        fold=fold,
        tracking=record.tracking,
        command=record.command,
        reporter=reporter,
    )
