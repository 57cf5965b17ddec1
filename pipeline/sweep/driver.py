"""A sweep, from a config and a data set to a folder of runs with a winner. Importing this loads Ray."""

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import ray
import yaml
from numpy.typing import NDArray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from pipeline import config, provenance
from pipeline.config.document import read as read_document
from pipeline.data import manifest
from pipeline.data.manifest import Dataset
from pipeline.runs import Run, Status
from pipeline.sweep import recorder, settings, space, tuning
from pipeline.sweep import storage as places
from pipeline.sweep.board import Board
from pipeline.sweep.recorder import Recorder
from pipeline.sweep.records import SWEEPS, Sweep, SweepFolder
from pipeline.sweep.settings import Limits, Settings
from pipeline.sweep.space import Space
from pipeline.sweep.trial import POINT, VALUE, Task, run_trial
from pipeline.tracking import Mode
from pipeline.training.cluster.connection import cluster
from pipeline.training.images import read_images
from pipeline.training.run import SEED, check_data
from serving.errors import InputError, MachineError, PneumoError
from serving.image import Preparation

Watch = Callable[[Sweep, float], None]
Say = Callable[[str], None]
WORKER_MEMORY = 2.5 * 2**30
"""Bytes that a worker with Ludwig and a few thousand images takes; it bounds how many there are where nobody says."""
FIRST, SECOND = "trials", "seeds"
"""Ray Tune's experiments of a sweep: the search, and the repetitions of its best with other seeds."""


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
        address: Ray cluster to join; None starts one on this machine.
        storage: Where Ray Tune keeps trials: a path or address that all machines reach; None keeps them in the folder.
        tracking: W&B mode.
    """

    limits: Limits = field(default_factory=Limits)
    seed: int = SEED
    seeds: int = 1
    top: int = 3
    address: str | None = None
    storage: str | None = None
    tracking: Mode = Mode.DISABLED


def sweep(
    document: config.Document,
    name: str,
    dataset: Dataset,
    *,
    plan: Plan | None = None,
    root: Path = SWEEPS,
    command: Sequence[str] = (),
    say: Say | None = None,
    watch: Watch | None = None,
) -> SweepFolder:
    """Search a config's space.

    Args:
        document: A config with a `hyperopt` section, overrides applied.
        name: The config file's stem.
        dataset: What to train on; its validation split decides.
        plan: What the config leaves open.
        root: Folder that gets the sweep's folder.
        command: The command line, for the record.
        say: Told what goes on, a line at a time.
        watch: Told of the record after each event, and about once a second.

    Returns:
        The folder, with status `done`.

    Raises:
        InputError: Config, space or data are wrong; nothing was started.
        MachineError: No cluster, or one that is too small.
        SweepInterruptedError: Ctrl-C or SIGTERM; the sweep can be resumed.
        SweepError: Every trial failed.
    """
    plan = plan or Plan()
    config.of_document(document, name)
    how = settings.read(space.read(document, name), plan.limits)
    document = document.override([f"trainer.validation_metric={how.metric}"])  # chooses each trial's best epoch
    asked = space.read(document, name)
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
        cpus=how.limits.cpus or 0,
        gpus=how.limits.gpus or 0,
        concurrency=how.limits.concurrency or 0,
        address=plan.address,
        storage=plan.storage,
        tracking=plan.tracking.value,
        started=datetime.now(UTC),
    )
    return _carry_out(folder, record, asked, how, dataset, say, watch)


def resume(
    folder: SweepFolder, *, address: str | None = None, say: Say | None = None, watch: Watch | None = None
) -> SweepFolder:
    """Continue a sweep that was interrupted, however it was: finished trials stay, others go on from their last epoch.

    Raises:
        InputError: It is done, or its data set has changed since.
    """
    record = folder.read()
    if record.status == "done":
        raise InputError(f"{folder.name}: done already; its best config is {folder.best}")
    dataset = manifest.read(Path(record.data))
    if dataset.info.fingerprint != record.data_fingerprint:
        raise InputError(f"{record.data}: changed since {folder.name} began; sweep anew")
    asked = space.read(read_document(folder.config), Path(record.config).stem)
    limits = Limits(
        trials=record.wanted,
        time_budget=record.time_budget,
        concurrency=record.concurrency or None,
        cpus=record.cpus or None,
        gpus=record.gpus or None,
    )
    how = settings.read(asked, limits)
    record.status, record.error = "running", None
    record.address = address or record.address
    return _carry_out(folder, record, asked, how, dataset, say, watch)


def _first(asked: Space) -> config.Experiment:
    return asked.experiment({parameter.name: parameter.ends()[0] for parameter in asked.parameters})


def _carry_out(
    folder: SweepFolder,
    record: Sweep,
    asked: Space,
    how: Settings,
    dataset: Dataset,
    say: Say | None,
    watch: Watch | None,
) -> SweepFolder:
    began = time.time()
    tuning.quiet()
    tell = say or (lambda text: None)

    def end(status: Any, error: str | None = None) -> None:
        record.status, record.error = status, error
        folder.save(record)

    writes: Recorder | None = None
    with folder.locked():
        folder.save(record)
        try:
            tell(f"sweeping {folder.name}: starting Ray ...")
            with _signals(), cluster(record.address):
                placed = _placed(record, how)
                task = Task(
                    sweep=folder.name,
                    space=asked,
                    dataset=dataset,
                    metric=record.metric,
                    goal=record.goal,
                    seed=record.seed,
                    cpus=placed.cpus,
                    command=tuple(record.command),
                    commit=provenance.git_commit(Path.cwd()),
                    board=_board(record),
                    tracking=Mode(record.tracking),
                )
                tell(f"{record.wanted} trials, {placed.concurrency} at a time, {placed.cpus:g} cores each ...")
                pixels = _pixels(dataset)
                writes = Recorder(folder, record, task, began, watch)
                for stage in _stages(folder, record, asked, how, placed):
                    trials = _tune(stage, writes, pixels, placed)
                    _collect(folder, record, trials, dataset)
                    if _is_unfinished(stage, record, trials):
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
            recorder.use(None)
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


@dataclass(frozen=True)
class _Placed:
    """What each trial is given, and how many there are at once."""

    cpus: float
    gpus: float
    concurrency: int


def _placed(record: Sweep, how: Settings) -> _Placed:
    """Decide what config and command line left open, from what the cluster has.

    On a cluster that is joined a stated concurrency holds beyond what is there now, so that an autoscaler sees it.

    Raises:
        MachineError: Not one trial fits.
    """
    has: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cores, cards = has.get("CPU", 0.0), has.get("GPU", 0.0)
    gpus = how.limits.gpus if how.limits.gpus is not None else float(min(1, cards))
    cpus = how.limits.cpus or 1.0
    fits = min(cores // cpus, cards // gpus if gpus else cores)
    grows = record.address is not None and how.limits.concurrency is not None
    if fits < 1 and not grows:
        raise MachineError(
            f"a trial needs {cpus:g} CPU and {gpus:g} GPU, the cluster has {cores:g} and {cards:g}; "
            "ask for less with --cpus and --gpus, join another with --address, or state --concurrency where it grows"
        )
    room = max(1.0, has.get("memory", float("inf")) // WORKER_MEMORY)
    most = how.limits.concurrency if grows else min(how.limits.concurrency or min(fits, room), fits)
    concurrency = int(min(most or 1, max(how.trials, 1)))
    if how.limits.cpus is None and record.address is None:
        cpus = float(max(1, cores // concurrency))
    record.cpus, record.gpus, record.concurrency = cpus, gpus, concurrency
    return _Placed(cpus, gpus, concurrency)


def _board(record: Sweep) -> Any:
    ended = [trial.value(record.goal) for trial in record.trials if trial.status == "done"]
    values = [value for value in ended if value is not None]
    maximize = record.goal == "maximize"
    best = (max if maximize else min)(values) if values else None
    return ray.remote(Board).options(num_cpus=0).remote(maximize, best)


def _pixels(dataset: Dataset) -> NDArray[np.uint8]:
    """All images of a data set as they are stored, uint8 [N, size, size]: read and checked once for all trials."""
    size = dataset.info.size
    stored = Preparation(size=size, fit=dataset.info.fit, height=size, width=size, channels=1)
    return np.stack([each[:, :, 0] for each in read_images(dataset, dataset.rows, stored)])


@dataclass(frozen=True)
class _Stage:
    """One of Ray Tune's experiments."""

    name: str
    storage: str
    space: dict[str, Any]
    tune: tune.TuneConfig
    wanted: int
    keeps: int = 1

    @property
    def path(self) -> str:
        """Where Ray Tune keeps it."""
        return places.below(self.storage, self.name)


