"""The report of a sweep: `sweep.html`, one self-contained file for screen and print."""

import base64
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

import yaml

from pneumo.pipeline.evaluation.report.template import render
from pneumo.pipeline.sweep.parameter_format import Axis, axes, number, words
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
    order_trials,
)
from pneumo.serving.contracts.figures import format_figure
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.quantities import format_duration

Point = tuple[float, float, str]  # position, value, and the name of the trial that reached it

_HERE = Path(__file__).parent


def write_report(folder: SweepFolder, sweep: Sweep) -> Path:
    """Write `sweep.html` atomically, for a finished sweep or an unfinished one.

    The page links to the files in its folder: write `best.yaml` and `trials.csv` first.
    """
    from markupsafe import Markup

    importance, choice, shown, numbers = measure_importance(sweep), choose_winner(sweep), axes(sweep), counts(sweep)
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    filters: dict[str, Callable[..., object]] = {"number": number, "duration": format_duration, "words": words}
    page = render(
        "sweep.html",
        _HERE,
        filters | {"interval": _interval, "sentence": partial(_make_sentence, sweep)},
        sweep=sweep,
        axes=shown,
        short={axis.name: axis.short for axis in shown},
        choice=choice,
        winners={trial.name for trial in choice.family.trials} if choice else set(),
        importance=importance,
        advice=list_advice(sweep, choice, importance),
        families=_compare_with_winner(sweep, choice),
        counts={status.value: count for status, count in numbers.items()},
        began=sum(count for status, count in numbers.items() if status != TrialStatus.WAITING),
        wall=wall_seconds(sweep),
        share=training_share(sweep),
        rows=[_make_row(folder, sweep, shown, trial) for trial in order_trials(sweep)],
        files=[path.name for path in (folder.best, folder.table, folder.config) if path.is_file()],
        space=yaml.safe_dump(json.loads(json.dumps(sweep.space, default=str)), sort_keys=False),
        data=Markup(_embed(page_data(sweep, choice, importance))),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_text(folder.report, page)
    return folder.report


def page_data(sweep: Sweep, choice: Choice | None, importance: Importance) -> dict[str, object]:
    """Return the data of the charts, as JSON without NaN.

    Trials that began have a position for each axis; `heat` is their rank, from 0 for the worst to 1 for the best. Axes
    with a known importance come first, the most important first.
    """
    shown = sorted(axes(sweep), key=lambda axis: -(importance.share(axis.name) or 0.0))
    begun = [trial for trial in sweep.trials if trial.status != TrialStatus.WAITING]
    values = {trial.name: value for trial in begun if (value := trial.value(sweep.goal)) is not None}
    order = sorted(values, key=lambda name: sweep.sign * values[name])
    heat = {name: round(rank / max(1, len(order) - 1), 4) for rank, name in enumerate(order)}
    winners = {trial.name for trial in choice.family.trials} if choice else set()
    rounds = [each for trial in begun for each in trial.rounds]
    curves = describe_progress(sweep)
    return {
        "metric": sweep.metric_name,
        "goal": sweep.goal,
        "epochs": max([sweep.epochs, *(each.epoch for each in rounds)]),
        "wall": wall_seconds(sweep),
        "domain": domain(list(values.values()), sweep.goal),
        "progressed": domain([*values.values(), *(value for _, value, _ in curves["time"])], sweep.goal),
        "rounds": domain([each.value for each in rounds], sweep.goal),
        "axes": [_describe_axis(axis, importance, begun) for axis in shown],
        "trials": [
            {
                "name": trial.name,
                "status": trial.status.value,
                "repeats": trial.repeats,
                "value": values.get(trial.name),
                "figure": format_figure(values.get(trial.name)),
                "epoch": best.epoch if (best := trial.best_round(sweep.goal)) else None,
                "places": [axis.place_of(trial) for axis in shown],
                "texts": [axis.text_of(trial) for axis in shown],
                "rounds": [[each.epoch, each.value] for each in trial.rounds if math.isfinite(each.value)],
                "at": trial.rounds[-1].at if trial.rounds else None,
                "heat": heat.get(trial.name),
                "winner": trial.name in winners,
                "error": trial.error,
            }
            for trial in begun
        ],
        "progress": curves,
        "families": [
            {**vars(family.mean), "name": family.first.name, "values": family.values, "mean": family.mean.value}
            for family in group_by_parameters(sweep)
            if family.repeated
        ],
    }


def describe_progress(sweep: Sweep) -> dict[str, list[Point]]:
    """Return each new best value, over seconds of wall time and over trials; failed trials and repeats do not count."""
    trials = find_contenders(sweep)
    by_time = sorted(
        (each.at, each.value, trial.name) for trial in trials for each in trial.rounds if math.isfinite(each.value)
    )
    begun = [trial for trial in sweep.trials if trial.repeats is None and trial.status != TrialStatus.WAITING]
    names = {trial.name for trial in trials}
    by_trial = [
        (float(place), value, trial.name)
        for place, trial in enumerate(begun, start=1)
        if trial.name in names and (value := trial.value(sweep.goal)) is not None
    ]
    curves: dict[str, list[Point]] = {"time": [], "trials": []}
    for points, curve in ((by_time, curves["time"]), (by_trial, curves["trials"])):
        for point in points:
            if not curve or sweep.sign * point[1] > sweep.sign * curve[-1][1]:
                curve.append(point)
    return curves


def domain(values: Sequence[float], goal: Goal) -> tuple[float, float]:
    """Return a range with a margin; bad values more than three interquartile ranges off a quartile lie outside."""
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        return (0.0, 1.0)
    low, high = finite[0], finite[-1]
    first, third = (finite[round(share * (len(finite) - 1))] for share in (0.25, 0.75))
    reach = 3 * (third - first)
    if reach > 0 and goal == "maximize":
        low = next(value for value in finite if value >= first - reach)
    elif reach > 0:
        high = next(value for value in reversed(finite) if value <= third + reach)
    margin = 0.05 * (high - low) or max(abs(high) * 0.01, 1e-6)
    return (low - margin, high + margin)


def _interval(mean: Mean) -> str:
    return "" if mean.low is None or mean.high is None else f"{number(mean.low)} to {number(mean.high)}"


def _make_sentence(sweep: Sweep, text: str) -> str:
    """Add a full stop, and a capital unless the text begins with a trial's name."""
    named = sweep.trial(text.partition(" ")[0]) is not None
    return f"{text if named else text[:1].upper() + text[1:]}."


def _describe_axis(axis: Axis, importance: Importance, trials: list[Trial]) -> dict[str, object]:
    places = [place for trial in trials if (place := axis.place_of(trial)) is not None]
    places += [end for end in (axis.low, axis.high) if end is not None]
    low, high = min(places, default=0.0), max(places, default=1.0)
    if axis.kind == "category":
        low, high = 0.0, max(0.0, len(axis.categories) - 1.0)
    return {
        "name": axis.name,
        "short": axis.short,
        "kind": axis.kind,
        "low": low,
        "high": high,
        "labels": axis.labels,
        "share": importance.share(axis.name),
    }


def _make_row(folder: SweepFolder, sweep: Sweep, shown: list[Axis], trial: Trial) -> dict[str, object]:
    run = folder.run_of(trial)
    return {
        "trial": trial,
        "best": trial.best_round(sweep.goal),
        "texts": [axis.text_of(trial) for axis in shown],
        "places": [axis.place_of(trial) for axis in shown],
        "report": f"./{quote(f'{trial.run}/{run.report.name}')}" if run and run.report.is_file() else None,
    }


def _compare_with_winner(sweep: Sweep, choice: Choice | None) -> list[dict[str, object]]:
    """Return the repeated families, each with the winner's lead over it."""
    rows: list[dict[str, object]] = []
    for family in group_by_parameters(sweep):
        if choice is not None and family.repeated:
            is_winner = family.first.name == choice.family.first.name
            lead = None if is_winner else compare_families(sweep, choice.family, family)
            rows.append({"family": family, "difference": lead})
    return rows


def _embed(data: dict[str, object]) -> str:
    """Return JSON that cannot close its script element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
