"""The table of all trials: `trials.csv`, and one JSON document."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pneumo.pipeline.sweep.parameter_format import axes
from pneumo.pipeline.sweep.record import Sweep, SweepFolder, Trial, TrialStatus
from pneumo.pipeline.sweep.seed_repeats import (
    LEVEL,
    Mean,
    choose_winner,
    find_contenders,
    group_by_parameters,
)
from pneumo.serving.contracts.csv_text import format_csv
from pneumo.serving.contracts.files import write_text


def write_table(folder: SweepFolder, sweep: Sweep) -> Path:
    """Write `trials.csv` atomically: one row per trial in the order of their start.

    Parameters that are no text are written as JSON; an unknown value is empty. A parameter with the name of another
    column is written as `parameters.NAME`.
    """
    facts = list(_facts(sweep, Trial(name="", parameters={}, seed=0)))
    names = [axis.name for axis in axes(sweep)]
    rows: list[list[object]] = [[*facts, *(f"parameters.{name}" if name in facts else name for name in names)]]
    for trial in sweep.trials:
        parameters = (_cell(trial.parameters[name]) if name in trial.parameters else "" for name in names)
        rows.append([*_facts(sweep, trial).values(), *parameters])
    write_text(folder.table, format_csv(rows))
    return folder.table


def document(sweep: Sweep) -> dict[str, Any]:
    """Return the JSON of `pneumo sweep --json`: facts of the sweep, the winner, all trials; no NaN.

    The winner has its parameters, the value of its best seed, and over all its seeds `mean`, `interval` (95%, Student's
    t; null for one seed), `seeds`, and a remark on how sure the choice is. It is null before the first round.
    """
    facts = sweep.model_dump(mode="json", exclude={"trials", "winner", "seconds"})
    return _replace_nan(
        facts
        | {
            "seconds": wall_seconds(sweep),
            "training_seconds": math.fsum(trial.training for trial in sweep.trials),
            "training_share": training_share(sweep),
            "counts": {status.value: count for status, count in counts(sweep).items()},
            "winner": _winner(sweep),
            "seeds_compared": [
                {"trial": family.first.name, "values": list(family.values), **_mean(family.mean)}
                for family in group_by_parameters(sweep)
                if family.repeated
            ],
            "trials": [{**_facts(sweep, trial), "parameters": trial.parameters} for trial in sweep.trials],
        }
    )


def counts(sweep: Sweep) -> dict[TrialStatus, int]:
    """Return the number of trials per state, without zeros; requested trials that never began count as waiting."""
    numbers = Counter(trial.status for trial in sweep.trials)
    numbers[TrialStatus.WAITING] += max(0, sweep.wanted - sum(trial.repeats is None for trial in sweep.trials))
    return {status: numbers[status] for status in TrialStatus if numbers[status]}


def wall_seconds(sweep: Sweep) -> float:
    """Return the wall time of the sweep: the recorded one, or that of the last event if it is later."""
    rounds = [each.at for trial in sweep.trials for each in trial.rounds]
    ends = [trial.started + trial.seconds for trial in sweep.trials if trial.started is not None]
    return max(value for value in (sweep.seconds, *rounds, *ends) if math.isfinite(value))


def training_share(sweep: Sweep) -> float | None:
    """Return the training time of all trials over wall time times trials at a time; None if the wall time is 0."""
    available = wall_seconds(sweep) * max(1, sweep.concurrency)
    return math.fsum(trial.training for trial in sweep.trials) / available if available > 0 else None


def _winner(sweep: Sweep) -> dict[str, object] | None:
    choice = choose_winner(sweep)
    if choice is None:
        return None
    facts = _facts(sweep, choice.trial)
    return {
        **{name: facts[name] for name in ("trial", "value", "best_epoch", "seed", "run")},
        "parameters": choice.trial.parameters,
        **_mean(choice.family.mean),
        "seeds": [trial.seed for trial in choice.family.trials],
        "remark": choice.remark,
        "of": len(find_contenders(sweep)),
    }


def _mean(mean: Mean) -> dict[str, object]:
    interval = None if mean.low is None else [mean.low, mean.high]
    return {"mean": mean.value, "interval": interval, "level": LEVEL}


def _facts(sweep: Sweep, trial: Trial) -> dict[str, object]:
    """Return the columns of the table before the parameters."""
    best = trial.best_round(sweep.goal)
    return {
        "trial": trial.name,
        "status": trial.status.value,
        "repeats": trial.repeats,
        "seed": trial.seed,
        "value": None if best is None else best.value,
        "best_epoch": None if best is None else best.epoch,
        "epochs": trial.epochs,
        "seconds": trial.seconds,
        "training_seconds": trial.training,
        "error": trial.error,
        "run": trial.run,
    }


def _cell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(_finite(value), default=str)


def _replace_nan(facts: Mapping[str, object]) -> dict[str, object]:
    return {str(key): _finite(value) for key, value in facts.items()}


def _finite(value: object) -> object:
    """Return a JSON value with null in place of each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return _replace_nan(value)
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
