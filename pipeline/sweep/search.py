"""A whole sweep: search the space, measure the winner, and write the report. Importing this module loads Ray."""

import contextlib
import importlib
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import ray
import yaml
from numpy.typing import NDArray

from pneumo.pipeline.config import build_experiment, load_config
from pneumo.pipeline.config.document import parse_document, read_document
from pneumo.pipeline.config.experiment import upgrade_document
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.data.training_images import read_images
from pneumo.pipeline.runs import provenance
from pneumo.pipeline.sweep import experiments, storage, sweep_settings, tune_callbacks, tune_setup
from pneumo.pipeline.sweep.auto import plan as auto_plan
from pneumo.pipeline.sweep.best_value_actor import BestValue
from pneumo.pipeline.sweep.record import SWEEPS, Sweep, SweepFolder, TrialStatus
from pneumo.pipeline.sweep.reporter import SWEEP_SILENT, SweepReporter
from pneumo.pipeline.sweep.space import Space, read_space
from pneumo.pipeline.sweep.sweep_settings import SweepLimits, SweepSettings, check_search
from pneumo.pipeline.sweep.trial import Task
from pneumo.pipeline.sweep.tune_callbacks import Recorder
from pneumo.pipeline.sweep.winner import finish_sweep, is_finished
from pneumo.pipeline.training.cluster import start_or_join_ray
from pneumo.pipeline.training.run import SEED, complete_experiment
from pneumo.pipeline.training.tracking.interface import TrackedRun
from pneumo.pipeline.training.tracking.tracker import Tracker
from pneumo.serving.contracts.errors import InputError, MachineError, PneumoError
from pneumo.serving.contracts.process_state import restore_signals
from pneumo.serving.contracts.quantities import format_count
from pneumo.serving.images.preparation import Preparation

if TYPE_CHECKING:
    from ray.actor import ActorHandle


