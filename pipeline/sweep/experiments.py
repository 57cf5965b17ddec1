"""Ray Tune's experiments of a sweep: the search, and repeats of the best trials with other seeds. Loads Ray."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import ray
from numpy.typing import NDArray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from pneumo.pipeline.ludwig.compat import check_names
from pneumo.pipeline.runs.run import Run
from pneumo.pipeline.sweep import storage, tune_callbacks, tune_setup
from pneumo.pipeline.sweep.record import Sweep, SweepFolder
from pneumo.pipeline.sweep.seed_repeats import find_contenders
from pneumo.pipeline.sweep.space import Space
from pneumo.pipeline.sweep.sweep_settings import SweepSettings
from pneumo.pipeline.sweep.trial import POINT, VALUE, run_trial
from pneumo.pipeline.sweep.tune_callbacks import Recorder
from pneumo.pipeline.sweep.winner import correct_run_info
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.process_state import restore_signals

WORKER_MEMORY = 2.5 * 2**30
"""Bytes per worker with Ludwig and a few thousand images; limits the number of trials at a time unless it is given."""


def allocate_resources(record: Sweep, settings: SweepSettings) -> None:
    """Choose the resources that config and command line leave open from what the cluster has, and record them.

    On a cluster that was joined, a given concurrency may exceed the present resources, so that an autoscaler grows it.
    """
    machines = sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]
    if machines > 1 and record.storage is None:
        raise InputError(
            f"{record.address}: {machines} machines need a --storage that all of them reach: a shared path, or "
            "gs://bucket/path"
        )
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cores, cards = total.get("CPU", 0.0), total.get("GPU", 0.0)
    limits = settings.limits
    gpus = limits.gpus if limits.gpus is not None else float(min(1, cards))
    cpus = limits.cpus or 1.0
    fits = min(cores // cpus, cards // gpus if gpus else cores)
    grows = record.address is not None and limits.concurrency is not None
    if fits < 1 and not grows:
        raise MachineError(
            f"a trial needs {cpus:g} CPU and {gpus:g} GPU, the cluster has {cores:g} and {cards:g}; lower --cpus and "
            "--gpus, join another cluster with --address, or give --concurrency if the cluster can grow"
        )
    room = max(1.0, total.get("memory", float("inf")) // WORKER_MEMORY)
    most = limits.concurrency if grows else min(limits.concurrency or min(fits, room), fits)
    concurrency = int(min(most or 1, max(settings.trials, 1)))
    if limits.cpus is None and record.address is None:
        cpus = float(max(1, cores // concurrency))
    record.cpus, record.gpus, record.concurrency = cpus, gpus, concurrency


@dataclass(frozen=True)
class Stage:
    """One of Ray Tune's experiments: the search, or the repeats with other seeds."""

    name: str
    storage: str
    space: dict[str, Any]
    tune: tune.TuneConfig
    wanted: int
    repeats: bool = False