def _stages(folder: SweepFolder, record: Sweep, asked: Space, how: Settings, placed: _Placed) -> Iterator[_Stage]:
    storage = places.below(record.storage, folder.name) if record.storage else str(folder.tune.resolve())
    common: dict[str, Any] = {
        "reuse_actors": True,
        "trial_name_creator": recorder.trial_name,
        "trial_dirname_creator": recorder.trial_name,
    }
    method = tuning.search(how, asked, record.seed, placed.concurrency)
    limited: dict[str, Any] = (
        {} if how.search in ("variant_generator", "random") else {"max_concurrent_trials": placed.concurrency}
    )
    yield _Stage(
        FIRST,
        storage,
        tuning.domains(asked),
        tune.TuneConfig(
            metric=VALUE,
            mode=record.goal[:3],
            search_alg=method,
            scheduler=tuning.scheduler(how, asked),
            num_samples=how.samples,
            **limited,
            **common,
        ),
        how.trials,
        keeps=4 if how.scheduler == "pbt" else 1,  # others take up a trial's checkpoint after its next
    )
    if record.seeds > 1:
        points = [
            {"parameters": trial.parameters, "seed": record.seed + more, "repeats": trial.name}
            for more in range(1, record.seeds)
            for trial in record.ranked()[: record.top]
        ]
        yield _Stage(
            SECOND,
            storage,
            {POINT: tune.grid_search(points)},
            tune.TuneConfig(metric=VALUE, mode=record.goal[:3], **common),
            len(points),
        )


