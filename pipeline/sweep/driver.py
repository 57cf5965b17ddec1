"""The search of a sweep, from a space and a data set to a folder of trials. Importing this module loads Ray."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import ray
import yaml
from numpy.typing import NDArray

from pneumo.pipeline.config.document import read_document
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.data.training_images import read_images
from pneumo.pipeline.runs import provenance
from pneumo.pipeline.runs.reporter import TrackingMode
from pneumo.pipeline.sweep import experiments, storage, sweep_settings, tune_callbacks, tune_setup
from pneumo.pipeline.sweep.best_value_actor import BestValue
from pneumo.pipeline.sweep.record import SWEEPS, Sweep, SweepFolder, TrialStatus
from pneumo.pipeline.sweep.reporter import SWEEP_SILENT, SweepReporter
from pneumo.pipeline.sweep.space import Space, read_space
from pneumo.pipeline.sweep.sweep_settings import SweepLimits, SweepSettings
from pneumo.pipeline.sweep.trial import Task
from pneumo.pipeline.sweep.tune_callbacks import Recorder
from pneumo.pipeline.training.cluster import start_or_join_ray
from pneumo.pipeline.training.run import SEED, check_data
from pneumo.pipeline.training.tracking.tracker import resolve_mode
from pneumo.serving.contracts.errors import InputError, MachineError, PneumoError
from pneumo.serving.images.preparation import Preparation

if TYPE_CHECKING:
    from ray.actor import ActorHandle


class SweepError(PneumoError):
    """No trial of a sweep has a value; `folder` has their errors."""

    def __init__(self, message: str, folder: SweepFolder) -> None:
        super().__init__(message)
        self.folder = folder


class SweepInterruptedError(KeyboardInterrupt):
    """A sweep was interrupted; `folder` has its finished trials."""

    def __init__(self, folder: SweepFolder) -> None:
        super().__init__(f"{folder.name}: interrupted")
        self.folder = folder


@dataclass(frozen=True)
class Plan:
    """Settings of a sweep that override or complete its config.

    Attributes:
        seed: Seed of the search, and of each trial's weights and shuffling.
        seeds: Number of seeds that each of the `top` best trials is trained with.
        refit: Train the winner again on training and validation images (`pneumo.pipeline.sweep.refit`).
        address: Ray cluster to join; without one, a cluster is started on this machine.
        storage: Path or address, reached by all machines, where Ray Tune keeps trials; the sweep's folder by default.
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
    space: Space,
    dataset: Dataset,
    *,
    plan: Plan,
    root: Path = SWEEPS,
    command: Sequence[str] = (),
    reporter: SweepReporter = SWEEP_SILENT,
) -> SweepFolder:
    """Search a space; arguments and errors are those of `pneumo.pipeline.sweep.search.run_sweep`."""
    settings = sweep_settings.read_settings(space, plan.limits)
    # the sweep's metric chooses each trial's best epoch too
    space = replace(space, document=space.document.override([f"trainer.validation_metric={settings.metric}"]))
    space.check()
    check_data(space.experiment({parameter.name: parameter.ends()[0] for parameter in space.parameters}), dataset)
    if plan.storage:
        storage.create_storage(plan.storage)
    folder = SweepFolder.create(space.name, root=root)
    data = space.document.data
    folder.config.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    record = Sweep(
        name=folder.name,
        command=list(command),
        config=space.document.name,
        data=str(dataset.folder.resolve()),
        data_fingerprint=dataset.info.fingerprint,
        metric=settings.metric,
        goal=settings.goal,
        space=data["hyperopt"]["parameters"],
        search=settings.search,
        scheduler=settings.scheduler,
        wanted=settings.trials,
        epochs=settings.epochs,
        time_budget=settings.limits.time_budget,
        seed=plan.seed,
        seeds=plan.seeds,
        top=min(plan.top, settings.trials),
        refit=plan.refit,
        cpus=settings.limits.cpus or 0,
        gpus=settings.limits.gpus or 0,
        concurrency=settings.limits.concurrency or 0,
        address=plan.address,
        storage=storage.resolve_storage(plan.storage) if plan.storage else None,
        tracking=plan.tracking.value,
        started=datetime.now(UTC),
    )
    return _run(folder, record, space, settings, dataset, reporter)


