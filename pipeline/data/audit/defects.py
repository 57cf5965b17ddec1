"""The rules of an audit: each takes what is known about the images and returns what it found."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pneumo.pipeline.data.audit.appearance import Appearance, find_near_pairs
from pneumo.pipeline.data.audit.audit_report import Finding, Kind, Severity
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.splits import connected_components

_BLANK_SPREAD = 4.0
_BLACK, _WHITE = 0.5, 0.1
"""Measured on 5,216 real images: spread 20 and more, at most 0.29 of the pixels black and 0.024 white."""
_SHARE_APART = 0.1
_RATIO = 10.0
_SIDE_FACTOR, _ASPECT_FACTOR = 4.0, 2.0


@dataclass(frozen=True)
class Record:
    """One image of an audit.

    Attributes:
        name: Its name in the source.
        label: Class.
        split: Split, or none in a source without splits.
        patient: Patient, or the image's own name.
        sha256: Digest of the original bytes.
        look: What it looks like.
    """

    name: str
    label: str
    split: Split | None
    patient: str
    sha256: str
    look: Appearance


def split_name(split: Split | None) -> str:
    """How a report calls a split."""
    return "all" if split is None else split.name.lower()


def find_identical(records: Sequence[Record]) -> Iterator[Finding]:
    """Byte-identical images across labels, across splits, and inside a split."""
    by_kind: defaultdict[Kind, list[tuple[str, ...]]] = defaultdict(list)
    for group in _grouped(records, lambda record: record.sha256):
        names = tuple(record.name for record in group)
        if len({record.label for record in group}) > 1:
            by_kind[Kind.IDENTICAL_ACROSS_LABELS].append(names)
        if len({record.split for record in group}) > 1:
            by_kind[Kind.IDENTICAL_ACROSS_SPLITS].append(names)
        if len({(record.label, record.split) for record in group}) == 1:
            by_kind[Kind.IDENTICAL_WITHIN_SPLIT].append(names)
    texts = {
        Kind.IDENTICAL_ACROSS_LABELS: (Severity.DEFECT, "of the same bytes under different labels: one label is wrong"),
        Kind.IDENTICAL_ACROSS_SPLITS: (Severity.DEFECT, "of the same bytes in different splits: the test leaks"),
        Kind.IDENTICAL_WITHIN_SPLIT: (Severity.WARNING, "of the same bytes in one split: they count twice"),
    }
    for kind, (severity, text) in texts.items():
        if groups := by_kind[kind]:
            yield Finding(kind, severity, f"{_groups(groups)} {text}", tuple(sorted(groups)))


def find_patients_across_splits(records: Sequence[Record]) -> Iterator[Finding]:
    """Patients with images in more than one split."""
    groups = [
        tuple(record.name for record in group)
        for group in _grouped(records, lambda record: record.patient)
        if len({record.split for record in group}) > 1
    ]
    if groups:
        summary = f"{len(groups)} patients have images in more than one split: the test leaks"
        yield Finding(Kind.PATIENT_ACROSS_SPLITS, Severity.DEFECT, summary, tuple(sorted(groups)))


def find_near_identical(records: Sequence[Record], distance: int) -> Iterator[Finding]:
    """Images that look the same though their bytes differ, by perceptual hash.

    Never a defect: a hash cannot prove that two films are one. Between patients it is a warning where the two stand in
    different splits or under different labels; of one patient it is only said.
    """
    seen = [record for record in records if not _is_blank(record.look)]
    kinds: defaultdict[Kind, list[tuple[int, int]]] = defaultdict(list)
    for one, other in find_near_pairs([record.look.hash for record in seen], distance).tolist():
        a, b = seen[one], seen[other]
        if a.sha256 == b.sha256:
            continue
        if a.patient == b.patient:
            kinds[Kind.NEAR_SAME_PATIENT].append((one, other))
            continue
        if a.label != b.label:
            kinds[Kind.NEAR_ACROSS_LABELS].append((one, other))
        if a.split is not b.split:
            kinds[Kind.NEAR_ACROSS_SPLITS].append((one, other))
        elif a.label == b.label:
            kinds[Kind.NEAR_WITHIN_SPLIT].append((one, other))
    texts = {
        Kind.NEAR_ACROSS_LABELS: (Severity.WARNING, "look the same under different labels"),
        Kind.NEAR_ACROSS_SPLITS: (Severity.WARNING, "look the same in different splits, under different patients"),
        Kind.NEAR_WITHIN_SPLIT: (Severity.INFO, "look the same in one split, under different patients"),
        Kind.NEAR_SAME_PATIENT: (Severity.INFO, "of one patient look the same"),
    }
    for kind, (severity, text) in texts.items():
        if pairs := kinds[kind]:
            groups = _components(seen, pairs)
            yield Finding(kind, severity, f"{_groups(groups)} {text} (within {distance} of 256 bits)", groups)


def check_class_balance(counts: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    """Classes that a split lacks, that are rare, or whose share differs between splits."""
    labels = sorted({label for classes in counts.values() for label in classes})
    problems: list[str] = []
    if len(labels) < 2:
        problems.append(f"one class only: {labels[0]}" if labels else "no images")
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for split, classes in counts.items():
        total = sum(classes.values())
        problems += [f"{split} has no {label}" for label in labels if not classes.get(label)]
        for label in labels:
            shares[label].append(classes.get(label, 0) / max(total, 1))
    totals = {label: sum(classes.get(label, 0) for classes in counts.values()) for label in labels}
    if totals and max(totals.values()) > _RATIO * min(totals.values()):
        rare = min(totals, key=lambda label: totals[label])
        problems.append(f"{rare} is rare: {totals[rare]} of {sum(totals.values())} images")
    for label, values in shares.items():
        if max(values) - min(values) > _SHARE_APART:
            problems.append(f"{label} is {min(values):.0%} of one split and {max(values):.0%} of another")
    if problems:
        yield Finding(Kind.CLASS_BALANCE, Severity.WARNING, "; ".join(problems))


def find_odd_sizes(records: Sequence[Record], smallest: int) -> Iterator[Finding]:
    """Originals that are tiny, or unlike the others in size or aspect.

    Args:
        records: The images.
        smallest: Originals with a side below this, in pixels, are tiny.
    """
    if not records:
        return
    side = median(math.sqrt(record.look.width * record.look.height) for record in records)
    aspect = median(record.look.width / record.look.height for record in records)
    sizes, aspects = [], []
    for record in records:
        width, height = record.look.width, record.look.height
        unlike = _apart(math.sqrt(width * height), side) > _SIDE_FACTOR
        if min(width, height) < smallest or unlike:
            sizes.append(record.name)
        if _apart(width / height, aspect) > _ASPECT_FACTOR:
            aspects.append(record.name)
    if sizes:
        text = f"{len(sizes)} images are below {smallest} px or {_SIDE_FACTOR:g} times off the usual {side:.0f} px"
        yield _each(Kind.ODD_SIZE, Severity.WARNING, text, sizes)
    if aspects:
        text = f"{len(aspects)} images are twice as wide or as narrow as usual ({aspect:.2f} to 1)"
        yield _each(Kind.ODD_ASPECT, Severity.WARNING, text, aspects)


def find_blank_or_clipped(records: Sequence[Record]) -> Iterator[Finding]:
    """Images that show nothing, or have lost much of it to black or white."""
    blank = [record.name for record in records if _is_blank(record.look)]
    clipped = [
        record.name
        for record in records
        if not _is_blank(record.look) and (record.look.black > _BLACK or record.look.white > _WHITE)
    ]
    if blank:
        yield _each(Kind.BLANK, Severity.WARNING, f"{len(blank)} images are blank", blank)
    if clipped:
        text = f"{len(clipped)} images are clipped: over {_BLACK:.0%} of the pixels black or {_WHITE:.0%} white"
        yield _each(Kind.CLIPPED, Severity.WARNING, text, clipped)


def _each(kind: Kind, severity: Severity, summary: str, names: Iterable[str]) -> Finding:
    return Finding(kind, severity, summary, tuple((name,) for name in sorted(names)))


def _groups(groups: Sequence[Sequence[str]]) -> str:
    return f"{len(groups)} group{'s' * (len(groups) > 1)} ({sum(map(len, groups))} images)"


def _grouped(records: Sequence[Record], key: Callable[[Record], str]) -> list[list[Record]]:
    held: defaultdict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.name):
        held[key(record)].append(record)
    return [group for group in held.values() if len(group) > 1]


def _components(records: Sequence[Record], pairs: Sequence[tuple[int, int]]) -> tuple[tuple[str, ...], ...]:
    parts = connected_components(len(records), pairs)
    sizes = Counter(parts)
    held: defaultdict[int, list[str]] = defaultdict(list)
    for record, part in zip(records, parts, strict=True):
        if sizes[part] > 1:
            held[part].append(record.name)
    return tuple(sorted(tuple(sorted(names)) for names in held.values()))


def _is_blank(look: Appearance) -> bool:
    return look.spread < _BLANK_SPREAD


def _apart(value: float, usual: float) -> float:
    return max(value / usual, usual / value)
