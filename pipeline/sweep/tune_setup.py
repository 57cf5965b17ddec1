"""Ray Tune, set up from a sweep's settings. Importing this loads Ray."""

import logging
import os
from typing import Any

from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher

from pneumo.pipeline.sweep.space import Parameter, Space
from pneumo.pipeline.sweep.sweep_settings import SweepSettings
from pneumo.pipeline.sweep.trial import VALUE
from pneumo.serving.contracts.errors import InputError, MachineError, first_line

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard of each trial: pneumo writes its own
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # a stopped trial tidies up before its worker takes the next
    "TUNE_GLOBAL_CHECKPOINT_S": "0.2",  # often enough that what it refers to is still among the kept checkpoints
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",  # each round is kept on purpose
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "3600",
    "TUNE_WARN_THRESHOLD_S": "60",
}
"""Read from the environment by Ray Tune, here and in its workers."""
KEPT = 2
"""Checkpoints of a trial that are kept. Ray Tune deletes older ones before it writes down that there is a newer: with
one, a driver that is killed in between would leave a record of a checkpoint that is gone."""
RETRIES = 2
"""Times that a trial is taken up again whose worker died; a trial that fails for its own reason is not."""


def silence_ray() -> None:
    """Set what Ray Tune reads from the environment, and let it speak up only where something is wrong."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("ray.tune", "ray.train", "optuna", "hyperopt"):
        logging.getLogger(name).setLevel(logging.ERROR)


def domains(space: Space) -> dict[str, Any]:
    """A space as Ray Tune takes it."""
    return {parameter.name: domain(parameter) for parameter in space.parameters}


def domain(parameter: Parameter) -> Any:
    """One parameter as Ray Tune takes it."""
    if parameter.encoded is not None:
        make = tune.grid_search if parameter.is_grid else tune.choice
        return make(parameter.encoded)
    return getattr(tune, parameter.kind)(**parameter.options)


def search(settings: SweepSettings, space: Space, seed: int, concurrency: int) -> SearchAlgorithm | Searcher:
    """The search algorithm.

    Raises:
        MachineError: Its package is not installed.
    """
    options = {key: value for key, value in settings.search_options.items() if value is not None}
    points = [
        {parameter.name: _encoded(parameter, point[parameter.name]) for parameter in space.parameters}
        for point in options.pop("points_to_evaluate", [])
    ]
    told: dict[str, Any] = {"metric": VALUE, "mode": settings.goal[:3]}
    try:
        if settings.search == "optuna":
            import optuna
            from ray.tune.search.optuna import OptunaSearch

            optuna.logging.set_verbosity(optuna.logging.WARNING)  # its own handler says when a study is made
            options.setdefault("seed", seed)
            return OptunaSearch(points_to_evaluate=points or None, **told, **options)
        if settings.search == "hyperopt":
            from ray.tune.search.hyperopt import HyperOptSearch

            options.setdefault("random_state_seed", seed)
            options.setdefault("n_initial_points", min(20, max(3, settings.trials // 3)))
            return HyperOptSearch(points_to_evaluate=points or None, **told, **options)
    except (ImportError, AssertionError) as error:
        raise MachineError(
            f"search_alg {settings.search} needs the package {settings.search}; run `pip install {settings.search}`"
        ) from error
    options.setdefault("random_state", seed)
    return BasicVariantGenerator(points_to_evaluate=points or None, max_concurrent=concurrency, **options)


def scheduler(settings: SweepSettings, space: Space) -> TrialScheduler:
    """The scheduler.

    Raises:
        InputError: Its options make no sense together.
    """
    options = dict(settings.scheduler_options)
    try:
        if settings.scheduler == "async_hyperband":
            return AsyncHyperBandScheduler(**options | {"stop_last_trials": False})  # they end by themselves, whole
        if settings.scheduler == "median_stopping_rule":
            return MedianStoppingRule(**dict[str, Any](time_attr="training_iteration", grace_period=1) | options)
    except (ValueError, AssertionError, TypeError, tune.TuneError) as error:
        raise InputError(f"hyperopt.executor.scheduler: {first_line(error)}") from None
    return FIFOScheduler()  # type: ignore[no-untyped-call]


def _encoded(parameter: Parameter, value: Any) -> Any:
    encoded = parameter.encoded
    if encoded is None:
        return value
    return encoded[(parameter.values or []).index(parameter.decode(value))]
