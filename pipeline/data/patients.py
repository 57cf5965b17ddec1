"""The patient of an image, from a table or from the image's name."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from pneumo.pipeline.data.sources import Item
from pneumo.serving.contracts.errors import InputError

# Beginnings of the names in the second and third edition of Kermany's set, with the patient that each one gives. The
# rest of a name counts images and views, or was added to a copy. Nobody knows if person12_bacteria and person12_virus
# are one child. They count as one, as do BACTERIA-12 and VIRUS-12, so that no child can be in two splits.
_KERMANY = (
    (re.compile(r"(person\d+)(?![0-9A-Za-z])"), r"\1"),
    (re.compile(r"((?:NORMAL\d*-)?IM-\d+)(?![0-9A-Za-z])"), r"\1"),
    (re.compile(r"(?:BACTERIA|VIRUS)-(\d+)-\d+"), r"PNEUMONIA-\1"),
    (re.compile(r"(NORMAL-\d+)-\d+"), r"\1"),
)


@dataclass(frozen=True)
class PatientRule:
    """How the patient is found in a name.

    Attributes:
        pattern: Regular expression that is searched in an image's name; None for Kermany's names.
    """

    pattern: re.Pattern[str] | None = None

    @classmethod
    def parse(cls, text: str | None) -> "PatientRule":
        """Parse a regular expression with one group, or one named `patient`.

        Raises:
            InputError: It is no regular expression, or it does not have exactly one group to take.
        """
        if text is None:
            return cls()
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise InputError(f"--patient-regex {text!r}: not a regular expression: {error}; correct it") from None
        if "patient" not in pattern.groupindex and pattern.groups != 1:
            raise InputError(
                f"--patient-regex {text!r}: has {pattern.groups} groups; put parentheses around the patient, "
                "or name it: (?P<patient>...)"
            )
        return cls(pattern)

    def find(self, item: Item) -> str | None:
        """Return the patient from the table or folders, else from the name, else None."""
        if item.patient:
            return item.patient
        if self.pattern is not None:
            match = self.pattern.search(item.name)
            return match["patient" if "patient" in self.pattern.groupindex else 1] if match else None
        stem = PurePosixPath(item.name).stem
        return next((match.expand(patient) for regex, patient in _KERMANY if (match := regex.match(stem))), None)

    def patient(self, item: Item) -> str:
        """Return the patient; the image's own name if nothing gives one."""
        return self.find(item) or item.name

    def describe(self, items: Iterable[Item]) -> str:
        """Return for `dataset.json` how many images got their patient from which place."""
        names = f"names matching {self.pattern.pattern}" if self.pattern else "names (Kermany's patterns)"
        places = ("a patient column or folder", names, "nothing, each image its own")
        counts = Counter(places[0 if item.patient else 1 if self.find(item) else 2] for item in items)
        return "; ".join(f"{place}: {counts[place]} images" for place in places if counts[place])
