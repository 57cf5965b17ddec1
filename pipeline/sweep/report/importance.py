"""Importance of parameters: functional ANOVA (Hutter, Hoos and Leyton-Brown, 2014) by Optuna, with its spread."""

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pneumo.pipeline.sweep.parameter_format import Axis, axes
from pneumo.pipeline.sweep.record import Sweep, Trial, TrialStatus
from pneumo.serving.contracts.arrays import Float64

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 8
"""Trials with a value, below which a forest fits noise."""

MOST = 300
"""Largest number of trials, drawn at random from more: the marginals of a large forest take minutes."""

_TREES = 64
_RESAMPLES = 20
_TREES_RESAMPLED = 8
_TAIL = 0.1


@dataclass(frozen=True)
class Share:
    """Share of the value's variance that one parameter explains by itself.

    Attributes:
        share: In [0, 1]; the shares of all parameters sum to 1.
        low: 10% quantile over resampled trials; `high` is the 90% quantile.
    """

    parameter: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Importance:
    """Importance of all parameters.

    Attributes:
        shares: The largest first; empty if the importance is unknown.
        explained: R^2 of the forest on trials left out of the fit, or None without shares.
    """

    shares: tuple[Share, ...]
    trials: int
    explained: float | None = None
    reason: str | None = None
    remark: str | None = None

    def share(self, parameter: str) -> float | None:
        """Return the share of one parameter, or None if it is unknown."""
        return next((each.share for each in self.shares if each.parameter == parameter), None)


def measure_importance(sweep: Sweep, *, seed: int = 0) -> Importance:
    """Compute the importance of each parameter from all ended trials with a value, without repeats.

    Parameters on a log scale are measured on that scale, and Gaussian ones by their probability, so that each region
    counts as often as the search draws from it. Trials that were stopped early count with the value they reached.
    """
    trials = [trial for trial in sweep.ranked() if trial.status in (TrialStatus.DONE, TrialStatus.STOPPED)]
    if len(trials) > MOST:
        trials = random.Random(seed).sample(trials, MOST)
    count = len(trials)
    if count < FEWEST:
        text = f"{count} trial{'' if count == 1 else 's'} with a value: at least {FEWEST} are needed"
        return Importance((), count, reason=text)
    columns = [(axis, [_place(axis, trial) for trial in trials]) for axis in axes(sweep)]
    varied = [(axis, places) for axis, places in columns if None not in places and len(set(places)) > 1]
    if not varied:
        return Importance((), count, reason="no parameter took more than one value")
    if len(varied) == 1:
        name = varied[0][0].name
        return Importance((), count, reason=f"only {name} took more than one value: there is no comparison")
    values = np.array([trial.value(sweep.goal) for trial in trials], dtype=np.float64)
    if np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return Importance((), count, reason="all trials reached the same value")
    places = np.array([places for _, places in varied], dtype=np.float64).T
    return _measure([axis for axis, _ in varied], places, _clip_outliers(values), seed)


def _measure(shown: list[Axis], places: Float64, values: Float64, seed: int) -> Importance:
    """Measure shares from positions [N, P] of N trials on P axes and values [N]."""
    distributions = {axis.name: _distribution(axis, column) for axis, column in zip(shown, places.T, strict=True)}
    point = _compute_shares(distributions, places, values, trees=_TREES, seed=seed)
    if point is None:
        return Importance((), len(values), reason="the value does not depend on the parameters")
    source = np.random.default_rng(seed)
    resampled = []
    for number in range(_RESAMPLES):
        drawn = source.integers(0, len(values), len(values))
        again = _compute_shares(
            distributions, places[drawn], values[drawn], trees=_TREES_RESAMPLED, seed=seed + number + 1
        )
        if again is not None:
            resampled.append(again)
    low, high = np.quantile(np.array(resampled or [point]), (_TAIL, 1 - _TAIL), axis=0)
    shares = [
        Share(axis.name, share, min(float(bottom), share), max(float(top), share))
        for axis, share, bottom, top in zip(shown, point, low, high, strict=True)
    ]
    explained = _explained(shown, places, values, seed)
    remark = None
    if explained <= 0.1:
        remark = "trials left out of the fit could not be predicted from their parameters: treat the shares as noise"
    elif explained < 0.5:
        remark = "trials left out of the fit could be predicted only roughly: trust only the order"
    ordered = tuple(sorted(shares, key=lambda each: -each.share))
    return Importance(ordered, len(values), explained=explained, remark=remark)


def _compute_shares(
    distributions: "dict[str, BaseDistribution]", places: Float64, values: Float64, *, trees: int, seed: int
) -> list[float] | None:
    """Return the share of each parameter, or None if no tree of the forest found a split."""
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
        importances = FanovaImportanceEvaluator(n_trees=trees, seed=seed).evaluate(study)
    except RuntimeError:
        return None
    finally:
        optuna.logging.set_verbosity(before)
    total = math.fsum(importances.values())
    if not math.isfinite(total) or total <= 0:
        return None
    return [float(importances[name]) / total for name in distributions]


def _distribution(axis: Axis, places: Float64) -> "BaseDistribution":
    """Return Optuna's distribution: the declared range, widened to the trials' values, which may lie outside."""
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
    place = axis.place_of(trial) if axis.name in trial.parameters else None
    return None if place is None else _scale(axis, place)


def _scale(axis: Axis, place: float) -> float:
    """Return a position on the scale on which the search draws evenly."""
    if axis.gaussian and axis.gaussian[1] > 0:
        return 0.5 * (1 + math.erf((place - axis.gaussian[0]) / (axis.gaussian[1] * math.sqrt(2))))
    return math.log(place) if axis.kind == "log" else place


def _clip_outliers(values: Float64) -> Float64:
    """Clip values [N] to three interquartile ranges: one diverged trial would otherwise explain all variance."""
    low, high = np.quantile(values, (0.25, 0.75))
    reach = 3 * (high - low)
    return np.clip(values, low - reach, high + reach) if reach > 0 else values


def _explained(shown: list[Axis], places: Float64, values: Float64, seed: int) -> float:
    """Return R^2 of a random forest on the trials that each of its trees was not fitted to."""
    from sklearn.ensemble import RandomForestRegressor

    columns = [
        column[:, None] if axis.ordered else (column[:, None] == np.arange(len(axis.categories))).astype(np.float64)
        for axis, column in zip(shown, places.T, strict=True)
    ]
    forest = RandomForestRegressor(n_estimators=2 * _TREES, oob_score=True, random_state=seed)
    forest.fit(np.hstack(columns), values)
    return float(forest.oob_score_)
