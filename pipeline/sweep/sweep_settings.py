"""What `hyperopt` says beside the space: metric, search, scheduler, how much, how many at once. Works without Ray."""

import re
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from pneumo.pipeline.config.document import KeyPath
from pneumo.pipeline.config.schema import SEARCHES, read_ludwig_schema
from pneumo.pipeline.sweep.record import Goal
from pneumo.pipeline.sweep.space import Space
from pneumo.serving.contracts.errors import InputError

SAMPLES = 10
"""Trials where neither config nor command line says how many, unless all is a grid."""
SCHEDULERS = ("fifo", "async_hyperband", "median_stopping_rule")
_SMALLER = ("loss", "binary_weighted_cross_entropy", "softmax_cross_entropy")
_ALIASES = {"medianstoppingrule": "median_stopping_rule"}
_MID_TRIAL = ("pbt", "pb2", "pbt_replay")
_MISSPELT = {"asha": "async_hyperband", "asynchyperband": "async_hyperband"}
"""Ludwig's schema knows them; Ludwig 0.17.10 or Ray crash on them."""


@dataclass(frozen=True)
class SweepLimits:
    """What a person may say on the command line over what the config says; None leaves the config's word.

    Attributes:
        trials: Trials in all, where the space is no pure grid.
        time_budget: Seconds.
        concurrency: Trials at once, at most.
        cpus: Cores of each trial; `gpus` GPUs, which may be a fraction.
    """

    trials: int | None = None
    time_budget: float | None = None
    concurrency: int | None = None
    cpus: float | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class SweepSettings:
    """How a space is searched.

    Attributes:
        metric: Ludwig's name of the validation metric, which also chooses each trial's best epoch.
        goal: Whether more or less of it is better.
        search: Name of the search algorithm, with its `search_options`.
        scheduler: Name of the scheduler, with its `scheduler_options`.
        samples: Ray Tune's `num_samples`: draws, each of them over the whole grid.
        trials: Trials in all.
        epochs: Of a trial that nothing stops early.
        limits: Time, concurrency and resources; None is decided by the machine.
    """

    metric: str
    goal: Goal
    search: str
    search_options: dict[str, Any]
    scheduler: str
    scheduler_options: dict[str, Any]
    samples: int
    trials: int
    epochs: int
    limits: SweepLimits


def read_settings(space: Space, limits: SweepLimits | None = None) -> SweepSettings:
    """Read the `hyperopt` section of a config that passed the schema.

    Raises:
        InputError: Two settings contradict each other, or one does not work: file, line, and the mend.
    """
    limits = limits or SweepLimits()
    section: dict[str, Any] = space.document.get(("hyperopt",)) or {}
    executor: dict[str, Any] = section.get("executor") or {}
    metric, goal = _metric(space, section)
    search, search_options = _search(space, section)
    epochs = _epochs(space)
    scheduler, scheduler_options = _scheduler(space, executor, epochs)
    samples = executor.get("num_samples") or (
        1 if all(parameter.is_grid for parameter in space.parameters) else SAMPLES
    )
    if limits.trials is not None:
        if limits.trials % space.grid:
            raise InputError(f"--trials {limits.trials}: the grid has {space.grid} points; give a multiple of it")
        samples = limits.trials // space.grid
    points = search_options.get("points_to_evaluate") or []
    if len(points) > samples:
        _fail(space, ("search_alg", "points_to_evaluate"), f"holds {len(points)} points, more than {samples} trials")
    concurrency = executor.get("max_concurrent_trials")
    stated = SweepLimits(
        trials=samples * space.grid,
        time_budget=executor.get("time_budget_s"),
        concurrency=concurrency if isinstance(concurrency, int) else None,
        cpus=executor.get("cpu_resources_per_trial"),
        gpus=executor.get("gpu_resources_per_trial"),
    )
    given = {name: value for name, value in vars(limits).items() if value is not None}
    return SweepSettings(
        metric,
        goal,
        search,
        search_options,
        scheduler,
        scheduler_options,
        samples,
        samples * space.grid,
        epochs,
        replace(stated, **given),
    )


def seconds(text: str) -> float:
    """A span of time as people write it: `90`, `90s`, `30m`, `1.5h`, `1h30m`, `2d`.

    Raises:
        InputError: It is none, or not positive.
    """
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    whole = "".join(re.split(r"\s+", text.strip().lower()))
    if not parts or "".join(number + unit for number, unit in parts) != whole:
        raise InputError(f"--time-budget {text}: write seconds, or such as 30m, 1.5h, 1h30m")
    total = sum(float(number) * units[unit] for number, unit in parts)
    if total <= 0:
        raise InputError(f"--time-budget {text}: must be more than 0")
    return total


