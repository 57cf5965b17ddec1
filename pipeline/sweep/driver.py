"""A sweep, from a config and a data set to a folder of runs with a winner. Importing this loads Ray."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import ray
import yaml
from numpy.typing import NDArray

from pneumo.pipeline import config
from pneumo.pipeline.config.document import read_document as read_document
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.data.training_images import read_images
from pneumo.pipeline.runs import provenance
from pneumo.pipeline.runs.reporter import TrackingMode
from pneumo.pipeline.sweep import experiments, space, sweep_settings, tune_callbacks, tune_setup
from pneumo.pipeline.sweep import storage as places
from pneumo.pipeline.sweep.best_value_actor import BestValue
from pneumo.pipeline.sweep.record import SWEEPS, Sweep, SweepFolder
from pneumo.pipeline.sweep.reporter import SWEEP_SILENT, SweepReporter
from pneumo.pipeline.sweep.space import Space
from pneumo.pipeline.sweep.sweep_settings import SweepLimits, SweepSettings
from pneumo.pipeline.sweep.trial import Task
from pneumo.pipeline.sweep.tune_callbacks import Recorder
from pneumo.pipeline.training.cluster import start_or_join_ray
from pneumo.pipeline.training.run import SEED, check_data
from pneumo.pipeline.training.tracking.tracker import resolve_mode
from pneumo.serving.contracts.errors import InputError, MachineError, PneumoError
from pneumo.serving.images.preparation import Preparation


class SweepError(PneumoError):
    """No trial of a sweep gave a value; its `folder` has their reasons."""

    def __init__(self, message: str, folder: SweepFolder) -> None:
        super().__init__(message)
        self.folder = folder


class SweepInterruptedError(KeyboardInterrupt):
    """A sweep was stopped from outside; what was done is kept in `folder`."""

    def __init__(self, folder: SweepFolder) -> None:
        super().__init__(f"{folder.name}: interrupted")
        self.folder = folder


@dataclass(frozen=True)
class Plan:
    """What a sweep does, beyond its config.

    Attributes:
        limits: What the command line says over the config.
        seed: Seed of the search, and of each trial's weights and shuffling.
        seeds: Seeds in all that each of the `top` best trials is trained with.
        refit: Train the winner again on training and validation images (`pneumo.pipeline.sweep.refit`).
        address: Ray cluster to join; None starts one on this machine.
        storage: Where Ray Tune keeps trials: a path or address that all machines reach; None keeps them in the folder.
        tracking: W&B mode.
    """

    limits: SweepLimits = field(default_factory=SweepLimits)
    seed: int = SEED
    seeds: int = 1
    top: int = 3
    refit: bool = False
    address: str | None = None
    storage: str | None = None
    tracking: TrackingMode = TrackingMode.DISABLED


def sweep(
    document: config.Document,
    name: str,
    dataset: Dataset,
    *,
    plan: Plan | None = None,
    root: Path = SWEEPS,
    command: Sequence[str] = (),
    reporter: SweepReporter = SWEEP_SILENT,
) -> SweepFolder:
    """Search a config's space.

    Args:
        document: A config with a `hyperopt` section, overrides applied.
        name: The config file's stem.
        dataset: What to train on; its validation split decides.
        plan: What the config leaves open.
        root: Folder that gets the sweep's folder.
        command: The command line, for the record.
        reporter: Receives progress.

    Returns:
        The folder, with status `done`.

    Raises:
        InputError: Config, space or data are wrong; nothing was started.
        MachineError: No cluster, or one that is too small.
        SweepInterruptedError: Ctrl-C or SIGTERM; the sweep can be resumed.
        SweepError: Every trial failed.
    """
    plan = plan or Plan()
    config.build_experiment(document, name)
    how = sweep_settings.read_settings(space.read_space(document, name), plan.limits)
    document = document.override([f"trainer.validation_metric={how.metric}"])  # chooses each trial's best epoch
    asked = space.read_space(document, name)
    asked.check()
    check_data(_first(asked), dataset)
    if plan.storage:
        places.check(plan.storage)
    folder = SweepFolder.create(name, root=root)
    folder.config.write_text(yaml.safe_dump(document.data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    record = Sweep(
        name=folder.name,
        command=list(command),
        config=document.name,
        data=str(dataset.folder.resolve()),
        data_fingerprint=dataset.info.fingerprint,
        metric=how.metric,
        goal=how.goal,
        space=document.data["hyperopt"]["parameters"],
        search=how.search,
        scheduler=how.scheduler,
        wanted=how.trials,
        epochs=how.epochs,
        time_budget=how.limits.time_budget,
        seed=plan.seed,
        seeds=plan.seeds,
        top=min(plan.top, how.trials),
        refit=plan.refit,
        cpus=how.limits.cpus or 0,
        gpus=how.limits.gpus or 0,
        concurrency=how.limits.concurrency or 0,
        address=plan.address,
        storage=places.absolute(plan.storage) if plan.storage else None,
        tracking=plan.tracking.value,
        started=datetime.now(UTC),
    )
    return _carry_out(folder, record, asked, how, dataset, reporter)


def resume(folder: SweepFolder, *, address: str | None = None, reporter: SweepReporter = SWEEP_SILENT) -> SweepFolder:
    """Continue a sweep that was interrupted, however it was: finished trials stay, others go on from their last epoch.

    Raises:
        InputError: It is done, or its data set has changed since.
    """
    record = folder.read()
    if record.status == "done":
        raise InputError(f"{folder.name}: done already; its best config is {folder.best}")
    dataset = manifest.read_dataset(Path(record.data))
    if dataset.info.fingerprint != record.data_fingerprint:
        raise InputError(f"{record.data}: changed since {folder.name} began; sweep anew")
    asked = space.read_space(read_document(folder.config), Path(record.config).stem)
    limits = SweepLimits(
        trials=record.wanted,
        time_budget=record.time_budget,
        concurrency=record.concurrency or None,
        cpus=record.cpus or None,
        gpus=record.gpus if record.cpus else None,  # placed before, or stated
    )
    how = sweep_settings.read_settings(asked, limits)
    record.status, record.error = "running", None
    record.address = address or record.address
    return _carry_out(folder, record, asked, how, dataset, reporter)


def _first(asked: Space) -> config.Experiment:
    return asked.experiment({parameter.name: parameter.ends()[0] for parameter in asked.parameters})


def _carry_out(
    folder: SweepFolder,
    record: Sweep,
    asked: Space,
    how: SweepSettings,
    dataset: Dataset,
    reporter: SweepReporter,
) -> SweepFolder:
    began = time.time()
    dataset = replace(dataset, folder=dataset.folder.resolve())  # workers have other working directories
    tune_setup.silence_ray()

    def end(status: Any, error: str | None = None) -> None:
        record.status, record.error = status, error
        folder.save(record)

    writes: Recorder | None = None
    with folder.locked():
        folder.save(record)
        try:
            reporter.message(f"sweeping {folder.name}: starting Ray ...")
            with _signals(), start_or_join_ray(record.address):
                placed = experiments.allocate_resources(record, how)
                task = Task(
                    sweep=folder.name,
                    space=asked,
                    dataset=dataset,
                    metric=record.metric,
                    goal=record.goal,
                    seed=record.seed,
                    cpus=placed.cpus,
                    command=tuple(record.command),
                    commit=provenance.read_git_commit(Path.cwd()),
                    board=None if record.address else _board(record),  # other machines lack the images of a report
                    tracking=resolve_mode(record.tracking, reporter),
                )
                reporter.message(
                    f"{record.wanted} trials, {placed.concurrency} at a time, {placed.cpus:g} cores each ..."
                )
                pixels = _pixels(dataset)
                writes = Recorder(folder, record, task, began, reporter)
                for stage in experiments.of_sweep(folder, record, asked, how, placed):
                    trials = experiments.run_stage(stage, writes, pixels, placed)
                    experiments.collect_trials(folder, record, trials, dataset)
                    if experiments.is_unfinished(stage, record, trials, writes.now()):
                        raise KeyboardInterrupt
        except KeyboardInterrupt:
            if writes:
                writes.pause()
            end("interrupted")
            raise SweepInterruptedError(folder) from None
        except PneumoError as error:
            end("failed", str(error))
            raise
        except Exception as error:  # Ray Tune's, around what went wrong
            reason = _reason(error)
            with contextlib.suppress(OSError):
                end("failed", reason)
            raise MachineError(f"{folder.folder}: {reason}; mend it and go on with `pneumo sweep --resume`") from error
        finally:
            tune_callbacks.use(None)
        if not record.ranked():
            reasons = [trial.error for trial in record.trials if trial.error]
            end("failed", reasons[0] if reasons else "no trial finished an epoch")
            raise SweepError(f"{folder.name}: no trial gave a value: {record.error}; see {folder.report}", folder)
        end("done")
    return folder


def _reason(error: Exception) -> str:
    """What went wrong, in a line, out of what may be a traceback in words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = next((line for line in lines if "No space left" in line), lines[-1])
    return said.partition("] ")[2] if said.startswith("OSError: [Errno") else said[:300]


def _board(record: Sweep) -> Any:
    ended = [trial.value(record.goal) for trial in record.trials if trial.status == "done"]
    values = [value for value in ended if value is not None]
    maximize = record.goal == "maximize"
    best = (max if maximize else min)(values) if values else None
    return ray.remote(BestValue).options(num_cpus=0).remote(maximize, best)


def _pixels(dataset: Dataset) -> NDArray[np.uint8]:
    """All images of a data set as they are stored, uint8 [N, size, size]: read and checked once for all trials."""
    size = dataset.info.size
    stored = Preparation(size=size, fit=dataset.info.fit, height=size, width=size, channels=1)
    return np.stack([each[:, :, 0] for each in read_images(dataset, dataset.rows, stored)])


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM, which a cluster sends before it takes a machine away, do what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