def resume(folder: SweepFolder, *, address: str | None = None, reporter: SweepReporter = SWEEP_SILENT) -> SweepFolder:
    """Continue an interrupted search: finished trials stay, others continue after their last finished epoch."""
    record = folder.read()
    if record.status == "done":
        raise InputError(f"{folder.name}: done already; its best config is {folder.best}")
    dataset = folder.read_dataset()
    space = read_space(read_document(folder.config), Path(record.config).stem)
    limits = SweepLimits(
        trials=record.wanted,
        time_budget=record.time_budget,
        concurrency=record.concurrency or None,
        cpus=record.cpus or None,
        gpus=record.gpus if record.cpus else None,  # 0 GPUs is a choice only once resources were allocated
    )
    settings = sweep_settings.read_settings(space, limits)
    record.status, record.error = "running", None
    record.address = address or record.address
    return _run(folder, record, space, settings, dataset, reporter)


def _run(
    folder: SweepFolder, record: Sweep, space: Space, settings: SweepSettings, dataset: Dataset, reporter: SweepReporter
) -> SweepFolder:
    began = time.time()
    dataset = replace(dataset, folder=dataset.folder.resolve())  # workers have other working directories
    tune_setup.silence_ray()

    def end(status: Literal["done", "interrupted", "failed"], error: str | None = None) -> None:
        record.status, record.error = status, error
        folder.save(record)

    recorder: Recorder | None = None
    with folder.locked():
        folder.save(record)
        try:
            reporter.message(f"sweeping {folder.name}: starting Ray ...")
            with _sigterm_as_sigint(), start_or_join_ray(record.address):
                experiments.allocate_resources(record, settings)
                commit, tracking = provenance.read_git_commit(Path.cwd()), resolve_mode(record.tracking, reporter)
                board = None if record.address else _start_board(record)  # a report needs images, which are only here
                task = Task(record.model_copy(update={"trials": []}), space, dataset, commit, board, tracking)
                reporter.message(
                    f"{record.wanted} trials, {record.concurrency} at a time, {record.cpus:g} cores each ..."
                )
                pixels = _read_pixels(dataset)
                recorder = Recorder(folder, record, task, began, reporter)
                for stage in experiments.plan_stages(folder, record, space, settings):
                    trials = experiments.run_stage(stage, recorder, pixels)
                    experiments.collect_trials(folder, record, trials, dataset.folder)
                    if experiments.is_unfinished(stage, record, trials, recorder.now()):
                        raise KeyboardInterrupt
        except KeyboardInterrupt:
            if recorder:
                recorder.pause_trials()
            end("interrupted")
            raise SweepInterruptedError(folder) from None
        except PneumoError as error:
            end("failed", str(error))
            raise
        except Exception as error:  # Ray Tune wraps the cause in its own exception
            reason = _describe_error(error)
            with contextlib.suppress(OSError):
                end("failed", reason)
            raise MachineError(
                f"{folder.folder}: {reason}; fix it and continue with `pneumo sweep --resume {folder.folder}`"
            ) from error
        finally:
            tune_callbacks.use_recorder(None)
        if not record.ranked():
            reason = next((trial.error for trial in record.trials if trial.error), "no trial finished an epoch")
            end("failed", reason)
            raise SweepError(f"{folder.name}: no trial has a value: {reason}; see {folder.report}", folder)
        end("done")
    return folder


def _describe_error(error: Exception) -> str:
    """Return one line about an error whose text may hold a traceback, without `OSError: [Errno 28]`."""
    lines = [line.strip() for line in str(error).splitlines()]
    reason = next((line for line in lines if "No space left" in line), None) or tune_callbacks.last_line(str(error))
    return reason.partition("] ")[2] if reason.startswith("OSError: [Errno") else reason or type(error).__name__


def _start_board(record: Sweep) -> "ActorHandle[BestValue]":
    values = [trial.value(record.goal) for trial in record.trials if trial.status is TrialStatus.DONE]
    maximize = record.goal == "maximize"
    best = (max if maximize else min)((value for value in values if value is not None), default=None)
    board = ray.remote(BestValue).options(num_cpus=0).remote(maximize, best)
    return cast("ActorHandle[BestValue]", board)


def _read_pixels(dataset: Dataset) -> NDArray[np.uint8]:
    """Read and check all images once for all trials; return them as stored, uint8 [N, size, size]."""
    size = dataset.info.size
    stored = Preparation(**dataset.info.settings(), height=size, width=size, channels=1)
    return np.stack([each[:, :, 0] for each in read_images(dataset, dataset.rows, stored)])


@contextlib.contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Turn SIGTERM, which a cluster sends before it takes a machine away, into SIGINT, which Ray Tune handles."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
