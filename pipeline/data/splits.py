"""Divide images into train, validation and test without leaks: by class, patient and identical bytes."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pneumo.pipeline.data.manifest import Split
from pneumo.serving.contracts.errors import InputError


@dataclass(frozen=True)
class Fractions:
    """Shares of the images that the splits aim at; they add up to 1."""

    train: float = 0.7
    validation: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        values = (self.train, self.validation, self.test)
        if not (min(values) >= 0 < self.train and abs(sum(values) - 1) <= 1e-6):
            raise InputError(
                f"fractions {','.join(f'{value:g}' for value in values)}: give train, validation and test as shares "
                "that add up to 1, such as 0.7,0.15,0.15; train above 0"
            )

    @classmethod
    def parse(cls, text: str) -> "Fractions":
        """Parse `0.7,0.15,0.15`; percentages and other weights are scaled to add up to 1.

        Raises:
            InputError: Not three numbers, or negative ones.
        """
        try:
            train, validation, test = (float(part) for part in text.split(","))
            total = train + validation + test
            return cls(train / total, validation / total, test / total)
        except (ValueError, ZeroDivisionError):
            raise InputError(f"--fractions {text!r}: give three numbers, such as 0.7,0.15,0.15") from None

    def share(self, split: Split) -> float:
        """Return the share of one split."""
        return (self.train, self.validation, self.test)[split]


@dataclass(frozen=True)
class Sample:
    """The facts about an image that decide its split: unique name, class, patient, digest of the original bytes."""

    name: str
    label: str
    patient: str
    sha256: str


@dataclass(frozen=True)
class _Group:
    names: tuple[str, ...]
    labels: Counter[str]
    order: str


def connect_groups[T](items: Sequence[T], pairs: Iterable[tuple[int, int]]) -> list[list[T]]:
    """Return the connected components of items, by union-find; a pair of positions connects two items."""
    parent = list(range(len(items)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in pairs:
        parent[root(one)] = root(other)
    components: defaultdict[int, list[T]] = defaultdict(list)
    for position, item in enumerate(items):
        components[root(position)].append(item)
    return list(components.values())


def group_images(samples: Sequence[Sample]) -> list[tuple[Sample, ...]]:
    """Group images that share a patient or their bytes, directly or through others.

    Returns:
        Groups, each sorted by name, in the order of their first names.
    """

    def shared() -> Iterator[tuple[int, int]]:
        first: dict[tuple[str, str], int] = {}
        for position, sample in enumerate(samples):
            for key in (("patient", sample.patient), ("bytes", sample.sha256)):
                yield position, first.setdefault(key, position)

    groups = connect_groups(samples, shared())
    return sorted(
        (tuple(sorted(group, key=lambda sample: sample.name)) for group in groups), key=lambda group: group[0].name
    )


def split_images(samples: Sequence[Sample], fractions: Fractions, *, seed: int) -> dict[str, Split]:
    """Assign every image to a split, as `divide_images` does; training has images of each class before the others."""
    shares = {split: share for split in Split if (share := fractions.share(split)) > 0}
    return divide_images(samples, shares, seed=seed, first=Split.TRAIN)


def divide_images[Part: int](
    samples: Sequence[Sample], shares: Mapping[Part, float], *, seed: int, first: Part | None = None
) -> dict[str, Part]:
    """Assign every image to a part, by shares above 0 that add up to 1.

    Groups (`group_images`) stay whole. Large groups are assigned first. Each goes to the part that lacks most of the
    group's classes (Sainte-Lague's rule, by class). A part that then has no image of a class gets a group of it if
    another part can spare one; the part `first` gets it even if none can. The result depends on the seed, names,
    patients and bytes, not on the order of samples.

    Returns:
        The part of each name.
    """
    totals = Counter(sample.label for sample in samples)
    filled: dict[Part, Counter[str]] = {part: Counter() for part in shares}
    assigned: dict[Part, list[_Group]] = {part: [] for part in shares}
    for group in _ordered_groups(samples, seed):
        part = min(shares, key=lambda part: _fullness(group, filled[part], totals, shares[part]))
        filled[part] += group.labels
        assigned[part].append(group)
    for label in sorted(totals):
        for part in shares:
            if not filled[part][label]:
                _move_group(label, part, assigned, filled, spared=part != first)
    return {name: part for part, groups in assigned.items() for group in groups for name in group.names}


def carve_validation(samples: Sequence[Sample], share: float, *, seed: int) -> frozenset[str]:
    """Choose the images of a validation split from a training split: whole groups, about `share` of each class."""
    divided = split_images(samples, Fractions(1 - share, share, 0.0), seed=seed)
    return frozenset(name for name, split in divided.items() if split is Split.VALIDATION)


def _ordered_groups(samples: Sequence[Sample], seed: int) -> list[_Group]:
    groups = [
        _Group(
            names=tuple(sample.name for sample in group),
            labels=Counter(sample.label for sample in group),
            order=hashlib.sha256(f"{seed}:{group[0].name}".encode()).hexdigest(),
        )
        for group in group_images(samples)
    ]
    return sorted(groups, key=lambda group: (-len(group.names), group.order))


def _fullness(group: _Group, filled: Counter[str], totals: Counter[str], fraction: float) -> float:
    """Return how full a split is with half of the group added; 1 is exactly its share."""
    weights = {label: count / totals[label] for label, count in group.labels.items()}
    fullness = sum(
        weight * (filled[label] + group.labels[label] / 2) / (fraction * totals[label])
        for label, weight in weights.items()
    )
    return fullness / sum(weights.values())


def _move_group[Part: int](
    label: str, to: Part, assigned: dict[Part, list[_Group]], filled: dict[Part, Counter[str]], *, spared: bool
) -> None:
    """Move the smallest group with this class into a part; with `spared` only if its own part keeps its classes."""
    candidates = [
        (len(group.names), group.order, part, group)
        for part, groups in assigned.items()
        if part != to
        for group in groups
        if label in group.labels and not (spared and any(filled[part][own] <= n for own, n in group.labels.items()))
    ]
    if not candidates:
        return
    *_, part, group = min(candidates, key=lambda candidate: candidate[:3])
    assigned[part].remove(group)
    filled[part] -= group.labels
    assigned[to].append(group)
    filled[to] += group.labels
