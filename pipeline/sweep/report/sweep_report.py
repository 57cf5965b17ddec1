"""The report of a sweep: `sweep.html`, one file that needs nothing else, for a screen or for paper."""

import base64
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from pneumo.pipeline.sweep.parameter_format import Axis, axes, duration, number, words
from pneumo.pipeline.sweep.record import Goal, Sweep, SweepFolder, Trial, TrialStatus
from pneumo.pipeline.sweep.report.advice import list_advice
from pneumo.pipeline.sweep.report.importance import Importance, measure_importance
from pneumo.pipeline.sweep.report.table import counts, training_share, wall_seconds
from pneumo.pipeline.sweep.seed_repeats import (
    Choice,
    Mean,
    choose_winner,
    compare_families,
    find_contenders,
    group_by_parameters,
)
from pneumo.serving.contracts.files import write_text

_HERE = Path(__file__).parent
_TEMPLATE, _SCRIPT, _STYLE = "report.html", "report.js", "report.css"
_LINKED = ("best", "table", "config")


def write_report(folder: SweepFolder, sweep: Sweep) -> Path:
    """Write `sweep.html`, atomically, for a sweep that is over or not.

    Args:
        folder: Where to; links lead to what lies there already, so write `best.yaml` and `trials.csv` first.
        sweep: What is told.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    found, choice, known = measure_importance(sweep), choose_winner(sweep), axes(sweep)
    script = (_HERE / _SCRIPT).read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "duration": duration,
        "words": words,
        "interval": interval,
        "sentence": sentence(sweep),
    }
    ended = sum(count for status, count in counts(sweep).items() if status != TrialStatus.WAITING)
    page = environment.get_template(_TEMPLATE).render(
        sweep=sweep,
        axes=known,
        short={axis.name: axis.short for axis in known},
        choice=choice,
        winners={trial.name for trial in choice.family.trials} if choice else set(),
        importance=found,
        advice=list_advice(sweep, choice, found),
        families=_compared(sweep, choice),
        counts={status.value: count for status, count in counts(sweep).items()},
        began=ended,
        wall=wall_seconds(sweep),
        share=training_share(sweep),
        rows=[_row(folder, sweep, known, trial) for trial in _ordered(sweep)],
        files=[path.name for path in (getattr(folder, name) for name in _LINKED) if path.is_file()],
        space=yaml.safe_dump(json.loads(json.dumps(sweep.space, default=str)), sort_keys=False),
        data=Markup(_embedded(page_data(sweep, choice, found))),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup((_HERE / _STYLE).read_text(encoding="utf-8")),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    write_text(folder.report, page)
    return folder.report


def page_data(sweep: Sweep, choice: Choice | None, found: Importance) -> dict[str, Any]:
    """What the charts are drawn from, JSON without NaN.

    Trials that ran have their places on the axes, in the order of the axes; `heat` runs from 0 for the worst to 1 for
    the best, by rank. Axes with a known share of importance come first, the largest share first.
    """
    known = axes(sweep)
    known.sort(key=lambda axis: -(found.share(axis.name) or 0.0))
    begun = [trial for trial in sweep.trials if trial.status != TrialStatus.WAITING]
    values = {trial.name: trial.value(sweep.goal) for trial in begun}
    heat = _heat([(name, value) for name, value in values.items() if value is not None], sweep.goal)
    winners = {trial.name for trial in choice.family.trials} if choice else set()
    rounds = [each.value for trial in begun for each in trial.rounds]
    reached = [value for value in values.values() if value is not None]
    curves = describe_progress(sweep)
    return {
        "metric": sweep.metric,
        "goal": sweep.goal,
        "epochs": max([sweep.epochs, *(each.epoch for trial in begun for each in trial.rounds)]),
        "wall": wall_seconds(sweep),
        "domain": domain(reached, sweep.goal),
        "progressed": domain([*reached, *(value for _, value, _ in curves["time"])], sweep.goal),
        "rounds": domain(rounds, sweep.goal),
        "axes": [_drawn(axis, found, begun) for axis in known],
        "trials": [
            {
                "name": trial.name,
                "status": trial.status.value,
                "repeats": trial.repeats,
                "value": values[trial.name],
                "epoch": best.epoch if (best := trial.best_round(sweep.goal)) else None,
                "places": [axis.place(trial.parameters.get(axis.name)) for axis in known],
                "texts": [
                    axis.text(trial.parameters[axis.name]) if axis.name in trial.parameters else "" for axis in known
                ],
                "rounds": [[each.epoch, each.value] for each in trial.rounds if math.isfinite(each.value)],
                "at": next((each.at for each in reversed(trial.rounds)), None),
                "heat": heat.get(trial.name),
                "winner": trial.name in winners,
                "error": trial.error,
            }
            for trial in begun
        ],
        "progress": curves,
        "families": [
            {"name": family.first.name, "values": family.values, "low": family.mean.low, "high": family.mean.high}
            | {
                "mean": family.mean.value,
                "winner": choice is not None and family.first.name == choice.family.first.name,
            }
            for family in group_by_parameters(sweep)
            if family.repeated
        ],
    }


def describe_progress(sweep: Sweep) -> dict[str, list[tuple[float, float, str]]]:
    """The best so far, wherever it changed: over seconds of wall time and over trials, with who reached it.

    First trials that did not fail; repetitions with other seeds cannot change what was found.
    """
    trials = find_contenders(sweep)
    by_time = sorted(
        (each.at, each.value, trial.name) for trial in trials for each in trial.rounds if math.isfinite(each.value)
    )
    order = [trial for trial in sweep.trials if trial.repeats is None and trial.status != TrialStatus.WAITING]
    names = {trial.name for trial in trials}
    by_trial = [
        (float(place), value, trial.name)
        for place, trial in enumerate(order, start=1)
        if trial.name in names and (value := trial.value(sweep.goal)) is not None
    ]
    return {"time": _records(by_time, sweep.goal), "trials": _records(by_trial, sweep.goal)}


def domain(values: Sequence[float], goal: Goal) -> tuple[float, float]:
    """A range that shows values: all of them but bad ones that lie far from the rest, with a margin.

    Far is three interquartile ranges from the quartile. Good ones are always inside.
    """
    known = sorted(value for value in values if math.isfinite(value))
    if not known:
        return (0.0, 1.0)
    low, high = known[0], known[-1]
    first, third = (known[round(share * (len(known) - 1))] for share in (0.25, 0.75))
    reach = 3 * (third - first)
    if reach > 0 and goal == "maximize":
        low = next(value for value in known if value >= first - reach)
    elif reach > 0:
        high = next(value for value in reversed(known) if value <= third + reach)
    margin = 0.05 * (high - low) or max(abs(high) * 0.01, 1e-6)
    return (low - margin, high + margin)


def interval(mean: Mean) -> str:
    """An interval for people, `0.9123 to 0.9651`, or nothing where there is none."""
    return "" if mean.low is None or mean.high is None else f"{number(mean.low)} to {number(mean.high)}"


def sentence(sweep: Sweep) -> Callable[[str], str]:
    """A function that makes a sentence of words: a full stop, and a capital unless a trial's name comes first."""

    def made(text: str) -> str:
        named = sweep.trial(text.partition(" ")[0]) is not None
        return f"{text if named else text[:1].upper() + text[1:]}."

    return made


