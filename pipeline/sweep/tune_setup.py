"""Search spaces, search algorithms and schedulers of Ray Tune from a sweep's settings. Loads Ray."""

import logging
import os
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher

from pneumo.pipeline.sweep.space import Parameter, Space
from pneumo.pipeline.sweep.sweep_settings import SweepSettings
from pneumo.pipeline.sweep.trial import VALUE
from pneumo.serving.contracts.errors import InputError, MachineError, first_line

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
RETRIES = 2
"""Times that a trial is resumed after its worker died; a trial that fails for its own reason is not retried."""


def silence_ray() -> None:
    """Set Ray Tune's environment settings, and log only errors of Ray Tune and the search packages."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("ray.tune", "ray.train", "optuna", "hyperopt"):
        logging.getLogger(name).setLevel(logging.ERROR)


def make_domains(space: Space) -> dict[str, Any]:
    """Return a space as Ray Tune's domains by parameter name."""
    return {parameter.name: make_domain(parameter) for parameter in space.parameters}


def make_domain(parameter: Parameter) -> Any:
    """Return one parameter as Ray Tune's domain, or as its mapping for a grid."""
    if parameter.encoded is not None:
        return (tune.grid_search if parameter.is_grid else tune.choice)(parameter.encoded)
    return getattr(tune, parameter.kind)(**parameter.options)


def make_search(settings: SweepSettings, space: Space, seed: int, concurrency: int) -> SearchAlgorithm | Searcher:
    """Return the search algorithm; raise a MachineError if its package is not installed."""
    options = {key: value for key, value in settings.search_options.items() if value is not None}
    points = [
        {parameter.name: parameter.encode(point[parameter.name]) for parameter in space.parameters}
        for point in options.pop("points_to_evaluate", [])
    ] or None
    target: dict[str, Any] = {"metric": VALUE, "mode": settings.goal[:3], "points_to_evaluate": points}
    try:
        if settings.search == "optuna":
            import optuna
            from ray.tune.search.optuna import OptunaSearch

            optuna.logging.set_verbosity(optuna.logging.WARNING)  # its own handler reports each new study
            return OptunaSearch(**target, **{"seed": seed} | options)
        if settings.search == "hyperopt":
            from ray.tune.search.hyperopt import HyperOptSearch

            initial = min(20, max(3, settings.trials // 3))
            return HyperOptSearch(**target, **{"random_state_seed": seed, "n_initial_points": initial} | options)
    except (ImportError, AssertionError) as error:
        raise MachineError(
            f"search_alg {settings.search} needs the package {settings.search}; run `pip install {settings.search}`"
        ) from error
    fixed: dict[str, Any] = {"random_state": seed} | options
    return BasicVariantGenerator(points_to_evaluate=points, max_concurrent=concurrency, **fixed)


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
