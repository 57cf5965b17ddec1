"""The rules of an audit: each takes facts about the images and returns findings."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.pipeline.data.audit.appearance import Appearance
from pneumo.pipeline.data.audit.audit_report import Finding, Kind, Severity
from pneumo.pipeline.data.audit.near_search import group_near
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.plausibility import find_alike_patients, find_rare_classes
from pneumo.pipeline.data.shortcuts import ShortcutReport, Traits
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.quantities import format_count

_BLANK_SPREAD = 4.0
_BLACK, _WHITE = 0.5, 0.1
"""Measured on 5,216 real images: spread 20 and more, at most 0.29 of the pixels black and 0.024 white."""
_SHARE_APART = 0.1
_RATIO = 10.0
_SIDE_FACTOR, _ASPECT_FACTOR = 4.0, 2.0

_TEXTS = {
    Kind.IDENTICAL_ACROSS_LABELS: (Severity.DEFECT, "of the same bytes under different labels: one label is wrong"),
    Kind.IDENTICAL_ACROSS_SPLITS: (Severity.DEFECT, "of the same bytes in different splits: the test leaks"),
    Kind.IDENTICAL_WITHIN_SPLIT: (Severity.WARNING, "of the same bytes in one split: they count more than once"),
    Kind.NEAR_ACROSS_LABELS: (Severity.WARNING, "look the same under different labels"),
    Kind.NEAR_ACROSS_SPLITS: (Severity.WARNING, "look the same in different splits, under different patients"),
    Kind.NEAR_WITHIN_SPLIT: (Severity.INFO, "look the same in one split, under different patients"),
    Kind.NEAR_SAME_PATIENT: (Severity.INFO, "of one patient look the same"),
}

ImageFacts = tuple[Split | None, str, str]
"""Split, class and patient of an image."""


@dataclass(frozen=True)
class Record:
    """One image of an audit.

    `split` is None in a source without splits, `sha256` is of the original bytes, and `traits` are those of a sample.
    """

    name: str
    label: str
    split: Split | None
    patient: str
    sha256: str
    look: Appearance
    traits: Traits | None = None

    @property
    def blank(self) -> bool:
        """True if the image shows nothing."""
        return self.look.spread < _BLANK_SPREAD


def find_identical(records: Sequence[Record]) -> Iterator[Finding]:
    """Find byte-identical images across labels, across splits, and inside a split."""
    groups: defaultdict[Kind, list[tuple[str, ...]]] = defaultdict(list)
    for group in _group_by(records, lambda record: record.sha256):
        labels, splits = {record.label for record in group}, {record.split for record in group}
        names = tuple(record.name for record in group)
        if len(labels) > 1:
            groups[Kind.IDENTICAL_ACROSS_LABELS].append(names)
        if len(splits) > 1:
            groups[Kind.IDENTICAL_ACROSS_SPLITS].append(names)
        if len(labels) == len(splits) == 1:
            groups[Kind.IDENTICAL_WITHIN_SPLIT].append(names)
    return (_report_groups(kind, groups[kind]) for kind in _TEXTS if kind in groups)


def find_patients_across_splits(records: Sequence[Record]) -> Iterator[Finding]:
    """Find patients with images in more than one split."""
    groups = [
        tuple(record.name for record in group)
        for group in _group_by(records, lambda record: record.patient)
        if len({record.split for record in group}) > 1
    ]
    if groups:
        summary = f"{format_count(len(groups), 'patient')} with images in more than one split: the test leaks"
        yield Finding(Kind.PATIENT_ACROSS_SPLITS, Severity.DEFECT, summary, tuple(sorted(groups)))


def find_near_identical(records: Sequence[Record], distance: int) -> Iterator[Finding]:
    """Find images that look the same though their bytes differ, by perceptual hash.

    Never a defect: a hash cannot prove that two images are one. Between patients it is a warning if the two have
    different splits or labels. Within one patient it is information.
    """
    seen = [record for record in records if not record.blank]
    groups = group_near([record.look.hash for record in seen], distance)
    number = {id(record): str(group) for record, group in zip(seen, groups.tolist(), strict=True)}
    found: defaultdict[Kind, list[tuple[str, ...]]] = defaultdict(list)
    for group in _group_by(seen, lambda record: number[id(record)]):
        if len({record.sha256 for record in group}) == 1:
            continue
        names = tuple(record.name for record in group)
        if len({record.patient for record in group}) == 1:
            found[Kind.NEAR_SAME_PATIENT].append(names)
            continue
        labels, splits = {record.label for record in group}, {record.split for record in group}
        if len(labels) > 1:
            found[Kind.NEAR_ACROSS_LABELS].append(names)
        if len(splits) > 1:
            found[Kind.NEAR_ACROSS_SPLITS].append(names)
        if len(labels) == len(splits) == 1:
            found[Kind.NEAR_WITHIN_SPLIT].append(names)
    return (_report_groups(kind, found[kind], f" (within {distance} of 256 bits)") for kind in _TEXTS if kind in found)


def check_class_balance(counts: Mapping[str, Mapping[str, int]], images: Sequence[ImageFacts]) -> Iterator[Finding]:
    """Find classes that a split lacks or nearly lacks, that are rare, or whose share differs between splits."""
    labels = sorted({label for classes in counts.values() for label in classes})
    if not labels:
        yield Finding(Kind.CLASS_BALANCE, Severity.WARNING, "no images")
        return
    table = np.array([[classes.get(label, 0) for label in labels] for classes in counts.values()])
    totals = table.sum(axis=0)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    problems = [f"one class only: {labels[0]}"] if len(labels) < 2 else []
    problems += [f"{split} has no {label}" for split in counts for label in labels if not counts[split].get(label)]
    if totals.max() > _RATIO * totals.min():
        problems.append(f"{labels[totals.argmin()]} is rare: {totals.min()} of {totals.sum()} images")
    for label, low, high in zip(labels, shares.min(axis=0), shares.max(axis=0), strict=True):
        if high - low > _SHARE_APART:
            problems.append(f"{label} is {low:.0%} of one split and {high:.0%} of another")
    problems += find_rare_classes(images)
    if problems:
        yield Finding(Kind.CLASS_BALANCE, Severity.WARNING, "; ".join(problems))


def check_patients(images: Sequence[ImageFacts]) -> Iterator[Finding]:
    """Find patients that cannot be patients: one of most images, or one of each class."""
    for sentence in find_alike_patients(images):
        yield Finding(Kind.PATIENTS_ALIKE, Severity.WARNING, sentence)


def report_shortcuts(shortcuts: ShortcutReport) -> Iterator[Finding]:
    """Report numbers without anatomy that tell the class: a defect if it is written on the image."""
    for shortcut in shortcuts.shortcuts:
        if shortcut.is_notable:
            severity = Severity.DEFECT if shortcut.is_written else Severity.WARNING
            yield Finding(Kind(f"shortcut-{shortcut.name}"), severity, shortcut.describe())


def find_odd_sizes(records: Sequence[Record], smallest: int) -> Iterator[Finding]:
    """Find originals with a side below `smallest` pixels, or with a size or aspect unlike that of the others."""
    if not records:
        return
    width, height = np.array([(record.look.width, record.look.height) for record in records], dtype=np.float64).T
    sides, aspects = np.sqrt(width * height), width / height
    side, aspect = float(np.median(sides)), float(np.median(aspects))
    odd = (np.minimum(width, height) < smallest) | (_factor(sides, side) > _SIDE_FACTOR)
    yield from _report_images(
        Kind.ODD_SIZE,
        f"images are below {smallest} px or {_SIDE_FACTOR:g} times off the usual {side:.0f} px",
        (record.name for record, is_odd in zip(records, odd, strict=True) if is_odd),
    )
    yield from _report_images(
        Kind.ODD_ASPECT,
        f"images are twice as wide or as narrow as usual ({aspect:.2f} to 1)",
        (record.name for record, f in zip(records, _factor(aspects, aspect), strict=True) if f > _ASPECT_FACTOR),
    )


def find_blank_or_clipped(records: Sequence[Record]) -> Iterator[Finding]:
    """Find images that show nothing, or have lost much of it to black or white."""
    yield from _report_images(Kind.BLANK, "images are blank", (record.name for record in records if record.blank))
    yield from _report_images(
        Kind.CLIPPED,
        f"images are clipped: over {_BLACK:.0%} of the pixels black or {_WHITE:.0%} white",
        (r.name for r in records if not r.blank and (r.look.black > _BLACK or r.look.white > _WHITE)),
    )


def _report_images(kind: Kind, text: str, names: Iterable[str]) -> Iterator[Finding]:
    if ordered := sorted(names):
        yield Finding(kind, Severity.WARNING, f"{len(ordered)} {text}", tuple((name,) for name in ordered))


def _report_groups(kind: Kind, groups: Sequence[tuple[str, ...]], more: str = "") -> Finding:
    severity, text = _TEXTS[kind]
    count = f"{format_count(len(groups), 'group')} ({format_count(sum(map(len, groups)), 'image')})"
    return Finding(kind, severity, f"{count} {text}{more}", tuple(sorted(groups)))


def _group_by(records: Sequence[Record], key: Callable[[Record], str]) -> list[list[Record]]:
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.name):
        groups[key(record)].append(record)
    return [group for group in groups.values() if len(group) > 1]


def _factor(values: Float64, usual: float) -> Float64:
    return np.maximum(values / usual, usual / values)
