"""Advice on a sweep: reasons to doubt its winner, and ways to search better."""

import math
from collections import Counter

from pneumo.pipeline.sweep.parameter_format import Axis, axes, number
from pneumo.pipeline.sweep.record import Sweep, Trial, TrialStatus
from pneumo.pipeline.sweep.report.importance import Importance
from pneumo.pipeline.sweep.report.table import training_share
from pneumo.pipeline.sweep.seed_repeats import Choice, find_contenders, group_by_parameters
from pneumo.serving.contracts.quantities import format_count

FEW = 10
"""Trials with a value, below which random search rarely finds one of the best 20% (with 10 it misses them in 11%)."""

_EDGE = 0.05
_LEAST_SHARE = 0.05
_TIES = 1e-4


def list_advice(sweep: Sweep, choice: Choice | None, importance: Importance) -> list[str]:
    """Return sentences without a full stop, the most important first; none if all is well."""
    advice = [*_failures(sweep), *_unfinished(sweep)]
    if choice is None:
        return advice
    advice += [*_few(sweep), *_luck(sweep, choice), *_edges(sweep, choice, importance), *_length(sweep, choice.trial)]
    share = training_share(sweep)
    if share is not None and 0 < share < 0.5:
        advice.append(f"only {share:.0%} of the time was training: try fewer trials at a time, or longer ones")
    return advice


def _failures(sweep: Sweep) -> list[str]:
    failed = [trial for trial in sweep.trials if trial.status == TrialStatus.FAILED]
    if not failed:
        return []
    ended = sum(trial.status.is_final for trial in sweep.trials)
    (reason, same), *others = Counter(_reason(trial.error) for trial in failed).most_common()
    which = f"{same} of them for this reason" if others else "for the same reason"
    if len(failed) == ended:
        if ended == 1:
            return [f"the only trial failed: {reason}"]
        return [f"all {ended} trials failed{',' if others else ''} {which}: {reason}"]
    if len(failed) == 1:
        return [f"{failed[0].name} failed: {reason}"]
    return [f"{len(failed)} of {ended} trials failed, {which}: {reason}"]


def _unfinished(sweep: Sweep) -> list[str]:
    begun = sum(trial.repeats is None and trial.status != TrialStatus.WAITING for trial in sweep.trials)
    share = f"{begun} of {format_count(sweep.wanted, 'trial')}"
    match sweep.status:
        case "failed":
            return [f"the sweep failed: {_reason(sweep.error)}"]
        case "interrupted":
            return [f"the sweep was interrupted after {share} had begun; it can be resumed"]
        case "running":
            return [f"the sweep was still running: {share} had begun"]
    reason = "its time budget was spent" if sweep.time_budget is not None else "it ended early"
    return [f"{share} were tried: {reason}"] if begun < sweep.wanted else []


def _few(sweep: Sweep) -> list[str]:
    count, lists = len(find_contenders(sweep)), axes(sweep)
    is_grid = all(axis.kind == "category" for axis in lists)
    if count >= FEW or (is_grid and count >= math.prod(len(axis.categories) for axis in lists)):
        return []
    return [f"{count} trial{'s' if count > 1 else ''} with a value: too few to find the best of this space"]


def _luck(sweep: Sweep, choice: Choice) -> list[str]:
    advice = []
    best = [trial for trial in find_contenders(sweep) if trial.status != TrialStatus.RUNNING]
    values = [value for trial in best if (value := trial.value(sweep.goal)) is not None]
    spread = _seed_spread(sweep)
    ties = sum(abs(value - values[0]) < _TIES for value in values)
    within = sum(abs(value - values[0]) <= 2 * (spread or 0) for value in values)
    if ties > 2:
        same = f"{ties} trials share the best {sweep.metric_name} to four decimals"
        advice.append(f"{same}: it is saturated, use another")
    elif spread and len(values) > 2 and within > len(values) / 2:
        advice.append(
            f"{within} of {len(values)} trials are within two standard deviations over seeds ({number(spread)}) of the "
            "best: differences this small are not significant"
        )
    if choice.remark and (choice.difference is None or choice.difference.luck):
        advice.append(choice.remark)
    if not choice.family.repeated and len(values) > 1:
        advice.append("the winner was trained with one seed: its lead may be luck; repeat the best with --seeds")
    return advice


def _edges(sweep: Sweep, choice: Choice, importance: Importance) -> list[str]:
    advice = []
    for axis in axes(sweep):
        share, text = importance.share(axis.name), axis.text_of(choice.trial)
        end = _find_edge(axis, axis.place_of(choice.trial))
        if text and end and (share is None or share >= _LEAST_SHARE):
            advice.append(f"the winner's {axis.name}, {text}, is at the {end} end of the space: widen it there")
    return advice


def _find_edge(axis: Axis, place: float | None) -> str | None:
    """Return the end of an axis that a value is near; 0 and, on an axis from 0, 1 are natural ends and do not count."""
    if place is None:
        return None
    if axis.kind == "category":
        if not axis.ordered or len(axis.categories) < 3:
            return None
        return {0.0: "lower", len(axis.categories) - 1.0: "upper"}.get(place)
    if axis.low is None or axis.high is None or axis.high <= axis.low:
        return None
    low, high, at = map(math.log, (axis.low, axis.high, place)) if axis.kind == "log" else (axis.low, axis.high, place)
    if at <= low + _EDGE * (high - low) and axis.low != 0:
        return "lower"
    if at >= high - _EDGE * (high - low) and not (axis.low >= 0 and axis.high == 1):
        return "upper"
    return None


def _length(sweep: Sweep, trial: Trial) -> list[str]:
    best = trial.best_round(sweep.goal)
    if best is None or sweep.epochs < 2 or trial.status == TrialStatus.RUNNING or best.epoch < sweep.epochs:
        return []
    return ["the winner was best in its last epoch: more epochs may improve it"]


def _seed_spread(sweep: Sweep) -> float | None:
    """Return the standard deviation over seeds, pooled over families; None without repeats."""
    families = group_by_parameters(sweep)
    squares = math.fsum((value - family.mean.value) ** 2 for family in families for value in family.values)
    freedom = sum(len(family.values) - 1 for family in families)
    return math.sqrt(squares / freedom) if freedom else None


def _reason(text: str | None) -> str:
    return " ".join((text or "no reason was recorded").split()).rstrip(".")
