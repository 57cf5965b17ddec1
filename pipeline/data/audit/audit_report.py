"""What an audit found."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How bad a finding is: a defect spoils every figure made with the data, a warning is for a person to judge."""

    DEFECT = "defect"
    WARNING = "warning"
    INFO = "info"


class Kind(StrEnum):
    """What was found."""

    UNREADABLE = "unreadable"
    MISSING = "missing"
    CHANGED = "changed"
    STRAY = "stray"
    LEFT_OUT = "left-out"
    IDENTICAL_ACROSS_LABELS = "identical-across-labels"
    IDENTICAL_ACROSS_SPLITS = "identical-across-splits"
    IDENTICAL_WITHIN_SPLIT = "identical-within-split"
    PATIENT_ACROSS_SPLITS = "patient-across-splits"
    NEAR_ACROSS_LABELS = "near-identical-across-labels"
    NEAR_ACROSS_SPLITS = "near-identical-across-splits"
    NEAR_WITHIN_SPLIT = "near-identical-within-split"
    NEAR_SAME_PATIENT = "near-identical-same-patient"
    CLASS_BALANCE = "class-balance"
    ODD_SIZE = "odd-size"
    ODD_ASPECT = "odd-aspect"
    BLANK = "blank"
    CLIPPED = "clipped"


@dataclass(frozen=True)
class Finding:
    """One kind of finding.

    Attributes:
        kind: What.
        severity: How bad.
        summary: In a sentence.
        members: Groups of image names that belong together; a group of one where each image stands for itself.
    """

    kind: Kind
    severity: Severity
    summary: str
    members: tuple[tuple[str, ...], ...] = ()

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.members)

    @property
    def files(self) -> int:
        """Number of images in all groups."""
        return sum(map(len, self.members))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind.value,
            "severity": self.severity.value,
            "summary": self.summary,
            "count": self.count,
            "files": self.files,
            "members": [list(group) for group in self.members],
        }


@dataclass(frozen=True)
class AuditReport:
    """The findings about one data set or source, defects first.

    Attributes:
        source: What was audited.
        images: Number of images, unreadable ones included.
        counts: Images by split name and class; a source without splits has one, `all`.
        patients: Patients by split name.
        findings: What was found.
    """

    source: str
    images: int
    counts: Mapping[str, Mapping[str, int]]
    patients: Mapping[str, int]
    findings: tuple[Finding, ...]

    @classmethod
    def build(
        cls,
        source: str,
        images: int,
        counts: Mapping[str, Mapping[str, int]],
        patients: Mapping[str, int],
        findings: Iterable[Finding],
    ) -> "AuditReport":
        """A report with its findings in order."""
        kinds, severities = list(Kind), list(Severity)
        ordered = sorted(findings, key=lambda found: (severities.index(found.severity), kinds.index(found.kind)))
        return cls(source, images, counts, patients, tuple(ordered))

    @property
    def defects(self) -> tuple[Finding, ...]:
        """What must be mended before the data is used."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.DEFECT)

    def of_kind(self, kind: Kind) -> Finding | None:
        """The finding of one kind, none if there is none."""
        return next((finding for finding in self.findings if finding.kind is kind), None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "source": self.source,
            "images": self.images,
            "counts": {split: dict(classes) for split, classes in self.counts.items()},
            "patients": dict(self.patients),
            "passed": not self.defects,
            "findings": [finding.to_dict() for finding in self.findings],
        }
