"""Learning curves from `history.json`."""

from dataclasses import dataclass

from pneumo.pipeline.runs.history import read_history
from pneumo.pipeline.runs.run import Run

_SHOWN = (("loss", "Loss"), ("auroc", "AUROC"), ("accuracy", "Accuracy"))
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
    rounds = read_history(run)
    over = "epoch" if len({entry.get("epoch") for entry in rounds}) == len(rounds) else "step"
    curves = []
    for metric, title in _SHOWN:
        series = {
            name: points
            for part, name in (("train", "training"), ("validation", "validation"))
            if (points := [(float(each[over]), each[part][metric]) for each in rounds if metric in each[part]])
        }
        if series:
            curves.append(Curve(title=title, over=over.capitalize(), series=series))
    return curves[:_PANELS]
