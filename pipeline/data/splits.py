"""Divide images into train, validation and test so that nothing leaks: by class, patient and identical content."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
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
        if min(values) < 0 or self.train == 0 or abs(sum(values) - 1) > 1e-6:
            raise InputError(
                f"fractions {','.join(f'{value:g}' for value in values)}: give train, validation and test as shares "
                "that add up to 1, such as 0.7,0.15,0.15; train above 0"
            )

    @classmethod
    def parse(cls, text: str) -> "Fractions":
        """Read `0.7,0.15,0.15`; percentages and other weights are scaled to add up to 1.

        Raises:
            InputError: Not three numbers, or negative ones.
        """
        try:
            train, validation, test = (float(part) for part in text.split(","))
        except ValueError:
            raise InputError(f"--fractions {text!r}: give three numbers, such as 0.7,0.15,0.15") from None
        total = train + validation + test
        if not 0 < total < float("inf"):
            raise InputError(f"--fractions {text!r}: give three shares that add up to 1, such as 0.7,0.15,0.15")
        return cls(train / total, validation / total, test / total)

    def share(self, split: Split) -> float:
        """The share of one split."""
        return (self.train, self.validation, self.test)[split]


@dataclass(frozen=True)
class Sample:
    """What deciding about an image's split takes.

    Attributes:
        name: Unique name.
        label: Class.
        patient: Patient.
        sha256: Digest of the original bytes.
    """

    name: str
    label: str
    patient: str
    sha256: str


@dataclass(frozen=True)
class _Group:
    names: tuple[str, ...]
    labels: Counter[str]
    order: str


def group_images(samples: Sequence[Sample]) -> list[tuple[Sample, ...]]:
    """Put together what must stay together: images that share a patient or their bytes, directly or through others.

    Returns:
        Groups, each sorted by name, in the order of their first names.
    """
    sets = connected_components(len(samples), _shared(samples, lambda sample: sample.patient))
    sets = connected_components(len(samples), _shared(samples, lambda sample: sample.sha256), start=sets)
    members: defaultdict[int, list[Sample]] = defaultdict(list)
    for position, root in enumerate(sets):
        members[root].append(samples[position])
    found = [tuple(sorted(group, key=lambda sample: sample.name)) for group in members.values()]
    return sorted(found, key=lambda group: group[0].name)


def connected_components(count: int, pairs: Iterable[tuple[int, int]], start: Sequence[int] | None = None) -> list[int]:
    """Connected components by union-find.

    Args:
        count: Number of nodes.
        pairs: Edges between nodes in [0, count).
        start: Components to begin with.

    Returns:
        A number for each node; equal numbers, equal component.
    """
    parent = list(start) if start is not None else list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in pairs:
        parent[root(one)] = root(other)
    return [root(node) for node in range(count)]


def split_images(samples: Sequence[Sample], fractions: Fractions, *, seed: int) -> dict[str, Split]:
    """Assign every image to a split.

    Groups (`group_images`) stay whole. Each goes, large ones first, where the classes it holds lack most of what they
    should have (Sainte-Lague's rule, by class); a split that then lacks a class though another can spare a group of it
    gets one. The result depends on the seed, names, patients and bytes, not on the order of the samples.

    Returns:
        The split of each name.
    """
    totals = Counter(sample.label for sample in samples)
    active = [split for split in Split if fractions.share(split) > 0]
    filled: dict[Split, Counter[str]] = {split: Counter() for split in active}
    assigned: dict[Split, list[_Group]] = {split: [] for split in active}
    for group in _ordered(samples, seed):
        split = min(active, key=lambda split: _crowding(group, filled[split], totals, fractions.share(split)))
        filled[split] += group.labels
        assigned[split].append(group)
    for label in sorted(totals):
        for split in active:
            if not filled[split][label]:
                _lend(label, split, assigned, filled)
    return {name: split for split, held in assigned.items() for group in held for name in group.names}


def carve(samples: Sequence[Sample], share: float, *, seed: int) -> frozenset[str]:
    """Choose the images of a validation split out of a training split: whole groups, about `share` of each class."""
    divided = split_images(samples, Fractions(1 - share, share, 0.0), seed=seed)
    return frozenset(name for name, split in divided.items() if split is Split.VALIDATION)


def _shared(samples: Sequence[Sample], key: Callable[[Sample], str]) -> Iterable[tuple[int, int]]:
    first: dict[str, int] = {}
    for position, sample in enumerate(samples):
        yield position, first.setdefault(key(sample), position)


def _ordered(samples: Sequence[Sample], seed: int) -> list[_Group]:
    made = [
        _Group(
            names=tuple(sample.name for sample in group),
            labels=Counter(sample.label for sample in group),
            order=hashlib.sha256(f"{seed}:{group[0].name}".encode()).hexdigest(),
        )
        for group in group_images(samples)
    ]
    return sorted(made, key=lambda group: (-len(group.names), group.order))


def _crowding(group: _Group, filled: Counter[str], totals: Counter[str], fraction: float) -> float:
    """How full a split would be with half of the group added: 1 is as full as it should be."""
    weights = {label: count / totals[label] for label, count in group.labels.items()}
    fullness = sum(
        weight * (filled[label] + group.labels[label] / 2) / (fraction * totals[label])
        for label, weight in weights.items()
    )
    return fullness / sum(weights.values())


def _lend(label: str, to: Split, assigned: dict[Split, list[_Group]], filled: dict[Split, Counter[str]]) -> None:
    """Move the smallest group with this class into a split that has none, if its split keeps all of its own classes."""
    candidates = [
        (len(group.names), group.order, split, group)
        for split, held in assigned.items()
        if split is not to
        for group in held
        if label in group.labels
        and (to is Split.TRAIN or all(filled[split][own] > n for own, n in group.labels.items()))
    ]
    if not candidates:
        return
    *_, split, group = min(candidates, key=lambda candidate: candidate[:3])
    assigned[split].remove(group)
    filled[split] -= group.labels
    assigned[to].append(group)
    filled[to] += group.labels
