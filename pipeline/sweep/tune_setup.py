"""Search spaces, search algorithms and schedulers of Ray Tune from a sweep's settings. Loads Ray."""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import BasicVariantGenerator, Searcher
from ray.tune.search.variant_generator import generate_variants

from pneumo.pipeline.sweep.record import Trial, TrialStatus
from pneumo.pipeline.sweep.space import Parameter, Space
from pneumo.pipeline.sweep.sweep_settings import SweepSettings
from pneumo.pipeline.sweep.trial import VALUE
from pneumo.serving.contracts.errors import InputError, MachineError, first_line
from pneumo.serving.contracts.process_state import set_environment, silence_loggers

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard per trial: pneumo writes its own files
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # a stopped trial cleans up before its worker takes the next
    "TUNE_GLOBAL_CHECKPOINT_S": "0.2",  # often enough that the recorded checkpoints still exist
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",  # each round is saved on purpose
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "3600",
    "TUNE_WARN_THRESHOLD_S": "60",
}
"""Settings that Ray Tune reads from the environment, here and in its workers."""
KEPT_CHECKPOINTS = 2
"""Checkpoints kept per trial. Ray Tune deletes the older one before it records the newer: with one, a driver that is
killed in between would leave a record of a deleted checkpoint."""
MOST_VAIN = 1000
"""Draws in a row without a new point, after which a space counts as used up."""
RETRIES = 2
"""Times that a trial is resumed after its worker died; a trial that fails for its own reason is not retried."""


@contextlib.contextmanager
def silence_ray() -> Iterator[None]:
    """Set Ray Tune's environment settings, and log only errors of Ray Tune and the search packages."""
    loggers = ("ray.tune", "ray.train", "optuna", "hyperopt")
    with set_environment(ENVIRONMENT), silence_loggers(*loggers, level=logging.ERROR):
        yield


def make_domains(space: Space) -> dict[str, Any]:
    """Return a space as Ray Tune's domains by parameter name."""
    return {parameter.name: make_domain(parameter) for parameter in space.parameters}


def make_domain(parameter: Parameter) -> Any:
    """Return one parameter as Ray Tune's domain, or as its mapping for a grid."""
    if parameter.encoded is not None:
        return (tune.grid_search if parameter.is_grid else tune.choice)(parameter.encoded)
    return getattr(tune, parameter.kind)(**parameter.options)


def make_generator(settings: SweepSettings, space: Space, seed: int, concurrency: int) -> BasicVariantGenerator:
    """Return the generator of the points of grid and random search."""
    options, points = _read_options(settings, space)
    fixed: dict[str, Any] = {"random_state": seed} | options
    return BasicVariantGenerator(points_to_evaluate=points or None, max_concurrent=concurrency, **fixed)


def draw_points(
    settings: SweepSettings, space: Space, seed: int, known: Sequence[Trial], count: int
) -> list[dict[str, Any]]:
    """Draw the next points of grid and random search, without those of known trials.

    A seed draws the same points as in a longer search. Raises an `InputError` if the space has too few others.
    """
    state = np.random.default_rng(_read_options(settings, space)[0].get("random_state", seed))
    seen = {json.dumps(trial.parameters, sort_keys=True) for trial in known}
    points: list[dict[str, Any]] = []
    vain, spec = 0, {"config": make_domains(space)}
    while len(points) < count and vain < MOST_VAIN:
        vain += 1
        for _, drawn in generate_variants(spec, random_state=state):
            point = space.decode(drawn["config"])
            if (key := json.dumps(point, sort_keys=True)) not in seen and len(points) < count:
                seen.add(key)
                points.append(point)
                vain = 0
    if len(points) < count:
        left = f"only {len(points)} other point{'s' * (len(points) > 1)}" if points else "no other point"
        raise InputError(f"--trials: the space has {left} to try, and {count} more are asked for")
    return points


def make_searcher(settings: SweepSettings, space: Space, seed: int, known: Sequence[Trial] = ()) -> Searcher:
    """Return Optuna's or HyperOpt's search, told of known trials; raise a MachineError if it is not installed."""
    options, points = _read_options(settings, space)
    told = [{each.name: each.encode(trial.parameters[each.name]) for each in space.parameters} for trial in known]
    target: dict[str, Any] = {"metric": VALUE, "mode": settings.goal[:3], "points_to_evaluate": told or points or None}
    seed_name = "seed" if settings.search == "optuna" else "random_state_seed"
    target |= options | {seed_name: options.get(seed_name, seed) + len(known)}  # no draw is drawn again
    searcher: Searcher
    try:
        if settings.search == "optuna":
            import optuna
            from ray.tune.search.optuna import OptunaSearch

            optuna.logging.set_verbosity(optuna.logging.WARNING)  # its own handler reports each new study
            searcher = OptunaSearch(**target)
        else:
            from ray.tune.search.hyperopt import HyperOptSearch

            searcher = HyperOptSearch(**{"n_initial_points": min(20, max(3, settings.trials // 3))} | target)
    except (ImportError, AssertionError) as error:
        raise MachineError(
            f"search_alg {settings.search} needs the package {settings.search}; run `pip install {settings.search}`"
        ) from error
    if known:
        searcher.set_search_properties(VALUE, settings.goal[:3], make_domains(space))
    for trial in known:
        value = None if trial.status is TrialStatus.FAILED else trial.value(settings.goal)
        searcher.suggest(trial.name)
        searcher.on_trial_complete(trial.name, None if value is None else {VALUE: value}, error=value is None)
    return searcher


def _read_options(settings: SweepSettings, space: Space) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the options of the search algorithm, and the points to try first."""
    options = {key: value for key, value in settings.search_options.items() if value is not None}
    points = options.pop("points_to_evaluate", [])
    return options, [{each.name: each.encode(point[each.name]) for each in space.parameters} for point in points]


def make_scheduler(settings: SweepSettings) -> TrialScheduler:
    """Return the scheduler; raise an InputError if its options contradict each other."""
    options = settings.scheduler_options
    try:
        if settings.scheduler == "async_hyperband":
            return AsyncHyperBandScheduler(
                **{**options, "stop_last_trials": False}
            )  # trials end after their last epoch
        if settings.scheduler == "median_stopping_rule":
            return MedianStoppingRule(**{"time_attr": "training_iteration", "grace_period": 1, **options})
    except (ValueError, AssertionError, TypeError, tune.TuneError) as error:
        raise InputError(f"hyperopt.executor.scheduler: {first_line(error)}") from None
    return FIFOScheduler()  # type: ignore[no-untyped-call]
