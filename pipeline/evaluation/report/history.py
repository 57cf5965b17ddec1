"""Learning curves from `history.json`."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from pneumo.pipeline.runs.run import Run

_SHOWN = (("loss", "Loss"), ("roc_auc", "AUROC"), ("accuracy", "Accuracy"))
_PANELS = 2


@dataclass(frozen=True)
class Curve:
    """One metric over training: points (x, value) of `training` and `validation`, without empty series.

    `over` is the unit of the horizontal axis, `Epoch` or `Step`.
    """

    title: str
    over: str
    series: dict[str, list[tuple[float, float]]]


def read_curves(run: Run) -> list[Curve]:
    """Read the loss of a run, and its AUROC or else accuracy; empty if `history.json` has nothing usable."""
    try:
        rounds = json.loads(run.history.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    rounds = [entry for entry in rounds if isinstance(entry, dict)] if isinstance(rounds, list) else []
    over = "epoch" if len({entry.get("epoch") for entry in rounds}) == len(rounds) else "step"
    curves = []
    for metric, title in _SHOWN:
        series = {
            name: points
            for part, name in (("train", "training"), ("validation", "validation"))
            if (points := list(_points(rounds, over, part, metric)))
        }
        if series:
            curves.append(Curve(title=title, over=over.capitalize(), series=series))
    return curves[:_PANELS]


def _points(rounds: list[dict[str, object]], over: str, part: str, metric: str) -> Iterator[tuple[float, float]]:
    for entry in rounds:
        x, values = entry.get(over), entry.get(part)
        value = values.get(metric) if isinstance(values, dict) else None
        if isinstance(x, int | float) and isinstance(value, int | float) and math.isfinite(value):
            yield float(x), float(value)