def _records(points: list[tuple[float, float, str]], goal: Goal) -> list[tuple[float, float, str]]:
    sign = 1 if goal == "maximize" else -1
    found: list[tuple[float, float, str]] = []
    for point in points:
        if not found or sign * point[1] > sign * found[-1][1]:
            found.append(point)
    return found


def _drawn(axis: Axis, found: Importance, trials: list[Trial]) -> dict[str, Any]:
    places = [place for trial in trials if (place := axis.place(trial.parameters.get(axis.name))) is not None]
    ends = [end for end in (axis.low, axis.high) if end is not None]
    low, high = min([*ends, *places], default=0.0), max([*ends, *places], default=1.0)
    if axis.kind == "category":
        low, high = 0.0, max(0.0, len(axis.categories) - 1.0)
    return {
        "name": axis.name,
        "short": axis.short,
        "kind": axis.kind,
        "low": low,
        "high": high,
        "labels": list(axis.labels),
        "share": found.share(axis.name),
    }


def _heat(values: list[tuple[str, float]], goal: Goal) -> dict[str, float]:
    sign = 1 if goal == "maximize" else -1
    ordered = sorted((pair for pair in values if math.isfinite(pair[1])), key=lambda pair: sign * pair[1])
    return {name: round(place / max(1, len(ordered) - 1), 4) for place, (name, _) in enumerate(ordered)}


def _ordered(sweep: Sweep) -> list[Trial]:
    first = [trial for family in group_by_parameters(sweep) for trial in family.trials]
    named = {trial.name for trial in first}
    return [*first, *(trial for trial in sweep.trials if trial.name not in named)]


def _row(folder: SweepFolder, sweep: Sweep, known: list[Axis], trial: Trial) -> dict[str, Any]:
    best = trial.best_round(sweep.goal)
    run = folder.run_of(trial)
    linked = run is not None and run.report.is_file()
    return {
        "trial": trial,
        "value": None if best is None else best.value,
        "best_epoch": None if best is None else best.epoch,
        "epochs": trial.rounds[-1].epoch if trial.rounds else 0,
        "texts": [axis.text(trial.parameters[axis.name]) if axis.name in trial.parameters else "" for axis in known],
        "places": [axis.place(trial.parameters.get(axis.name)) for axis in known],
        "report": f"./{quote(f'{trial.run}/{run.report.name}')}" if linked and run is not None else None,
    }


def _compared(sweep: Sweep, choice: Choice | None) -> list[dict[str, Any]]:
    """Families of several seeds, each with how far the winner is ahead of it."""
    found = []
    for family in group_by_parameters(sweep):
        if choice is None or not family.repeated:
            continue
        is_winner = family.first.name == choice.family.first.name
        difference = None if is_winner else compare_families(sweep, choice.family, family)
        found.append({"family": family, "difference": difference})
    return found


def _embedded(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