AUTO_BUDGET = 1800.0
"""Seconds that an automatic space is planned for if no time budget is given."""


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
        address: Ray cluster to join; without one, a cluster is started on this machine.
        storage: Path or address, reached by all machines, where Ray Tune keeps trials; the sweep's folder by default.
    """

    limits: SweepLimits = field(default_factory=SweepLimits)
    seed: int = SEED
    seeds: int = 1
    top: int = 3
    address: str | None = None
    storage: str | None = None
    tracking: str = ""


def run_sweep(
    space: Space,
    dataset: Dataset,
    *,
    plan: Plan | None = None,
    root: Path = SWEEPS,
    command: Sequence[str] = (),
    reporter: SweepReporter = SWEEP_SILENT,
) -> SweepFolder:
    """Search a space, measure the winner, write `best.yaml`, `trials.csv` and `sweep.html`; return the folder.

    The validation split ranks the trials. Settings of the plan override or complete those of the config.

    Raises:
        InputError: Config, space or data are wrong; nothing was started.
        MachineError: There is no cluster, or it is too small.
        SweepInterruptedError: Ctrl-C or SIGTERM; finished trials are in its folder, and `resume_sweep` continues.
        SweepError: Every trial failed.
    """
    plan = plan or Plan()
    settings = sweep_settings.read_settings(space, plan.limits)
    # the sweep's metric chooses each trial's best epoch too
    space = replace(space, document=space.document.override([f"trainer.validation_metric={settings.metric}"]))
    first = space.experiment({parameter.name: parameter.ends()[0] for parameter in space.parameters})
    for remark in complete_experiment(first, dataset).remarks:
        reporter.message(remark)
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
        label_type=data["output_features"][0].get("type", "binary"),
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
        cpus=settings.limits.cpus or 0,
        gpus=settings.limits.gpus or 0,
        concurrency=settings.limits.concurrency or 0,
        address=plan.address,
        storage=storage.resolve_storage(plan.storage) if plan.storage else None,
        tracking=plan.tracking,
        started=datetime.now(UTC),
    )
    return _run(folder, record, space, settings, dataset, reporter)


def resume_sweep(
    folder: SweepFolder,
    *,
    trials: int | None = None,
    time_budget: float | None = None,
    address: str | None = None,
    reporter: SweepReporter = SWEEP_SILENT,
) -> SweepFolder:
    """Continue an interrupted sweep: its search, or the measuring of its winner; or extend any sweep.

    `trials` is the new number in all; a search knows the earlier trials, and grid and random search repeat none of
    them. `time_budget` is in seconds from now. The cluster is the sweep's earlier one by default. Raises the errors of
    `run_sweep`, and an `InputError` if nothing is left to do or the data set has changed.
    """
    record = folder.read()
    if record.status == "done" and trials is None and time_budget is None:
        if is_finished(folder):
            raise InputError(
                f"{folder.name}: done already; its best config is {folder.best}; --trials +20 would add 20 trials"
            )
        return _finish(folder, reporter)
    if time_budget is not None:
        record.time_budget = record.seconds + time_budget
    elif trials is not None and record.time_budget is not None and record.seconds >= record.time_budget:
        raise InputError(f"{folder.name}: its time budget is spent; give --time-budget for the new trials")
    if trials is not None:
        # what no stage to come continues: unfinished repeats with other seeds
        record.trials = [trial for trial in record.trials if trial.status.is_final or trial.repeats is None]
        record.added, record.wanted = [*record.added, trials - record.wanted], trials
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
    if trials is not None and settings.draws_alone:
        tried = [trial for trial in record.trials if trial.repeats is None]
        tune_setup.draw_points(settings, space, record.seed, tried, record.wanted - len(tried))
    record.status, record.error = "running", None
    record.address = address or record.address
    return _run(folder, record, space, settings, dataset, reporter)


def read_search(config: Path, overrides: Sequence[str] = ()) -> Space:
    """Read the search space of a config with overrides applied; raise an `InputError` if a value is wrong."""
    document = read_document(config).override(overrides)
    build_experiment(document, config.stem, [check_search])
    return read_space(upgrade_document(document).document, config.stem)


def plan_search(
    dataset: Dataset,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    time_budget: float | None = None,
    reporter: SweepReporter = SWEEP_SILENT,
) -> Space:
    """Choose a search space from data set, machine and time budget in seconds, `AUTO_BUDGET` by default.

    Without a config to search around, a network is chosen too. The reporter receives the config line by line, as YAML.

    Raises:
        InputError: The config is wrong, there are overrides without a config, or the time is too short.
    """
    if config is None and overrides:
        raise InputError("-o: sets a key of a CONFIG; give one, or leave it out")
    base = None if config is None else load_config(config, overrides).complete(dataset)
    hardware = auto_plan.Hardware.from_description(provenance.read_hardware())
    text = auto_plan.to_yaml(auto_plan.make_plan(dataset, hardware, budget=time_budget or AUTO_BUDGET, base=base))
    for line in text.splitlines():
        reporter.message(line)
    return read_space(parse_document(text, "auto.yaml"), "auto" if config is None else f"auto-{config.stem}")


def _run(
    folder: SweepFolder,
    record: Sweep,
    space: Space,
    settings: SweepSettings,
    dataset: Dataset,
    reporter: SweepReporter,
) -> SweepFolder:
    """Search, measure the winner, and write the report; a search that ends early leaves a report too."""
    try:
        _search(folder, record, space, settings, dataset, reporter)
    except (SweepInterruptedError, SweepError) as error:
        finish_sweep(folder, measure=isinstance(error, SweepError))
        raise
    return _finish(folder, reporter)


def _search(
    folder: SweepFolder, record: Sweep, space: Space, settings: SweepSettings, dataset: Dataset, reporter: SweepReporter
) -> None:
    began = time.time()
    dataset = replace(dataset, folder=dataset.folder.resolve())  # workers have other working directories

    def end(status: Literal["done", "interrupted", "failed"], error: str | None = None) -> None:
        record.status, record.error = status, error
        folder.save(record)
        values: dict[str, object] = {f"trials/{name.value}": record.count_trials(name) for name in TrialStatus}
        if ranked := record.ranked():
            values[record.metric_name] = ranked[0].value(record.goal)
        tracker.finish(values, status)

    recorder: Recorder | None = None
    tracker = Tracker()
    with folder.locked():
        folder.save(record)
        try:
            reporter.message(f"sweeping {folder.name}: starting Ray ...")
            with ThreadPoolExecutor(1) as thread, contextlib.ExitStack() as stack:
                pixels = thread.submit(_read_pixels, dataset)  # while Ray starts
                stack.enter_context(tune_setup.silence_ray())
                # a cluster sends SIGTERM before it takes a machine away; Ray Tune handles SIGINT
                interrupt = restore_signals(lambda *_: signal.raise_signal(signal.SIGINT), [signal.SIGTERM])
                stack.enter_context(interrupt)
                stack.enter_context(start_or_join_ray(record.address))
                experiments.allocate_resources(record, settings)
                commit = provenance.read_git_commit(Path.cwd())
                tracker = Tracker.start(record.tracking, _describe(record, space, commit), folder.folder, reporter)
                board = None if record.address else _start_board(record)  # a report needs images, which are only here
                task = Task(record.model_copy(update={"trials": []}), space, dataset, commit, board, tracker.trackers)
                wanted, cores = format_count(record.wanted, "trial"), f"{record.cpus:g} core{'s' * (record.cpus != 1)}"
                reporter.message(f"{wanted}, {record.concurrency} at a time, {cores} each ...")
                recorder = Recorder(folder, record, task, began, reporter)
                for stage in experiments.plan_stages(folder, record, space, settings):
                    trials = experiments.run_stage(stage, recorder, pixels.result())
                    experiments.collect_trials(folder, record, trials, dataset.folder)
                    if experiments.is_unfinished(stage, record, trials, recorder.now()):
                        raise KeyboardInterrupt
                thread.submit(importlib.import_module, "optuna.importance")  # for the report, while Ray ends
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


def _finish(folder: SweepFolder, reporter: SweepReporter) -> SweepFolder:
    """Measure the winner and write the report."""
    try:
        finish_sweep(folder, reporter=reporter)
    except KeyboardInterrupt:
        raise SweepInterruptedError(folder) from None
    return folder


def _describe(record: Sweep, space: Space, commit: str | None) -> TrackedRun:
    facts = record.model_dump(mode="json", include={"search", "scheduler", "wanted", "seeds", "time_budget"})
    provenance = {"seed": record.seed, "git_commit": commit, "config": record.config}
    config = space.document.data | {"sweep": facts, "provenance": provenance}
    return TrackedRun(record.name, config, record.data_fingerprint, group=record.name, job_type="sweep")


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
