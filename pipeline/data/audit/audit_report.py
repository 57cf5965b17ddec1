"""The report of an audit."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from pydantic import JsonValue

from pneumo.pipeline.data.shortcuts import ShortcutReport


class Severity(StrEnum):
    """How bad a finding is: a defect spoils every metric from the data, a person should judge a warning."""

    DEFECT = "defect"
    WARNING = "warning"
    INFO = "info"


class Kind(StrEnum):
    """The kinds of findings."""

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
    PATIENTS_ALIKE = "patients-alike"
    SHORTCUT_MARK = "shortcut-mark"
    SHORTCUT_DESCRIPTORS = "shortcut-descriptors"
    SHORTCUT_FILE = "shortcut-file"
    SHORTCUT_BORDER = "shortcut-border"
    LABEL_ERRORS = "label-errors"


@dataclass(frozen=True)
class Finding:
    """All findings of one kind; `members` are groups of image names, groups of one if each image counts alone."""

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


@dataclass(frozen=True)
class AuditReport:
    """The findings about one data set or source, defects first.

    Attributes:
        images: Number of images, unreadable ones included.
        counts: Images by split name and class; a source without splits has one, `all`.
        patients: Patients by split name.
        shortcuts: How well the classes are told without anatomy.
    """

    source: str
    images: int
    counts: Mapping[str, Mapping[str, int]]
    patients: Mapping[str, int]
    findings: tuple[Finding, ...]
    shortcuts: ShortcutReport

    @property
    def defects(self) -> tuple[Finding, ...]:
        """The findings that must be fixed before the data is used."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.DEFECT)

    def to_dict(self) -> dict[str, JsonValue]:
        """Return the report as JSON values."""
        document = asdict(self)
        findings = document.pop("findings")
        for finding, entry in zip(self.findings, findings, strict=True):
            del entry["members"]
            entry |= {"count": finding.count, "files": finding.files, "members": list(map(list, finding.members))}
        shortcuts = self.shortcuts.model_dump(mode="json")
        return document | {"passed": not self.defects, "shortcuts": shortcuts, "findings": findings}
