"""The result of a search for shortcuts, and its words."""

from collections.abc import Mapping
from typing import Literal

from pneumo.serving.contracts.models import FrozenModel

LIMIT = 0.8
"""AUROC that the lower end of an interval must exceed for a warning.

On the 5,216 real training images the ten descriptors have 0.919, the file 0.900, border and corners 0.929 and the best
mark 0.863, since their classes come from other years and devices. Where the origin is one, as for bacterial against
viral pneumonia among them, none has more than 0.73; on phantoms none has more than 0.70, and marks 0.79.
"""

MARK_LIMIT = 0.95
"""AUROC of a mark from which the class counts as written on the image.

The best mark has 0.863 on the real training images and 0.836 on PneumoniaMNIST. Drawn on every normal image of 800, at
one place, a square of 4 pixels or more, a box, a frame or a letter of 8 pixels or more has 0.966 or more; and so has a
white square that is elsewhere in each image.
"""

EXPLANATION = (
    "How well numbers without anatomy tell the classes of the data set, by cross-validation over patients. A network "
    "may learn such a shortcut in place of disease, and fail where the shortcut is missing."
)
_NOT_MEASURED = "Not measured, since an older version imported the data set; `pneumo data check` measures it."

_SUBJECTS = {
    "descriptors": "the ten image descriptors alone tell",
    "file": "size, format and dimensions of the original file alone tell",
    "border": "border and corners alone tell",
    "mark": "one area or spot alone tells",
}
_SHOWN = 3


class Shortcut(FrozenModel):
    """One kind of numbers without anatomy, and how well it tells the classes.

    Attributes:
        name: `descriptors`, `file` (size, format and dimensions of the original), `border` or `mark`.
        classes: The classes that it tells; of a mark with more than two, the class that it tells best from the others.
        auroc: Area under the ROC curve by cross-validation over patients; the mean of one-vs-rest areas with more than
            two classes.
        low: Lower end of its 95% interval, for patients drawn at random.
        high: Upper end.
        single: AUROC of each number alone, in the better direction, the best first.
        place: Where the mark is and how it differs.
    """

    name: Literal["descriptors", "file", "border", "mark"]
    classes: list[str]
    auroc: float
    low: float
    high: float
    single: Mapping[str, float] = {}
    place: str | None = None

    @property
    def is_notable(self) -> bool:
        """Whether a person should judge it."""
        return self.low > LIMIT or self.is_written

    @property
    def is_written(self) -> bool:
        """Whether the class counts as written on the image."""
        return self.name == "mark" and self.auroc >= MARK_LIMIT

    def describe(self) -> str:
        """Return a sentence without its full stop."""
        told = " from ".join(self.classes) if len(self.classes) < 3 else f"the {len(self.classes)} classes"
        bounds = f"{self.low:.3f} to {self.high:.3f}"
        text = f"{_SUBJECTS[self.name]} {told} with an AUROC of {self.auroc:.3f} ({bounds})"
        if self.place:
            text += f": {self.place}"
        if self.single:
            text += "; best: " + ", ".join(f"{name} {each:.3f}" for name, each in list(self.single.items())[:_SHOWN])
        return text + "; the class is written on the image" * self.is_written


class ShortcutReport(FrozenModel):
    """How well the classes of a data set are told without anatomy.

    Attributes:
        images: Number of images that were measured.
        patients: Number of their patients.
        reason: Why nothing was measured, None if it was.
        shortcuts: One for each kind of numbers that differ between images.
    """

    images: int
    patients: int
    reason: str | None = None
    shortcuts: list[Shortcut] = []


def describe_shortcuts(report: ShortcutReport | None) -> list[str]:
    """Return sentences about shortcuts, of which there are none in data sets of older versions."""
    if report is None:
        return [_NOT_MEASURED]
    texts = [report.reason] if report.reason else [shortcut.describe() for shortcut in report.shortcuts]
    return [f"{text[0].upper()}{text[1:]}." for text in texts]
