"""Learning curves out of `history.json`."""

import json
import math
from dataclasses import dataclass
from typing import Any

from pneumo.pipeline.runs.run import Run

_SHOWN = (("loss", "Loss"), ("roc_auc", "AUROC"), ("accuracy", "Accuracy"))
_PANELS = 2


@dataclass(frozen=True)
class Curve:
    """One metric over training.

    Attributes:
        title: Name for people.
        over: What the horizontal axis counts: `Epoch` or `Step`.
        series: Points (x, value) of `training` and `validation`, as far as there are any.
    """

    title: str
    over: str
    series: dict[str, list[tuple[float, float]]]


def read_curves(run: Run) -> list[Curve]:
    """Read the curves of a run worth showing: loss, and AUROC or else accuracy; none where nothing usable is there."""
    try:
        rounds = json.loads(run.history.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    if not isinstance(rounds, list):
        return []
    rounds = [entry for entry in rounds if isinstance(entry, dict)]
    over = "epoch" if len({entry.get("epoch") for entry in rounds}) == len(rounds) else "step"
    curves = []
    for metric, title in _SHOWN:
        series = {
            shown: points
            for part, shown in (("train", "training"), ("validation", "validation"))
            if (points := _points(rounds, over, part, metric))
        }
        if series:
            curves.append(Curve(title=title, over=over.capitalize(), series=series))
    return curves[:_PANELS]


def _points(rounds: list[dict[str, Any]], over: str, part: str, metric: str) -> list[tuple[float, float]]:
    found = []
    for entry in rounds:
        x, values = entry.get(over), entry.get(part)
        value = values.get(metric) if isinstance(values, dict) else None
        if isinstance(x, int | float) and isinstance(value, int | float) and math.isfinite(value):
            found.append((float(x), float(value)))
    return found
