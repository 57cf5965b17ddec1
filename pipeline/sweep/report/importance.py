"""Which parameters mattered: functional ANOVA (Hutter, Hoos and Leyton-Brown, 2014) by Optuna, with how sure it is."""

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pneumo.pipeline.sweep.parameter_format import Axis, axes
from pneumo.pipeline.sweep.record import Sweep, Trial, TrialStatus

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 8
"""Trials with a value, below which a forest finds anything in anything."""

MOST = 300
"""Trials that are looked at, drawn at random of more: the marginals of a large forest take minutes."""

_TREES = 64
_RESAMPLES = 20
_TREES_RESAMPLED = 8
_TAIL = 0.1


@dataclass(frozen=True)
class Share:
    """How much of the value's variance one parameter explains by itself.

    Attributes:
        parameter: Its name.
        share: In [0, 1]; the shares of all parameters sum to 1.
        low: 10 % quantile over resampled trials; `high` the 90 % one.
    """

    parameter: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Importance:
    """What could be told.

    Attributes:
        shares: The largest first; empty where nothing can be told.
        trials: How many trials it was told from.
        explained: R^2 of the forest on trials it was not shown: 1 is all, 0 or less nothing. None without shares.
        reason: Why it cannot be told, in words.
        remark: What to keep in mind about the shares, in words.
    """

    shares: tuple[Share, ...]
    trials: int
    explained: float | None = None
    reason: str | None = None
    remark: str | None = None

    def share(self, parameter: str) -> float | None:
        """The share of one parameter, or None where it is not known."""
        return next((each.share for each in self.shares if each.parameter == parameter), None)


def measure_importance(sweep: Sweep, *, seed: int = 0) -> Importance:
    """Tell how much each parameter mattered, from first trials that ended with a value.

    Log-scaled parameters are measured on their log scale and Gaussian ones by their probability, so that every region
    counts as often as the search draws from it. Trials that were stopped early count with what they reached.

    Args:
        sweep: The sweep, however far it is.
        seed: Of the forest and of the resampling; the same seed gives the same shares.
    """
    ended = (TrialStatus.DONE, TrialStatus.STOPPED)
    trials = [trial for trial in sweep.ranked() if trial.status in ended]
    if len(trials) > MOST:
        trials = random.Random(seed).sample(trials, MOST)
    count = len(trials)
    if count < FEWEST:
        told = f"{count} trial{'' if count == 1 else 's'} with a value: at least {FEWEST} are needed"
        return Importance((), count, reason=told)
    shared = [axis for axis in axes(sweep) if all(axis.name in trial.parameters for trial in trials)]
    columns = [(axis, [_place(axis, trial) for trial in trials]) for axis in shared]
    varied = [(axis, places) for axis, places in columns if None not in places and len(set(places)) > 1]
    if not varied:
        return Importance((), count, reason="no parameter took more than one value")
    if len(varied) == 1:
        name = varied[0][0].name
        return Importance((), count, reason=f"only {name} took more than one value: there is nothing to share with")
    values = np.array([trial.value(sweep.goal) for trial in trials], dtype=np.float64)
    if np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return Importance((), count, reason="all trials reached the same value")
    places = np.array([column for _, column in varied], dtype=np.float64).T
    return _measure([axis for axis, _ in varied], places, _tame(values), seed)


