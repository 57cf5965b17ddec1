"""The settings of a search beside its space: metric, search algorithm, scheduler, limits. Works without Ray."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pneumo.pipeline.config.document import Document
from pneumo.pipeline.config.json_schema import SCHEDULERS
from pneumo.pipeline.config.problems import ConfigError, KeyPath, Problem, collect, refuse
from pneumo.pipeline.config.rules.experiment_rules import find_metric_fault
from pneumo.pipeline.config.schema import SEARCHES
from pneumo.pipeline.config.selection_metric import LOSSES
from pneumo.pipeline.sweep.record import Goal
from pneumo.pipeline.sweep.space import Space, read_space, substitute
from pneumo.serving.contracts.errors import InputError

SAMPLES = 10
"""Default number of trials; with a parameter that is a grid it is tried once, as in Ludwig."""
_MID_TRIAL = ("pbt", "pb2", "pbt_replay")
_BROKEN = {"asha": "async_hyperband", "asynchyperband": "async_hyperband"}
"""Schedulers of Ludwig's schema on which Ludwig 0.17.10 or Ray crash, and their working names."""


@dataclass(frozen=True)
class SweepLimits:
    """Limits of a sweep from the command line, over those of the config; None keeps the config's.

    Attributes:
        trials: Number of trials, a multiple of the grid's points.
        concurrency: Largest number of trials at a time.
        gpus: GPUs per trial, which may be a fraction.
    """

    trials: int | None = None
    time_budget: float | None = None
    concurrency: int | None = None
    cpus: float | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class SweepSettings:
    """The settings of a search.

    Attributes:
        metric: Ludwig's name of the validation metric, which also chooses each trial's best epoch.
        samples: Ray Tune's `num_samples`: number of draws, each over the whole grid.
        epochs: Epochs of a trial that nothing stops early.
        limits: Limits; the cluster's size decides those that are None.
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

    @property
    def draws_alone(self) -> bool:
        """True for grid and random search, which learn nothing from earlier trials."""
        return self.search in ("variant_generator", "random")


def read_settings(space: Space, limits: SweepLimits | None = None) -> SweepSettings:
    """Check a space and read its `hyperopt` section; raise an `InputError` if settings contradict each other."""
    limits = limits or SweepLimits()
    document = space.document
    executor: dict[str, Any] = document.get(("hyperopt", "executor")) or {}
    metric, search = _read_metric(document), _read_search(space)
    space.check()
    epochs = _count_epochs(space)
    scheduler = _read_scheduler(document, epochs)
    default = 1 if any(parameter.is_grid for parameter in space.parameters) else SAMPLES
    samples = executor.get("num_samples") or default
    if limits.trials is not None:
        if limits.trials % space.grid:
            raise InputError(f"--trials {limits.trials}: the grid has {space.grid} points; give a multiple of it")
        samples = limits.trials // space.grid
    points = search[1].get("points_to_evaluate") or []
    if len(points) > samples:
        path = ("hyperopt", "search_alg", "points_to_evaluate")
        document.reject(path, f"holds {len(points)} points, more than {samples} trials")
    concurrency = executor.get("max_concurrent_trials")
    configured = SweepLimits(
        trials=samples * space.grid,
        time_budget=executor.get("time_budget_s"),
        concurrency=concurrency if isinstance(concurrency, int) else None,
        cpus=executor.get("cpu_resources_per_trial"),
        gpus=executor.get("gpu_resources_per_trial"),
    )
    merged = replace(configured, **{name: value for name, value in vars(limits).items() if value is not None})
    return SweepSettings(*metric, *search, *scheduler, samples, samples * space.grid, epochs, merged)


def check_search(document: Document) -> list[Problem]:
    """Return all that `pneumo sweep` would refuse of a `hyperopt` section; a config without one is right."""
    problems: list[Problem] = []
    if document.get("hyperopt") is None:
        return problems
    collect(problems, partial(_read_metric, document))
    space = Space(document, document.name, ())
    try:
        space = read_space(document, document.name)
        collect(problems, partial(_read_search, space))
        collect(problems, space.check)
    except ConfigError as error:
        problems += error.problems
    collect(problems, lambda: _read_scheduler(document, _count_epochs(space)))
    if not problems:
        read_settings(space)
    return problems


def _count_epochs(space: Space) -> int:
    """Return the largest number of epochs of a trial; a parameter that changes it replaces the config's number."""
    stated = int(space.document.get("trainer.epochs", 100))
    for parameter in space.parameters:
        documents = [substitute(space.document, {parameter.name: end}) for end in parameter.ends()]
        if (changed := {int(each.get("trainer.epochs", 100)) for each in documents}) != {stated}:
            return max(changed)
    return stated


def parse_trials(text: str, before: int | None = None) -> int:
    """Return the number of trials of `--trials`: `20` in all, or `+20` to the `before` of a sweep that is resumed."""
    number = int(text) if re.fullmatch(r"\+?\d{1,9}", text, re.ASCII) else 0
    if number < 1:
        raise InputError(f"--trials {text}: give a whole number above 0, or +20 with --resume for 20 more")
    if before is None and text.startswith("+"):
        raise InputError(f"--trials {text}: adds to a sweep; give the sweep with --resume, or leave out the +")
    total = number + (before or 0) * text.startswith("+")
    if before is not None and total <= before:
        raise InputError(f"--trials {text}: the sweep has {before} already; give more, or +{number}")
    return total


def parse_seconds(text: str) -> float:
    """Return the seconds of `90`, `90s`, `30m`, `1.5h`, `1h30m` or `2d`; raise an `InputError` if it is no duration."""
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
    compact = "".join(text.lower().split())
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd]?)+", compact):
        raise InputError(f"--time-budget {text}: give seconds, or a duration such as 30m, 1.5h, 1h30m")
    total = sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", compact))
    if total <= 0:
        raise InputError(f"--time-budget {text}: must be more than 0")
    return total


