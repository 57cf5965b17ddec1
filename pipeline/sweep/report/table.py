"""All trials as a table: `trials.csv`, one JSON document, and what a terminal shows."""

import csv
import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumo.pipeline.sweep.parameter_format import axes, duration, number
from pneumo.pipeline.sweep.record import Sweep, SweepFolder, Trial, TrialStatus
from pneumo.pipeline.sweep.seed_repeats import LEVEL, Mean, choose_winner, find_contenders, group_by_parameters
from pneumo.serving.contracts.files import write_text

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = (
    "trial",
    "status",
    "repeats",
    "seed",
    "value",
    "best_epoch",
    "epochs",
    "seconds",
    "training_seconds",
    "error",
    "run",
)
_SHOWN = 20
_SHOWN_PARAMETERS = 6
_LONGEST_ERROR = 60


def write_table(folder: SweepFolder, sweep: Sweep) -> Path:
    """Write `trials.csv`, atomically: one row a trial in the order of their beginning.

    Text stands as it is, any other value of a parameter as JSON; what is not known is empty. A parameter whose name is
    that of another column is written as `parameters.NAME`.
    """
    names = [axis.name for axis in axes(sweep)]
    columns = [f"parameters.{name}" if name in _COLUMNS else name for name in names]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*_COLUMNS, *columns])
    for trial in sweep.trials:
        facts = _facts(sweep, trial)
        parameters = [_cell(trial.parameters[name]) if name in trial.parameters else "" for name in names]
        writer.writerow([*("" if facts[name] is None else facts[name] for name in _COLUMNS), *parameters])
    write_text(folder.table, buffer.getvalue())
    return folder.table


def document(sweep: Sweep) -> dict[str, Any]:
    """What `pneumo sweep --json` prints: facts of the sweep, the winner, all trials. Plain JSON values, no NaN.

    The winner has its parameters, the value of its best seed, and of all its seeds `mean`, `interval` (95 %, Student's
    t; null of one seed), `seeds` and in words how sure the choice is. It is null before a trial finished a round.
    """
    facts = sweep.model_dump(mode="json", exclude={"trials", "winner", "seconds"})
    facts |= {
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
    cleaned: dict[str, Any] = _finite(facts)
    return cleaned


def counts(sweep: Sweep) -> dict[TrialStatus, int]:
    """How many trials stand where, those that were wanted and never began among the waiting; none with 0."""
    found = Counter(trial.status for trial in sweep.trials)
    missing = sweep.wanted - sum(trial.repeats is None for trial in sweep.trials)
    found[TrialStatus.WAITING] += max(0, missing)
    return {status: found[status] for status in TrialStatus if found[status]}


def wall_seconds(sweep: Sweep) -> float:
    """Wall time of the sweep: as recorded, or up to the last thing that is known to have happened."""
    known = [sweep.seconds]
    for trial in sweep.trials:
        known += [each.at for each in trial.rounds]
        if trial.started is not None:
            known.append(trial.started + trial.seconds)
    return max(value for value in known if math.isfinite(value))


def training_share(sweep: Sweep) -> float | None:
    """Seconds of training in all trials over wall seconds times trials at a time; None before anything ran."""
    available = wall_seconds(sweep) * max(1, sweep.concurrency)
    return math.fsum(trial.training for trial in sweep.trials) / available if available > 0 else None


def trial_table(sweep: Sweep, *, limit: int = _SHOWN) -> "Table":
    """The best trials first, then those without a value; at most `limit` of them, the rest counted in the caption."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    shown = [axis for axis in axes(sweep) if any(axis.name in trial.parameters for trial in sweep.trials)]
    shown = shown[:_SHOWN_PARAMETERS]
    choice = choose_winner(sweep)
    winners = {trial.name for trial in choice.family.trials} if choice else set()
    first = [trial for family in group_by_parameters(sweep) for trial in family.trials]
    named = {trial.name for trial in first}
    ordered = [*first, *(trial for trial in sweep.trials if trial.name not in named)]
    table = Table(title=Text(f"{sweep.metric} on validation, {sweep.goal}d"), title_justify="left")
    for title, justify in (("trial", "left"), ("status", "left"), (sweep.metric, "right"), ("epochs", "right")):
        table.add_column(escape(title), justify=justify)  # type: ignore[arg-type]
    table.add_column("time", justify="right")
    for axis in shown:
        table.add_column(escape(axis.short), overflow="fold")
    if any(trial.error for trial in ordered[:limit]):
        table.add_column("why", overflow="fold")
    for trial in ordered[:limit]:
        best = trial.best_round(sweep.goal)
        parameters = [axis.text(trial.parameters[axis.name]) if axis.name in trial.parameters else "" for axis in shown]
        cells = [
            trial.name + (f" (again {trial.repeats})" if trial.repeats else ""),
            trial.status.value,
            number(None if best is None else best.value),
            str(trial.rounds[-1].epoch) if trial.rounds else "-",
            duration(trial.seconds) if trial.started is not None else "-",
            *parameters,
        ]
        if trial.error:
            cells.append(_cut(trial.error))
        table.add_row(*(Text(cell) for cell in cells), style="bold" if trial.name in winners else None)
    if len(ordered) > limit:
        table.caption = f"and {len(ordered) - limit} more in trials.csv"
        table.caption_justify = "left"
    return table


def _winner(sweep: Sweep) -> dict[str, Any] | None:
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


def _mean(mean: Mean) -> dict[str, Any]:
    interval = None if mean.low is None else [mean.low, mean.high]
    return {"mean": mean.value, "interval": interval, "level": LEVEL}


def _facts(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    best = trial.best_round(sweep.goal)
    return {
        "trial": trial.name,
        "status": trial.status.value,
        "repeats": trial.repeats,
        "seed": trial.seed,
        "value": None if best is None else best.value,
        "best_epoch": None if best is None else best.epoch,
        "epochs": trial.rounds[-1].epoch if trial.rounds else 0,
        "seconds": trial.seconds,
        "training_seconds": trial.training,
        "error": trial.error,
        "run": trial.run,
    }


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(_finite(value), default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_ERROR else text[: _LONGEST_ERROR - 3] + "..."
