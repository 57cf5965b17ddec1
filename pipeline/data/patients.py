"""Which patient an image shows, as far as its name says."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from pneumo.pipeline.data.sources import Item
from pneumo.serving.contracts.errors import InputError

# How Kermany's names begin, in the second and the third edition, and the patient that follows from it. What stands
# after it counts images and views, or was added to a copy. Whether person12_bacteria and person12_virus are one child
# is unknown, so they count as one, as do BACTERIA-12 and VIRUS-12: the careful reading.
_KERMANY = (
    (re.compile(r"(person\d+)(?![0-9A-Za-z])"), r"\1"),
    (re.compile(r"((?:NORMAL\d*-)?IM-\d+)(?![0-9A-Za-z])"), r"\1"),
    (re.compile(r"(?:BACTERIA|VIRUS)-(\d+)-\d+"), r"PNEUMONIA-\1"),
    (re.compile(r"(NORMAL-\d+)-\d+"), r"\1"),
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
        return item.patient or self._named(item.name) or item.name

    def is_told(self, item: Item) -> bool:
        """Whether a table or the name says the patient, so that the image does not count as its own."""
        return bool(item.patient or self._named(item.name))

    def describe(self, items: Iterable[Item]) -> str:
        """Where the patients of images come from, in words, for `dataset.json`."""
        names = f"names matching {self.pattern.pattern}" if self.pattern else "names (Kermany's patterns)"
        ways = {"a patient column": 0, names: 0, "nothing, each image its own": 0}
        column, by_name, own = ways
        for item in items:
            ways[column if item.patient else by_name if self.is_told(item) else own] += 1
        return "; ".join(f"{way}: {count} images" for way, count in ways.items() if count)

    def _named(self, name: str) -> str | None:
        if self.pattern is None:
            return _kermany(name)
        match = self.pattern.search(name)
        group = "patient" if "patient" in self.pattern.groupindex else 1
        return match[group] if match else None


def _kermany(name: str) -> str | None:
    stem = PurePosixPath(name).stem
    for pattern, patient in _KERMANY:
        if match := pattern.match(stem):
            return match.expand(patient)
    return None