def _reject_all(document: Document, section: KeyPath, checks: Iterable[tuple[bool, str, str]]) -> None:
    """Reject each key for the first of its checks `(fails, key, problem)` that fails."""
    problems: dict[str, Problem] = {}
    for fails, key, problem in checks:
        if fails:
            problems.setdefault(key, document.wrong(("hyperopt", *section, key), problem))
    refuse(list(problems.values()))


def _read_metric(document: Document) -> tuple[str, Goal]:
    section = document.get(("hyperopt",)) or {}
    label = document.get(("output_features", 0, "name"))
    metric, goal = section.get("metric", "loss"), section.get("goal", "minimize")
    feature = section.get("output_feature", "combined")
    fault = find_metric_fault(document, metric)
    right: Goal = "minimize" if metric in LOSSES else "maximize"
    wrong_feature = feature != label and not (feature == "combined" and metric == "loss")
    chosen = document.get(("trainer", "validation_metric"))
    unseen = "a sweep ranks by validation images, so that test images stay unseen"
    checks = [
        (fault is not None, "metric", fault or ""),
        (fault is None and goal != right, "goal", f"is {goal!r}, but {metric} must be {right}d: goal: {right}"),
        (wrong_feature, "output_feature", f"is {feature!r}; the label is {label!r}: output_feature: {label}"),
        *(
            (section.get(key, "validation") != "validation", key, f"is {section.get(key)!r}; {unseen}")
            for key in ("split", "eval_split")
        ),
        (
            chosen not in (None, metric) and not find_metric_fault(document, chosen),
            "metric",
            f"is {metric!r}, but trainer.validation_metric chooses the best epoch by {chosen!r}; use one metric",
        ),
    ]
    _reject_all(document, (), checks)
    return metric, right


def _read_search(space: Space) -> tuple[str, dict[str, Any]]:
    document = space.document
    options = dict(document.get(("hyperopt", "search_alg")) or {})
    kind = options.pop("type", "variant_generator")
    points = options.get("points_to_evaluate") or []
    unknown = f"is {kind!r}, which is not supported; choose from {', '.join(SEARCHES)}"
    _reject_all(document, ("search_alg",), [(kind not in SEARCHES, "type", unknown)])
    grid = f"is a grid, which {kind} cannot search; use {{space: choice, categories: ...}}"
    normal = "is a normal distribution, which optuna cannot draw; use uniform, or search_alg hyperopt"
    steps = "is logarithmic with steps, which optuna cannot draw; leave out the q, or use search_alg hyperopt"
    for parameter in space.parameters:
        stepped = parameter.kind.startswith("qlog") and parameter.options["q"] != 1
        checks = [
            (kind in ("optuna", "hyperopt") and parameter.is_grid, parameter.name, grid),
            (kind == "optuna" and parameter.is_normal, parameter.name, normal),
            (kind == "optuna" and (stepped or parameter.kind == "qloguniform"), parameter.name, steps),
        ]
        _reject_all(document, ("parameters",), checks)
    needless = "cannot be combined with grid_search, which tries every value anyway"
    _reject_all(document, ("search_alg",), [(bool(points) and space.grid > 1, "points_to_evaluate", needless)])
    names = {parameter.name for parameter in space.parameters}
    problems: list[Problem] = []
    for index, point in enumerate(points):
        place = ("hyperopt", "search_alg", "points_to_evaluate", index)
        for name in sorted(set(point) ^ names):
            problem = f"{name!r} {'is not in the space' if name in point else 'is missing'}: give every parameter"
            problems.append(document.wrong(place, problem))
        collect(problems, partial(_check_point, space, point, place))
    refuse(problems)
    return kind, options


def _check_point(space: Space, point: dict[str, Any], place: KeyPath) -> None:
    try:
        space.experiment(space.decode(point))
    except KeyError:  # a parameter is missing, which is told
        return
    except ConfigError:
        raise
    except InputError as error:
        space.document.fail(place, str(error))


def _read_scheduler(document: Document, epochs: int) -> tuple[str, dict[str, Any]]:
    given = document.get(("hyperopt", "executor", "scheduler")) or {}
    options = {key: value for key, value in given.items() if value is not None}
    kind = options.pop("type", "fifo")
    kind = "median_stopping_rule" if kind == "medianstoppingrule" else kind
    rounds = epochs * int(document.get(("trainer", "checkpoints_per_epoch"), 0) or 1)
    is_hyperband = kind == "async_hyperband"
    if is_hyperband:
        options.setdefault("max_t", rounds)
    time, length = options.get("time_attr", "training_iteration"), options.get("max_t")
    mid_trial = "which changes parameters in mid-trial, so that no config could reproduce its winner"
    checks = [
        (
            kind in _BROKEN,
            "type",
            f"is {kind!r}, on which Ludwig crashes; write {_BROKEN.get(kind)}, the same scheduler",
        ),
        (kind in _MID_TRIAL, "type", f"is {kind!r}, {mid_trial}; use async_hyperband"),
        (kind not in SCHEDULERS, "type", f"is {kind!r}, which is not supported; choose from {', '.join(SCHEDULERS)}"),
        *(
            (key in options, key, "repeats hyperopt.metric or hyperopt.goal; leave it out")
            for key in ("metric", "mode")
        ),
        (is_hyperband and time != "training_iteration", "time_attr", "must be training_iteration, or left out"),
        (is_hyperband and length != rounds, "max_t", f"is {length}; trials have {rounds} rounds: max_t: {rounds}"),
    ]
    _reject_all(document, ("executor", "scheduler"), checks)
    return kind, options
