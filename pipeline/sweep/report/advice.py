"""What to know before believing a sweep, in words."""

import math
from collections import Counter

from pneumo.pipeline.sweep.parameter_format import Axis, axes, number
from pneumo.pipeline.sweep.record import Sweep, Trial, TrialStatus
from pneumo.pipeline.sweep.report.importance import Importance
from pneumo.pipeline.sweep.report.table import training_share
from pneumo.pipeline.sweep.seed_repeats import Choice, find_contenders, group_by_parameters

FEW = 10
"""Trials with a value, below which random search rarely lands near the best 20 % (0.8^10 is a chance of 11 %)."""

_EDGE = 0.05
_MATTERS = 0.05
_TIES = 1e-4


def list_advice(sweep: Sweep, choice: Choice | None, found: Importance) -> list[str]:
    """Sentences without a full stop, what weighs most first; none where all is well."""
    told = [*_failures(sweep), *_unfinished(sweep)]
    if choice is None:
        return told
    told += [*_few(sweep), *_luck(sweep, choice), *_edges(sweep, choice, found), *_length(sweep, choice.trial)]
    share = training_share(sweep)
    if share is not None and 0 < share < 0.5:
        told.append(
            f"only {share * 100:.0f} % of the time was training: fewer or longer trials at a time would waste less"
        )
    return told


def _failures(sweep: Sweep) -> list[str]:
    failed = [trial for trial in sweep.trials if trial.status == TrialStatus.FAILED]
    if not failed:
        return []
    ended = sum(trial.status not in (TrialStatus.WAITING, TrialStatus.RUNNING) for trial in sweep.trials)
    (reason, same), *others = Counter(_one_line(trial.error) for trial in failed).most_common()
    if len(failed) == ended and not others and ended > 1:
        return [f"all {ended} trials failed for the same reason: {reason}"]
    if len(failed) == ended:
        what = "the only trial failed" if ended == 1 else f"all {ended} trials failed, {same} of them for this reason"
        return [f"{what}: {reason}"]
    if len(failed) == 1:
        return [f"{failed[0].name} failed: {reason}"]
    which = "for the same reason" if not others else f"{same} of them for this reason"
    return [f"{len(failed)} of {ended} trials failed, {which}: {reason}"]


def _unfinished(sweep: Sweep) -> list[str]:
    begun = sum(trial.repeats is None and trial.status != TrialStatus.WAITING for trial in sweep.trials)
    told = []
    if sweep.status == "failed":
        told.append(f"the sweep failed: {_one_line(sweep.error)}")
    elif sweep.status == "interrupted":
        told.append(f"the sweep was interrupted after {begun} of {sweep.wanted} trials had begun; it can be resumed")
    elif sweep.status == "running":
        told.append(f"the sweep was still running: {begun} of {sweep.wanted} trials had begun")
    elif begun < sweep.wanted:
        why = "its time budget was spent" if sweep.time_budget is not None else "it ended early"
        told.append(f"{begun} of {sweep.wanted} trials were tried: {why}")
    return told


def _few(sweep: Sweep) -> list[str]:
    count = len(find_contenders(sweep))
    points = _grid(sweep)
    if count >= FEW or (points is not None and count >= points):
        return []
    return [
        f"{count} trial{'s' if count > 1 else ''} with a value: too few to say that nothing better is in this space"
    ]


def _luck(sweep: Sweep, choice: Choice) -> list[str]:
    told = []
    best = [trial for trial in find_contenders(sweep) if trial.status != TrialStatus.RUNNING]
    values = [value for trial in best if (value := trial.value(sweep.goal)) is not None]
    near = sum(abs(value - values[0]) < _TIES for value in values) if values else 0
    spread = _spread(sweep)
    if near > 2:
        told.append(
            f"{near} trials share the best {sweep.metric} to four decimals: it is saturated, another would tell more"
        )
    elif spread and len(values) > 2:
        within = sum(abs(value - values[0]) <= 2 * spread for value in values)
        if within > len(values) / 2:
            told.append(
                f"{within} of {len(values)} trials are within two standard deviations of what a seed changes "
                f"({number(spread)}) from the best: differences this small say nothing"
            )
    if choice.remark and (choice.difference is None or choice.difference.luck):
        told.append(choice.remark)
    if not choice.family.repeated and len(values) > 1:
        told.append(
            "the winner was trained with one seed: the lead may be luck, repeating the best with other seeds tells"
        )
    return told


def _edges(sweep: Sweep, choice: Choice, found: Importance) -> list[str]:
    told = []
    for axis in axes(sweep):
        share = found.share(axis.name)
        if axis.name not in choice.trial.parameters or (share is not None and share < _MATTERS):
            continue
        end = _edge(axis, choice.trial.parameters[axis.name])
        if end:
            value = axis.text(choice.trial.parameters[axis.name])
            told.append(
                f"the winner's {axis.name}, {value}, lies at the {end} end of what was searched: widen it there"
            )
    return told


def _edge(axis: Axis, value: object) -> str | None:
    """Which end of an axis a value lies at, None for neither; 0 and, for what starts at 0, 1 are natural ends."""
    place = axis.place(value)
    if place is None:
        return None
    if axis.kind == "category":
        if not axis.ordered or len(axis.categories) < 3:
            return None
        return {0.0: "lower", len(axis.categories) - 1.0: "upper"}.get(place)
    if axis.low is None or axis.high is None or axis.high <= axis.low:
        return None
    low, high, at = axis.low, axis.high, place
    if axis.kind == "log":
        low, high, at = math.log(low), math.log(high), math.log(place)
    if at <= low + _EDGE * (high - low) and axis.low != 0:
        return "lower"
    if at >= high - _EDGE * (high - low) and not (axis.low >= 0 and axis.high == 1):
        return "upper"
    return None


def _length(sweep: Sweep, trial: Trial) -> list[str]:
    best = trial.best_round(sweep.goal)
    if best is None or sweep.epochs < 2 or trial.status == TrialStatus.RUNNING or best.epoch < sweep.epochs:
        return []
    return ["the winner was best in its last epoch: with more epochs it may have become better still"]


def _spread(sweep: Sweep) -> float | None:
    """Standard deviation over seeds, pooled over families; None where nothing was repeated."""
    squares, freedom = 0.0, 0
    for family in group_by_parameters(sweep):
        squares += math.fsum((value - family.mean.value) ** 2 for value in family.values)
        freedom += len(family.values) - 1
    return math.sqrt(squares / freedom) if freedom else None


def _grid(sweep: Sweep) -> int | None:
    """Points of a space of lists alone; None of any other."""
    found = axes(sweep)
    lists = [axis for axis in found if axis.kind == "category"]
    return math.prod(len(axis.categories) for axis in lists) if len(lists) == len(found) else None


def _one_line(text: str | None) -> str:
    return " ".join((text or "no reason was recorded").split()).rstrip(".")