def _measure(found: list[Axis], places: np.ndarray[Any, Any], values: np.ndarray[Any, Any], seed: int) -> Importance:
    """Shares from places [N, P] of N trials' P parameters and values [N]."""
    distributions = {axis.name: _distribution(axis, places[:, column]) for column, axis in enumerate(found)}
    point = _shares(distributions, places, values, trees=_TREES, seed=seed)
    if point is None:
        return Importance((), len(values), reason="the value does not follow the parameters at all")
    source = np.random.default_rng(seed)
    spread = []
    for number in range(_RESAMPLES):
        drawn = source.integers(0, len(values), len(values))
        shares = _shares(distributions, places[drawn], values[drawn], trees=_TREES_RESAMPLED, seed=seed + number + 1)
        if shares is not None:
            spread.append([shares[axis.name] for axis in found])
    if not spread:
        spread = [[point[axis.name] for axis in found]]
    low, high = np.quantile(np.array(spread), (_TAIL, 1 - _TAIL), axis=0)
    shares_found = [
        Share(axis.name, point[axis.name], min(float(low[column]), point[axis.name]), max(float(high[column]), value))
        for column, axis in enumerate(found)
        for value in (point[axis.name],)
    ]
    explained = _explained(found, places, values, seed)
    remark = None
    if explained <= 0.1:
        remark = "trials that were left out could not be predicted from their parameters: take the shares for noise"
    elif explained < 0.5:
        remark = "trials that were left out could be predicted only roughly: trust no more than the order"
    ordered = tuple(sorted(shares_found, key=lambda each: -each.share))
    return Importance(ordered, len(values), explained=explained, remark=remark)


def _shares(
    distributions: "dict[str, BaseDistribution]",
    places: np.ndarray[Any, Any],
    values: np.ndarray[Any, Any],
    *,
    trees: int,
    seed: int,
) -> dict[str, float] | None:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.trial import create_trial

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study()
        for row, value in zip(places.tolist(), values.tolist(), strict=True):
            parameters = dict(zip(distributions, row, strict=True))
            study.add_trial(create_trial(params=parameters, distributions=distributions, value=value))
        found = FanovaImportanceEvaluator(n_trees=trees, seed=seed).evaluate(study)
    except RuntimeError:  # no tree of the forest found a split
        return None
    finally:
        optuna.logging.set_verbosity(before)
    total = math.fsum(found.values())
    if not math.isfinite(total) or total <= 0:
        return None
    return {name: float(share) / total for name, share in found.items()}


def _distribution(axis: Axis, places: np.ndarray[Any, Any]) -> "BaseDistribution":
    """Where Optuna may look: the declared range, widened to what trials had (start points may lie outside)."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if axis.kind == "category" and not axis.ordered:
        return CategoricalDistribution([float(index) for index in range(len(axis.categories))])
    if axis.kind == "category":
        return FloatDistribution(0.0, float(len(axis.categories) - 1))
    if axis.gaussian:
        return FloatDistribution(0.0, 1.0)
    ends = [_scale(axis, end) for end in (axis.low, axis.high) if end is not None]
    return FloatDistribution(min(*ends, *places.tolist()), max(*ends, *places.tolist()))


def _place(axis: Axis, trial: Trial) -> float | None:
    place = axis.place(trial.parameters[axis.name])
    return None if place is None else _scale(axis, place)


def _scale(axis: Axis, place: float) -> float:
    """The axis's own scale, on which the search draws evenly."""
    if axis.gaussian and axis.gaussian[1] > 0:
        return 0.5 * (1 + math.erf((place - axis.gaussian[0]) / (axis.gaussian[1] * math.sqrt(2))))
    return math.log(place) if axis.kind == "log" else place


def _tame(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Values [N], outliers drawn in: one diverged trial would otherwise be all the variance there is."""
    low, high = np.quantile(values, (0.25, 0.75))
    reach = 3 * (high - low)
    return np.clip(values, low - reach, high + reach) if reach > 0 else values


def _explained(found: list[Axis], places: np.ndarray[Any, Any], values: np.ndarray[Any, Any], seed: int) -> float:
    """R^2 of a forest on the trials that each of its trees was not shown."""
    from sklearn.ensemble import RandomForestRegressor

    columns = []
    for column, axis in enumerate(found):
        if axis.ordered:
            columns.append(places[:, [column]])
        else:
            columns.append((places[:, [column]] == np.arange(len(axis.categories))).astype(np.float64))
    forest = RandomForestRegressor(n_estimators=2 * _TREES, oob_score=True, random_state=seed)
    forest.fit(np.hstack(columns), values)
    return float(forest.oob_score_)