def _tune(stage: _Stage, writes: Recorder, pixels: NDArray[np.uint8], placed: _Placed) -> list[TuneTrial]:
    recorder.use(writes, repeating=stage.name == SECOND)
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, task=writes.task, pixels=pixels),
        {"cpu": placed.cpus} | ({"gpu": placed.gpus} if placed.gpus else {}),
    )
    if tune.Tuner.can_restore(stage.path):
        tuner = tune.Tuner.restore(stage.path, trainable, param_space=stage.space, resume_unfinished=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=stage.space,
            tune_config=stage.tune,
            run_config=tune.RunConfig(
                name=stage.name,
                storage_path=stage.storage,
                callbacks=[recorder.Relay()],
                stop=recorder.Budget(),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=stage.keeps),
                failure_config=tune.FailureConfig(max_failures=tuning.RETRIES),
                verbose=0,
            ),
        )
    grid = tuner.fit()
    return list(grid._experiment_analysis.trials)


def _is_unfinished(stage: _Stage, record: Sweep, trials: Sequence[TuneTrial]) -> bool:
    """Whether Ray Tune came back early: it takes Ctrl-C for itself and returns."""
    if any(trial.status not in (TuneTrial.TERMINATED, TuneTrial.ERROR) for trial in trials):
        return True
    spent = record.time_budget is not None and record.seconds >= record.time_budget
    return len(trials) < stage.wanted and not (spent and stage.name == FIRST)


def _collect(folder: SweepFolder, record: Sweep, trials: Sequence[TuneTrial], dataset: Dataset) -> None:
    """Make the trials' last checkpoints run folders of this sweep, as links; those in a bucket stay there."""
    for trial in trials:
        known = next((each for each in record.trials if each.id == trial.trial_id), None)
        kept = trial.checkpoint
        if known is None or kept is None:
            continue
        if not isinstance(kept.filesystem, pyarrow.fs.LocalFileSystem):
            known.run = places.address_of(str(record.storage), kept.path)
            continue
        here = _newest(Path(kept.path))
        if here is None:
            continue
        target = folder.folder / (known.run or f"runs/{folder.name}-{known.name}")
        shutil.rmtree(target, ignore_errors=True)
        copy = os.link if here.stat().st_dev == folder.folder.stat().st_dev else shutil.copy2
        shutil.copytree(here, target, copy_function=copy)
        _say_what_is(Run(target), dataset, known.error)
    record.trials = [each for each in record.trials if each.rounds or each.error or each.status == "waiting"]
    folder.save(record)


def _newest(checkpoint: Path) -> Path | None:
    """A checkpoint, or the newest beside it where it is gone, as after Ray Tune moved a trial about (PBT)."""
    if checkpoint.is_dir():
        return checkpoint
    return max((path for path in checkpoint.parent.glob("checkpoint_*") if path.is_dir()), default=None)


def _say_what_is(run: Run, dataset: Dataset, error: str | None) -> None:
    """Correct the status of a run that was stopped, or whose worker died, while it said that it is running."""
    info = run.info()
    update: dict[str, Any] = {"name": run.name, "data": str(dataset.folder.resolve())}
    if info.status is Status.RUNNING:
        update |= {"status": Status.FAILED if error else Status.INTERRUPTED, "error": error}
    run.save(info.model_copy(update=update))


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