def plan_stages(folder: SweepFolder, record: Sweep, space: Space, settings: SweepSettings) -> Iterator[Stage]:
    """Yield the unfinished stages of a sweep: the search, its extensions, and the repeats of what they found."""
    place = storage.join_storage(record.storage, folder.name) if record.storage else str(folder.tune.resolve())
    configure = partial(
        tune.TuneConfig,
        metric=VALUE,
        mode=record.goal[:3],
        reuse_actors=True,
        trial_name_creator=tune_callbacks.name_trial,
        trial_dirname_creator=tune_callbacks.name_trial,
        max_concurrent_trials=record.concurrency,
    )
    for number, size in enumerate((record.wanted - sum(record.added), *record.added), start=1):
        name = "trials" if number == 1 else f"trials-{number}"
        if _is_finished(folder, record, name, size):
            continue
        known = [trial for trial in record.trials if trial.repeats is None and trial.stage != name]
        domains = tune_setup.make_domains(space)
        options: dict[str, Any] = {"scheduler": tune_setup.make_scheduler(settings)}
        if settings.draws_alone and number == 1:
            search = tune_setup.make_generator(settings, space, record.seed, record.concurrency)
            options |= {"search_alg": search, "num_samples": size // space.grid, "max_concurrent_trials": None}
        elif settings.draws_alone:
            points = tune_setup.draw_points(settings, space, record.seed, known, size)
            fixed = [{"parameters": point, "seed": record.seed} for point in points]
            domains = {POINT: tune.grid_search(fixed)}
        else:
            searcher = tune_setup.make_searcher(settings, space, record.seed, known)
            options |= {"search_alg": searcher, "num_samples": size}
            domains = {} if known else domains  # it has the space already
        yield Stage(name, place, domains, configure(**options), size)
    name = f"seeds-{len(record.added) + 1}" if record.added else "seeds"
    others = {(trial.repeats, trial.seed) for trial in record.trials if trial.stage != name}
    points = [
        {"parameters": trial.parameters, "seed": record.seed + more, "repeats": trial.name}
        for more in range(1, record.seeds)
        for trial in find_contenders(record)[: record.top]
        if (trial.name, record.seed + more) not in others
    ]
    if points:
        yield Stage(name, place, {POINT: tune.grid_search(points)}, configure(), len(points), repeats=True)


def _is_finished(folder: SweepFolder, record: Sweep, name: str, size: int) -> bool:
    """Return True if all trials of a search ended, and their run folders are where they belong."""
    trials = [trial for trial in record.trials if trial.stage == name and trial.repeats is None]
    return len(trials) >= size and all(
        trial.status.is_final and (not trial.rounds or storage.is_address(trial.run or "") or folder.run_of(trial))
        for trial in trials
    )


def run_stage(stage: Stage, recorder: Recorder, pixels: NDArray[np.uint8]) -> list[TuneTrial]:
    """Run or resume a stage on the stored images [N, size, size]; return Ray Tune's trials, finished or not.

    Ray Tune handles Ctrl-C itself and returns early. Raises a `MachineError` if its record of earlier trials is
    missing.
    """
    check_names("tune")
    record = recorder.sweep
    tune_callbacks.use_recorder(recorder, stage.name, repeating=stage.repeats)
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, task=recorder.task, pixels=pixels),
        {"cpu": record.cpus} | ({"gpu": record.gpus} if record.gpus else {}),
    )
    path = storage.join_storage(stage.storage, stage.name)
    if tune.Tuner.can_restore(path):
        tuner = tune.Tuner.restore(path, trainable, param_space=stage.space, resume_unfinished=True)
    elif any(trial.rounds for trial in record.trials if trial.stage == stage.name):
        raise MachineError(f"{path}: Ray Tune's record of the trials is missing; start a new sweep")
    else:
        tuner = _make_tuner(stage, trainable, recorder)
    with restore_signals():  # Ray Tune leaves its own handler
        grid = tuner.fit()
    trials: list[TuneTrial] = list(grid._experiment_analysis.trials)
    for trial in trials:
        if trial.status == TuneTrial.TERMINATED:
            recorder.on_trial_complete(0, trials, trial)  # Ray Tune sends no event if it stops all trials at once
    return trials


def _make_tuner(stage: Stage, trainable: Callable[..., None], recorder: Recorder) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        param_space=stage.space,
        tune_config=stage.tune,
        run_config=tune.RunConfig(
            name=stage.name,
            storage_path=stage.storage,
            callbacks=[recorder],
            stop=recorder,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=tune_setup.KEPT_CHECKPOINTS),
            failure_config=tune.FailureConfig(max_failures=tune_setup.RETRIES),
            verbose=0,
        ),
    )


def is_unfinished(stage: Stage, record: Sweep, trials: Sequence[TuneTrial], now: float) -> bool:
    """Return True if Ray Tune returned before the stage was done, because of Ctrl-C."""
    if any(trial.status not in (TuneTrial.TERMINATED, TuneTrial.ERROR) for trial in trials):
        return True
    over_budget = record.time_budget is not None and now >= record.time_budget and not stage.repeats
    return len(trials) < stage.wanted and not over_budget


def collect_trials(folder: SweepFolder, record: Sweep, trials: Sequence[TuneTrial], data: Path) -> None:
    """Link the trials' last checkpoints into `runs/` as run folders, and record those in a bucket by their address."""
    by_id = {trial.id: trial for trial in record.trials}
    for trial in trials:
        entry, checkpoint = by_id.get(trial.trial_id), trial.checkpoint
        if entry is None or checkpoint is None:
            continue
        target = folder.runs / f"{folder.name}-{entry.name}"
        shutil.rmtree(target, ignore_errors=True)
        if not isinstance(checkpoint.filesystem, pyarrow.fs.LocalFileSystem):
            entry.run = storage.format_address(str(record.storage), checkpoint.path)
            continue
        source = Path(checkpoint.path)
        if not source.is_dir():  # deleted by someone else
            entry.run = None
            continue
        copy = os.link if source.stat().st_dev == folder.folder.stat().st_dev else shutil.copy2
        shutil.copytree(source, target, copy_function=copy)
        entry.run = f"runs/{target.name}"
        correct_run_info(Run(target), data, entry.error)
    record.trials = [trial for trial in record.trials if trial.rounds or trial.error or not trial.status.is_final]
    folder.save(record)
