"""Learning curves from `history.json`, and the round whose weights were kept."""

import json
import math
from dataclasses import dataclass

from pneumo.pipeline.config import document
from pneumo.pipeline.config.selection_metric import LOSSES
from pneumo.pipeline.evaluation.results import TITLES
from pneumo.pipeline.runs.history import Entry, name_metric, read_history
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError

_SHOWN = (("loss", "Loss"), ("auroc", "AUROC"), ("accuracy", "Accuracy"))
_PANELS = 2
_PROGRESS = "training_progress.json"  # Ludwig's


@dataclass(frozen=True)
class Curve:
    """One metric over training: points (x, value) of `training` and `validation`, without empty series.

    `over` is the unit of the horizontal axis, `Epoch` or `Step`; `kept` is the place of the round that was kept, None
    if that is unknown.
    """

    title: str
    over: str
    series: dict[str, list[tuple[float, float]]]
    kept: float | None = None


def read_curves(run: Run) -> list[Curve]:
    """Read the loss of a run, and its AUROC or else accuracy; empty if `history.json` has nothing usable."""
    rounds = read_history(run)
    over = "epoch" if len({entry.get("epoch") for entry in rounds}) == len(rounds) else "step"
    best, _ = _find_best(run, rounds)
    kept = float(best[over]) if best else None
    curves = []
    for metric, title in _SHOWN:
        series = {
            name: points
            for part, name in (("train", "training"), ("validation", "validation"))
            if (points := [(float(each[over]), each[part][metric]) for each in rounds if metric in each[part]])
        }
        if series:
            curves.append(Curve(title=title, over=over.capitalize(), series=series, kept=kept))
    return curves[:_PANELS]


def describe_kept_round(run: Run) -> str | None:
    """Say in a sentence which epoch a run kept and by which rule; None if its files do not tell."""
    best, value = _find_best(run, rounds := read_history(run))
    try:
        info, metric = run.info(), document.read_document(run.config).get("trainer.validation_metric")
    except InputError:
        return None
    if best is None or not isinstance(metric, str):
        return None
    name = name_metric(metric, "category" if info.positive is None else "binary")
    words = TITLES.get(name, name)
    rule = f"{'lowest' if metric in LOSSES else 'highest'} {words} on validation, {value:.3f}"
    return f"Weights of epoch {best['epoch']} of {rounds[-1]['epoch']} were kept: {rule}"


def _find_best(run: Run, rounds: list[Entry]) -> tuple[Entry | None, float]:
    """Return the round that was kept and the value that it was chosen by, as Ludwig recorded them."""
    try:
        progress = json.loads((run.model / _PROGRESS).read_bytes())
        step, value = progress["best_eval_metric_steps"], float(progress["best_eval_metric_value"])
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None, math.nan
    return next((each for each in rounds if each["step"] == step), None), value
