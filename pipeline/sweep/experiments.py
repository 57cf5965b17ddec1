"""Ray Tune's experiments of a sweep: the search, and the repetitions of its best with other seeds. Loads Ray."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import ray
from numpy.typing import NDArray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.runs.run import Run
from pneumo.pipeline.sweep import storage as places
from pneumo.pipeline.sweep import tune_callbacks, tune_setup
from pneumo.pipeline.sweep.record import Sweep, SweepFolder
from pneumo.pipeline.sweep.seed_repeats import find_contenders
from pneumo.pipeline.sweep.space import Space
from pneumo.pipeline.sweep.sweep_settings import SweepSettings
from pneumo.pipeline.sweep.trial import POINT, VALUE, run_trial
from pneumo.pipeline.sweep.tune_callbacks import Recorder
from pneumo.pipeline.sweep.winner import correct_run_info
from pneumo.serving.contracts.errors import InputError, MachineError

WORKER_MEMORY = 2.5 * 2**30
"""Bytes that a worker with Ludwig and a few thousand images takes; it bounds how many there are where nobody says."""
FIRST, SECOND = "trials", "seeds"
"""The names of the search and of the repetitions."""


@dataclass(frozen=True)
class Allocation:
    """What each trial is given, and how many there are at once."""

    cpus: float
    gpus: float
    concurrency: int


def allocate_resources(record: Sweep, how: SweepSettings) -> Allocation:
    """Decide what config and command line left open, from what the cluster has.

    On a cluster that is joined a stated concurrency holds beyond what is there now, so that an autoscaler sees it.

    Raises:
        MachineError: Not one trial fits.
    """
    machines = sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]
    if machines > 1 and record.storage is None:
        raise InputError(
            f"{record.address}: {machines} machines, which need a --storage that all of them reach: a shared path, or "
            "gs://bucket/path"
        )
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
    return Allocation(cpus, gpus, concurrency)


@dataclass(frozen=True)
class Stage:
    """One of Ray Tune's experiments."""

    name: str
    storage: str
    space: dict[str, Any]
    tune: tune.TuneConfig
    wanted: int

    @property
    def path(self) -> str:
        """Where Ray Tune keeps it."""
        return places.below(self.storage, self.name)


def of_sweep(
    folder: SweepFolder, record: Sweep, asked: Space, how: SweepSettings, placed: Allocation
) -> Iterator[Stage]:
    """The stages of a sweep, the second once the first has shown which trials to repeat."""
    storage = places.below(record.storage, folder.name) if record.storage else str(folder.tune.resolve())
    common: dict[str, Any] = {
        "reuse_actors": True,
        "trial_name_creator": tune_callbacks.trial_name,
        "trial_dirname_creator": tune_callbacks.trial_name,
    }
    method = tune_setup.search(how, asked, record.seed, placed.concurrency)
    limited: dict[str, Any] = (
        {} if how.search in ("variant_generator", "random") else {"max_concurrent_trials": placed.concurrency}
    )
    yield Stage(
        FIRST,
        storage,
        tune_setup.domains(asked),
        tune.TuneConfig(
            metric=VALUE,
            mode=record.goal[:3],
            search_alg=method,
            scheduler=tune_setup.scheduler(how, asked),
            num_samples=how.samples,
            **limited,
            **common,
        ),
        how.trials,
    )
    if record.seeds > 1 and find_contenders(record):
        points = [
            {"parameters": trial.parameters, "seed": record.seed + more, "repeats": trial.name}
            for more in range(1, record.seeds)
            for trial in find_contenders(record)[: record.top]
        ]
        yield Stage(
            SECOND,
            storage,
            {POINT: tune.grid_search(points)},
            tune.TuneConfig(metric=VALUE, mode=record.goal[:3], max_concurrent_trials=placed.concurrency, **common),
            len(points),
        )


def run_stage(stage: Stage, writes: Recorder, pixels: NDArray[np.uint8], placed: Allocation) -> list[TuneTrial]:
    """Run a stage, from where Ray Tune's record of it ends where there is one.

    Args:
        stage: What to run.
        writes: Writes down what happens.
        pixels: uint8 [N, size, size], the images of the data set's rows as they are stored.
        placed: What each trial is given.

    Returns:
        Ray Tune's trials, ended or not: it takes Ctrl-C for itself and returns.

    Raises:
        MachineError: Trials of an earlier session are written down, but Ray Tune's record is gone.
    """
    tune_callbacks.use(writes, repeating=stage.name == SECOND)
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, task=writes.task, pixels=pixels),
        {"cpu": placed.cpus} | ({"gpu": placed.gpus} if placed.gpus else {}),
    )
    before = signal.getsignal(signal.SIGINT)
    if tune.Tuner.can_restore(stage.path):
        tuner = tune.Tuner.restore(stage.path, trainable, param_space=stage.space, resume_unfinished=True)
    elif any(trial.rounds for trial in writes.sweep.trials if (trial.repeats is not None) is (stage.name == SECOND)):
        raise MachineError(f"{stage.path}: Ray Tune's record of the trials is gone; sweep anew")
    else:
        tuner = _new(stage, trainable)
    try:
        grid = tuner.fit()
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)  # Ray Tune leaves its own
    trials: list[TuneTrial] = list(grid._experiment_analysis.trials)
    for trial in trials:
        if trial.status == TuneTrial.TERMINATED:
            writes.ended(trial)  # not told where all were stopped at once
    return trials


def _new(stage: Stage, trainable: Any) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        param_space=stage.space,
        tune_config=stage.tune,
        run_config=tune.RunConfig(
            name=stage.name,
            storage_path=stage.storage,
            callbacks=[tune_callbacks.Relay()],
            stop=tune_callbacks.Budget(),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=tune_setup.KEPT),
            failure_config=tune.FailureConfig(max_failures=tune_setup.RETRIES),
            verbose=0,
        ),
    )


def is_unfinished(stage: Stage, record: Sweep, trials: Sequence[TuneTrial], now: float) -> bool:
    """Whether Ray Tune came back early: it takes Ctrl-C for itself and returns."""
    if any(trial.status not in (TuneTrial.TERMINATED, TuneTrial.ERROR) for trial in trials):
        return True
    spent = record.time_budget is not None and now >= record.time_budget
    return len(trials) < stage.wanted and not (spent and stage.name == FIRST)


def collect_trials(folder: SweepFolder, record: Sweep, trials: Sequence[TuneTrial], dataset: Dataset) -> None:
    """Make the trials' last checkpoints run folders of this sweep, as links; those in a bucket stay there."""
    for trial in trials:
        known = next((each for each in record.trials if each.id == trial.trial_id), None)
        kept = trial.checkpoint
        if known is None or kept is None:
            continue
        target = folder.runs / f"{folder.name}-{known.name}"
        shutil.rmtree(target, ignore_errors=True)
        if not isinstance(kept.filesystem, pyarrow.fs.LocalFileSystem):
            known.run = places.address_of(str(record.storage), kept.path)
            continue
        here = Path(kept.path)
        if not here.is_dir():  # taken away from outside
            known.run = None
            continue
        copy = os.link if here.stat().st_dev == folder.folder.stat().st_dev else shutil.copy2
        shutil.copytree(here, target, copy_function=copy)
        known.run = f"runs/{target.name}"
        correct_run_info(Run(target), dataset.folder, known.error)
    under_way = ("waiting", "running")
    record.trials = [each for each in record.trials if each.rounds or each.error or each.status in under_way]
    folder.save(record)
