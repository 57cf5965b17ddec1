"""The result of a drift simulation: `simulation.json`."""

from collections.abc import Iterable

from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.contracts.schemas import NOTICE

HARM = 0.02
"""Fall of the AUROC that counts as harm."""

SURE = 0.95
"""Share of windows with an alarm that counts as sure."""


class Point(FrozenModel):
    """Performance and alarms at one grade of a change; `label` is its strength.

    `auroc` is None with more than two classes. `alarms` is the share of windows with a warning or drift, `drifts` that
    with drift, `columns` are those with the most alarms, at most three.
    """

    kind: str
    label: str
    auroc: float | None
    accuracy: float
    alarms: float
    drifts: float
    columns: list[str]


class Simulation(FrozenModel):
    """A drift simulation of one model on one split, in windows of `size` images.

    Alarms of the `unchanged` images are false alarms. Points are ordered by kind of change, mildest first.
    """

    schema_version: int = 1
    model: str
    version: str
    data: str
    data_fingerprint: str
    split: str
    images: int
    patients: int
    windows: int
    size: int
    unchanged: Point
    points: list[Point]
    notice: str = NOTICE

    def group_by_kind(self) -> dict[str, list[Point]]:
        """Return the points of each kind of change."""
        return {each.kind: [point for point in self.points if point.kind == each.kind] for each in self.points}

    def find_harm(self, points: Iterable[Point]) -> Point | None:
        """Find the mildest point at which the AUROC has fallen by `HARM`."""
        before = self.unchanged.auroc or 0.0  # None if the points have none
        return next((point for point in points if point.auroc is not None and before - point.auroc >= HARM), None)


def find_sure_alarm(points: Iterable[Point]) -> Point | None:
    """Find the mildest point at which the alarm is sure."""
    return next((point for point in points if point.alarms >= SURE), None)
