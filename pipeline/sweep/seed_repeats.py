"""Repeats of the best trials with other seeds: means, confidence intervals, and the significance of differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from pneumo.pipeline.sweep.parameter_format import number
from pneumo.pipeline.sweep.record import Sweep, Trial, TrialStatus

LEVEL = 0.95

_SHARES = frozenset(
    {"accuracy", "balanced_accuracy", "roc_auc", "auroc", "precision", "recall", "specificity", "f1", "hits_at_k"}
    | {"average_precision", "sensitivity", "token_accuracy", "jaccard"}
)
"""Metrics in [0, 1], whose intervals are clipped to that range."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds; `low` and `high` end its 95% t interval, None for fewer than two values."""

    value: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Family:
    """A trial and its repeats, in the order of their start, without those that failed or have no value."""

    first: Trial
    trials: tuple[Trial, ...]
    values: tuple[float, ...]
    mean: Mean

    @property
    def repeated(self) -> bool:
        """True if there are values of several seeds."""
        return len(self.values) > 1


@dataclass(frozen=True)
class Difference:
    """Mean lead of one family over another; `paired` if values of the same seed were compared with each other."""

    mean: Mean
    paired: bool

    @property
    def luck(self) -> bool:
        """True if the difference is not significant: its interval contains zero, or there is none."""
        return self.mean.low is None or self.mean.low <= 0


@dataclass(frozen=True)
class Choice:
    """The winner: the best family, and its trial with the best seed.

    `difference` is the lead over the next best repeated family; `remark` tells how sure the choice is, None if nothing
    was repeated.
    """

    family: Family
    trial: Trial
    difference: Difference | None = None
    remark: str | None = None


def find_contenders(sweep: Sweep) -> list[Trial]:
    """Return the trials that can win, the best first: no repeats, a round done, not failed."""
    return [trial for trial in sweep.ranked() if trial.status != TrialStatus.FAILED]


def group_by_parameters(sweep: Sweep) -> list[Family]:
    """Return all families, repeated ones first because one seed may be lucky, then by the best mean."""
    families = []
    bounds = (0.0, 1.0) if sweep.metric.rpartition(".")[2] in _SHARES else None
    for first in find_contenders(sweep):
        scored = [
            (trial, value)
            for trial in sweep.trials
            if first.name in (trial.name, trial.repeats) and trial.status != TrialStatus.FAILED
            if (value := trial.value(sweep.goal)) is not None
        ]
        trials, values = zip(*scored, strict=True)
        families.append(Family(first, trials, values, mean_of(values, bounds=bounds)))
    return sorted(families, key=lambda family: (family.repeated, sweep.sign * family.mean.value), reverse=True)


def order_trials(sweep: Sweep) -> list[Trial]:
    """Return all trials: families in the order of `group_by_parameters`, then those without a value."""
    ranked = [trial for family in group_by_parameters(sweep) for trial in family.trials]
    names = {trial.name for trial in ranked}
    return [*ranked, *(trial for trial in sweep.trials if trial.name not in names)]


def choose_winner(sweep: Sweep) -> Choice | None:
    """Return the family with the best mean, among repeated ones if there are any; None before the first round."""
    families = group_by_parameters(sweep)
    if not families:
        return None
    best = families[0]
    trial = max(zip(best.trials, best.values, strict=True), key=lambda pair: sweep.sign * pair[1])[0]
    if not best.repeated:
        return Choice(best, trial)
    others = [family for family in families[1:] if family.repeated]
    if not others:
        return Choice(best, trial, remark="no other trial was repeated with other seeds: there is no comparison")
    difference = compare_families(sweep, best, others[0])
    return Choice(best, trial, difference, _describe_lead(sweep, best, others, difference))


def compare_families(sweep: Sweep, one: Family, other: Family) -> Difference:
    """Return the lead of `one` over `other`: paired if they share two or more seeds, else by Welch's t interval."""
    first, second = (
        {trial.seed: sweep.sign * value for trial, value in zip(family.trials, family.values, strict=True)}
        for family in (one, other)
    )
    shared = [seed for seed in first if seed in second]
    if len(shared) > 1:
        return Difference(mean_of([first[seed] - second[seed] for seed in shared]), paired=True)
    gap, count = sweep.sign * (one.mean.value - other.mean.value), min(one.mean.count, other.mean.count)
    if count < 2:
        return Difference(Mean(gap, None, None, count), paired=False)
    parts = [(variance(family.values) / family.mean.count, family.mean.count - 1) for family in (one, other)]
    total, weight = sum(part for part, _ in parts), sum(part**2 / freedom for part, freedom in parts)
    reach = _quantile(total**2 / weight if weight else count - 1) * math.sqrt(total)
    return Difference(Mean(gap, gap - reach, gap + reach, count), paired=False)


def mean_of(values: Sequence[float], *, bounds: tuple[float, float] | None = None) -> Mean:
    """Return the mean of values (N,), N >= 1, with its 95% interval by Student's t, clipped to `bounds`."""
    count = len(values)
    if not count:
        raise ValueError("no values to take the mean of")
    mean = fmean(values)
    if count == 1:
        return Mean(mean, None, None, 1)
    reach = _quantile(count - 1) * math.sqrt(variance(values) / count)
    low, high = mean - reach, mean + reach
    if bounds and bounds[0] <= mean <= bounds[1]:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Mean(mean, low, high, count)


def _quantile(freedom: float) -> float:
    """Return Student's t quantile of a two-sided interval at `LEVEL`."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def _describe_lead(sweep: Sweep, best: Family, others: list[Family], difference: Difference) -> str:
    winner, second, gap = best.first.name, others[0].first.name, difference.mean
    lead = f"{winner} leads {second} by {number(gap.value)} on average"
    if gap.low is not None and gap.high is not None:
        basis = f"{gap.count} shared seeds" if difference.paired else "their seeds, unpaired"
        lead += f" (95% {number(gap.low)} to {number(gap.high)}, over {basis})"
    tied = [family.first.name for family in others if compare_families(sweep, best, family).luck]
    if not difference.luck:
        return f"{lead}: more than luck" + (f"; no clear lead over {', '.join(tied)}" if tied else "")
    same = [name for name in tied if name != second]
    more = f"; the same holds for {', '.join(same)}" if same else ""
    if gap.value == 0:
        return f"{winner} and {second} have the same mean{more}"
    if gap.value < 0:  # with seeds that only one of them has
        return f"{winner} has the best mean, {second} is ahead on the seeds they share: luck{more}"
    return f"{lead}: the difference may be luck{more}"
