"""Was the winner luck? The best trials again with other seeds: mean, interval and whether a difference is one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pneumo.pipeline.sweep.parameter_format import number
from pneumo.pipeline.sweep.record import Sweep, Trial, TrialStatus

LEVEL = 0.95

_SHARES = frozenset(
    {"accuracy", "balanced_accuracy", "roc_auc", "auroc", "precision", "recall", "specificity", "f1", "hits_at_k"}
    | {"average_precision", "sensitivity", "token_accuracy", "jaccard"}
)
"""Metrics in [0, 1], whose intervals are cut there."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        value: In the metric's own unit.
        low: Lower end of the 95 % t interval; `high` the upper one. None of fewer than two values.
        count: How many values.
    """

    value: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Family:
    """A first trial with its repetitions, in the order of their beginning: those that have a value and did not fail."""

    first: Trial
    trials: tuple[Trial, ...]
    values: tuple[float, ...]
    mean: Mean

    @property
    def repeated(self) -> bool:
        """Whether more than one seed counts."""
        return len(self.values) > 1


@dataclass(frozen=True)
class Difference:
    """How far one family is ahead of another, positive for better.

    Attributes:
        mean: Of the differences, in the metric's unit, turned so that more is better.
        paired: Whether it is taken seed by seed.
        luck: Whether zero lies in its 95 % interval, or there is none.
    """

    mean: Mean
    paired: bool

    @property
    def luck(self) -> bool:
        """Whether the difference may be luck."""
        return self.mean.low is None or self.mean.low <= 0


@dataclass(frozen=True)
class Choice:
    """The winner.

    Attributes:
        family: The best family.
        trial: Its trial of the seed that did best.
        runner_up: The next best family that was repeated as well, with the `difference` to it.
        remark: In words, how sure the choice is; None where nothing was repeated.
    """

    family: Family
    trial: Trial
    runner_up: Family | None
    difference: Difference | None
    remark: str | None


def find_contenders(sweep: Sweep) -> list[Trial]:
    """First trials that can win: those that finished a round and did not fail, the best first."""
    return [trial for trial in sweep.ranked() if trial.status != TrialStatus.FAILED]


def group_by_parameters(sweep: Sweep) -> list[Family]:
    """All families, the best mean first; those of several seeds before those of one, which may be lucky."""
    found = []
    for first in find_contenders(sweep):
        pairs = [(trial, trial.value(sweep.goal)) for trial in sweep.family(first)]
        counted = [
            (trial, value)
            for trial, value in pairs
            if trial.status != TrialStatus.FAILED and value is not None and math.isfinite(value)
        ]
        values = tuple(value for _, value in counted)
        mean = mean_of(values, bounds=_bounds(sweep.metric))
        found.append(Family(first, tuple(trial for trial, _ in counted), values, mean))
    sign = _sign(sweep)
    return sorted(found, key=lambda family: (family.repeated, sign * family.mean.value), reverse=True)


def choose_winner(sweep: Sweep) -> Choice | None:
    """The family with the best mean, of those that were repeated if any was; None before a trial finished a round."""
    ordered = group_by_parameters(sweep)
    if not ordered:
        return None
    best = ordered[0]
    sign = _sign(sweep)
    trial = max(zip(best.trials, best.values, strict=True), key=lambda pair: sign * pair[1])[0]
    if not best.repeated:
        return Choice(best, trial, None, None, None)
    others = [family for family in ordered[1:] if family.repeated]
    if not others:
        return Choice(best, trial, None, None, "no other trial was repeated with other seeds: nothing to compare with")
    difference = compare_families(sweep, best, others[0])
    return Choice(best, trial, others[0], difference, _remark(sweep, best, others, difference))


def compare_families(sweep: Sweep, one: Family, other: Family) -> Difference:
    """How far `one` is ahead of `other`: seed by seed where two or more seeds agree, else by Welch's interval."""
    sign = _sign(sweep)
    by_seed = [{trial.seed: value for trial, value in zip(f.trials, f.values, strict=True)} for f in (one, other)]
    shared = [seed for seed in by_seed[0] if seed in by_seed[1]]
    if len(shared) > 1:
        return Difference(mean_of([sign * (by_seed[0][seed] - by_seed[1][seed]) for seed in shared]), paired=True)
    return Difference(_welch([sign * value for value in one.values], [sign * v for v in other.values]), paired=False)


def mean_of(values: Sequence[float], *, bounds: tuple[float, float] | None = None) -> Mean:
    """Mean of one or more values with its 95 % interval by Student's t.

    Args:
        values: (N,), N >= 1.
        bounds: Where the interval is cut, for a metric that cannot leave them.

    Raises:
        ValueError: No value.
    """
    count = len(values)
    if not count:
        raise ValueError("no values to take the mean of")
    mean = math.fsum(values) / count
    if count == 1:
        return Mean(mean, None, None, 1)
    error = math.sqrt(_variance(values, mean) / count)
    return _interval(mean, error, count - 1, count, bounds)


def _welch(one: Sequence[float], other: Sequence[float]) -> Mean:
    means = [math.fsum(values) / len(values) for values in (one, other)]
    count = min(len(one), len(other))
    if count < 2:
        return Mean(means[0] - means[1], None, None, count)
    parts = [_variance(values, mean) / len(values) for values, mean in zip((one, other), means, strict=True)]
    total = sum(parts)
    weight = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (one, other), strict=True))
    return _interval(means[0] - means[1], math.sqrt(total), total**2 / weight if weight else count - 1, count, None)


def _interval(mean: float, error: float, freedom: float, count: int, bounds: tuple[float, float] | None) -> Mean:
    from scipy.special import stdtrit

    reach = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    low, high = mean - reach, mean + reach
    if bounds and bounds[0] <= mean <= bounds[1]:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Mean(mean, low, high, count)


def _variance(values: Sequence[float], mean: float) -> float:
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _remark(sweep: Sweep, best: Family, others: list[Family], difference: Difference) -> str:
    second = others[0]
    gap = difference.mean
    how = f"{gap.count} shared seeds" if difference.paired else "their seeds, unpaired"
    amount = f"{second.first.name} by {number(gap.value)} on average"
    if gap.low is not None and gap.high is not None:
        amount += f" (95 % {number(gap.low)} to {number(gap.high)}, over {how})"
    alike = [family.first.name for family in others if compare_families(sweep, best, family).luck]
    if not difference.luck:
        more = f"; not told apart from {', '.join(alike)}" if alike else ""
        return f"{best.first.name} leads {amount}: more than luck{more}"
    same = [name for name in alike if name != second.first.name]
    more = f"; the same goes for {', '.join(same)}" if same else ""
    names = f"{best.first.name} and {second.first.name}"
    if gap.value == 0:
        return f"{names} have the same mean{more}"
    if gap.value < 0:  # with seeds that only one of them has
        return f"{best.first.name} has the best mean, {second.first.name} is ahead on the seeds they share: luck{more}"
    return f"{best.first.name} leads {amount}: the difference may be luck{more}"


def _bounds(metric: str) -> tuple[float, float] | None:
    return (0.0, 1.0) if metric.rpartition(".")[2] in _SHARES else None


def _sign(sweep: Sweep) -> int:
    return 1 if sweep.goal == "maximize" else -1
