"""Which patient an image shows, as far as its name says."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.data.sources import Item
from serving.errors import InputError

# Kermany's names. Whether person12_bacteria and person12_virus are one child is unknown, so they count as one: the
# careful reading. The numbers after the patient count images and views; there can be two of them.
_KERMANY = (
    re.compile(r"(?P<patient>person\d+)_(?:bacteria|virus)(?:_\d+)+"),
    re.compile(r"(?P<patient>(?:NORMAL\d*-)?IM-\d+)(?:-\d+)+"),
)


@dataclass(frozen=True)
class PatientRule:
    """How patients are told from names.

    Attributes:
        pattern: Regular expression searched in an image's name; none for Kermany's names.
    """

    pattern: re.Pattern[str] | None = None

    @classmethod
    def parse(cls, text: str | None) -> "PatientRule":
        """Make a rule of what a user typed: one group, or one named `patient`.

        Raises:
            InputError: No regular expression, or not exactly one group to take.
        """
        if text is None:
            return cls()
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise InputError(f"--patient-regex {text!r}: not a regular expression: {error}") from None
        if "patient" not in pattern.groupindex and pattern.groups != 1:
            raise InputError(
                f"--patient-regex {text!r}: has {pattern.groups} groups; put parentheses around the patient, "
                "or name it: (?P<patient>...)"
            )
        return cls(pattern)

    def patient(self, item: Item) -> str:
        """The patient: as a table states it, else as the name says, else the image's own name."""
        if item.patient:
            return item.patient
        if self.pattern is None:
            return _kermany(item.name) or item.name
        match = self.pattern.search(item.name)
        group = "patient" if "patient" in self.pattern.groupindex else 1
        return (match and match[group]) or item.name

    def describe(self) -> str:
        """In words, for `dataset.json`."""
        return f"names matching {self.pattern.pattern}" if self.pattern else "names (Kermany's patterns)"


def _kermany(name: str) -> str | None:
    stem = PurePosixPath(name).stem
    for pattern in _KERMANY:
        if match := pattern.fullmatch(stem):
            return match["patient"]
    return None
