"""What a drift simulation found: `simulation.json`."""

from collections.abc import Iterable

from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.contracts.schemas import NOTICE

HARM = 0.02
"""Fall of the AUROC from which on a model is harmed."""


SURE = 0.95
"""Share of windows that must raise the alarm for it to be sure."""


class Point(FrozenModel):
    """How it goes under one grade of one change.

    Attributes:
        kind: Of change.
        label: Its strength.
        auroc: Of the radiographs; None with more than two classes.
        accuracy: Share of radiographs with the right label.
        alarms: Share of windows that gave at least a warning.
        drifts: Share of windows that gave drift.
        columns: Those that raised most alarms, at most three.
    """

    kind: str
    label: str
    auroc: float | None
    accuracy: float
    alarms: float
    drifts: float
    columns: list[str]


class Simulation(FrozenModel):
    """`simulation.json`.

    Attributes:
        model: Name of the model, with its `version`.
        data: The data set, by name, and its `data_fingerprint`.
        split: The images that were changed.
        images: How many, of how many `patients`.
        windows: Windows for each point.
        size: Images in each.
        unchanged: The images as they are: what is raised there are false alarms.
        points: Each kind of change, mildest first.
        notice: What this is not.
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

    def kinds(self) -> dict[str, list[Point]]:
        """Points by kind of change."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.kind, []).append(point)
        return found

    def harm(self, points: Iterable[Point]) -> Point | None:
        """The mildest of some points at which the AUROC has fallen by `HARM`."""
        before = self.unchanged.auroc
        if before is None:
            return None
        return next((point for point in points if point.auroc is not None and before - point.auroc >= HARM), None)


def find_sure_alarm(points: Iterable[Point]) -> Point | None:
    """The mildest of some points at which the alarm is sure."""
    return next((point for point in points if point.alarms >= SURE), None)