def _fail(space: Space, path: KeyPath, message: str) -> NoReturn:
    space.document.fail(("hyperopt", *path), f"{'.'.join(map(str, ('hyperopt', *path)))} {message}")


def _metric(space: Space, section: dict[str, Any]) -> tuple[str, Goal]:
    kind = space.document.get(("output_features", 0, "type"))
    label = space.document.get(("output_features", 0, "name"))
    metric, goal = section.get("metric", "loss"), section.get("goal", "minimize")
    known = read_ludwig_schema()["metrics"][kind]
    if metric not in known:
        _fail(space, ("metric",), f"is {metric!r}; for a {kind} label choose from {', '.join(known)}")
    right = "minimize" if metric in _SMALLER else "maximize"
    if goal != right:
        _fail(space, ("goal",), f"is {goal!r}, but {metric} is to be {right}d: goal: {right}")
    feature = section.get("output_feature", "combined")
    if feature != label and not (feature == "combined" and metric == "loss"):
        _fail(space, ("output_feature",), f"is {feature!r}; the label is {label!r}: output_feature: {label}")
    for key in ("split", "eval_split"):
        if section.get(key, "validation") != "validation":
            _fail(space, (key,), f"is {section[key]!r}; a sweep chooses on validation, so that test stays unseen")
    chosen = space.document.get(("trainer", "validation_metric"))
    if chosen is not None and chosen != metric:
        _fail(
            space,
            ("metric",),
            f"is {metric!r}, but trainer.validation_metric, which chooses the best epoch, is {chosen!r}; make them one",
        )
    return metric, right  # type: ignore[return-value]


def _search(space: Space, section: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    given = dict(section.get("search_alg") or {})
    kind = given.pop("type", "variant_generator")
    if kind not in SEARCHES:
        _fail(space, ("search_alg", "type"), f"is {kind!r}, which is not tried here; choose from {', '.join(SEARCHES)}")
    for parameter in space.parameters:
        where = ("parameters", parameter.name)
        if kind in ("optuna", "hyperopt") and parameter.is_grid:
            _fail(space, where, f"is a grid, which {kind} cannot search; use {{space: choice, categories: ...}}")
        if kind == "optuna" and parameter.kind in ("randn", "qrandn"):
            _fail(
                space, where, "is a normal distribution, which optuna cannot draw; use uniform, or search_alg hyperopt"
            )
    points = given.get("points_to_evaluate") or []
    if points and space.grid > 1:
        _fail(space, ("search_alg", "points_to_evaluate"), "goes with no grid_search, which tries every value anyway")
    names = {parameter.name for parameter in space.parameters}
    for index, point in enumerate(points):
        if set(point) != names:
            odd = sorted(set(point) ^ names)[0]
            word = "is no parameter of the space" if odd in point else "is missing"
            _fail(space, ("search_alg", "points_to_evaluate", index), f"{odd!r} {word}: state every parameter")
        space.experiment(space.decode(point))
    return kind, given


def _epochs(space: Space) -> int:
    """The most epochs that a trial may have."""
    stated = space.document.get(("trainer", "epochs"), 100)
    for parameter in space.parameters:
        if parameter.name == "trainer.epochs":
            return int(max(parameter.ends()))
    return int(stated)


def _scheduler(space: Space, executor: dict[str, Any], epochs: int) -> tuple[str, dict[str, Any]]:
    given = {key: value for key, value in (executor.get("scheduler") or {}).items() if value is not None}
    path = ("executor", "scheduler")
    kind = given.pop("type", "fifo")
    if kind in _MISSPELT:
        _fail(space, (*path, "type"), f"is {kind!r}, on which Ludwig crashes; write {_MISSPELT[kind]}, the same")
    kind = _ALIASES.get(kind, kind)
    if kind in _MID_TRIAL:
        _fail(
            space,
            (*path, "type"),
            f"is {kind!r}, which changes parameters in mid-trial, so that no config would give its winner again; "
            "use async_hyperband",
        )
    if kind not in SCHEDULERS:
        _fail(space, (*path, "type"), f"is {kind!r}, which is not tried here; choose from {', '.join(SCHEDULERS)}")
    for key in ("metric", "mode"):
        if given.pop(key, None) is not None:
            _fail(space, (*path, key), "is that of hyperopt.metric and hyperopt.goal; leave it out")
    rounds = epochs * int(space.document.get(("trainer", "checkpoints_per_epoch"), 0) or 1)
    if kind == "async_hyperband":
        if given.get("time_attr", "training_iteration") != "training_iteration":
            _fail(space, (*path, "time_attr"), "counts evaluation rounds here: training_iteration, or leave it out")
        if given.setdefault("max_t", rounds) != rounds:
            _fail(space, (*path, "max_t"), f"is {given['max_t']}; trials have {rounds} rounds: max_t: {rounds}")
    return kind, given
