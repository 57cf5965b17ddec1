"""Search for hashes that differ in few bits without comparing all pairs: exact multi-index hashing.

Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", 2012. A hash is cut into parts. Two
hashes that differ in few bits differ in fewer still in one of the parts, so that a table of the values of each part
finds them. Bits that are nearly the same in all hashes tell little; each part gets its share of them.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

_BITS = 256
_PAIRS = 2**18
"""Pairs that are compared at once: 40 MB."""
_WIDEST = 24
"""Most bits of a part: its table takes 64 MB."""
_LOOKUP = 0.25
"""Time to look a hash up, in that of comparing two."""
_VALUE = 0.2
"""Time to count one value of a part's table, in that of comparing two."""
_CORRELATION = 4.4
"""Pairs to compare, times those that independent bits would give; measured on 5,216 real images with 15 parts."""

Ints = NDArray[np.intp]
Words = NDArray[np.uint64]


def group_near(hashes: Sequence[bytes], distance: int) -> Ints:
    """Return the number of each hash's group, [N]: the connected components of pairs within `distance` bits.

    Time and memory grow with the number of different hashes, and with the pairs of them that the tables suggest; pairs
    that are in one group already are not compared.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not hashes:
        return np.empty(0, dtype=np.intp)
    words, member = np.unique(to_words(hashes), axis=0, return_inverse=True)
    group = np.arange(len(words))
    for pairs in suggest_pairs(words, distance):
        apart = pairs[:, group[pairs[0]] != group[pairs[1]]]
        near = group[apart[:, is_near(words, apart, distance)]]
        if near.size:
            links = coo_array((np.ones(near.shape[1], dtype=np.bool_), (near[0], near[1])), shape=(len(words),) * 2)
            group = connected_components(links, directed=False)[1].astype(np.intp)[group]
    return np.asarray(group[member.ravel()])


def to_words(hashes: Sequence[bytes]) -> Words:
    """Return hashes of 32 bytes as words, [N, 4]."""
    return np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(-1, _BITS // 64)


def is_near(words: Words, pairs: Ints, distance: int) -> NDArray[np.bool_]:
    """Return which pairs, [2, P], differ in at most `distance` bits."""
    return np.asarray(np.bitwise_count(words[pairs[0]] ^ words[pairs[1]]).sum(axis=1) <= distance)


def suggest_pairs(words: Words, distance: int) -> Iterator[Ints]:
    """Yield blocks of pairs, [2, some], that hold every pair within `distance` bits at least once."""
    bits = np.unpackbits(words.view(np.uint8).reshape(len(words), _BITS // 8), axis=1)
    parts = _choose_parts(len(words), distance)
    by_balance = np.argsort(np.abs(bits.mean(axis=0) - 0.5), kind="stable") if len(words) else np.arange(_BITS)
    for number in range(parts):
        own = by_balance[number::parts][: _WIDEST if parts > 1 else 0]
        value = bits[:, own].astype(np.int64) @ (1 << np.arange(len(own)))
        order = np.argsort(value, kind="stable")
        value = value[order]
        start = np.concatenate([[0], np.cumsum(np.bincount(value, minlength=1 << len(own)))]).astype(np.int32)
        for flips in (
            f for size in range(_radius(number, parts, distance) + 1) for f in combinations(range(len(own)), size)
        ):
            # Of the two hashes of a pair the one whose first flipped bit is 0 looks for the other.
            rows = np.flatnonzero((value >> flips[0]) & 1 == 0) if flips else np.arange(len(value))
            other = value[rows] ^ sum(1 << flip for flip in flips)
            first = start[other] if flips else rows + 1
            yield from (order[pairs] for pairs in _expand(rows, first, start[other + 1] - first))


def _expand(rows: Ints, first: Ints, counts: Ints) -> Iterator[Ints]:
    """Yield blocks of pairs, [2, some], of each row with its `counts` rows from `first` on."""
    some = counts > 0
    rows, first, counts = rows[some], first[some].astype(np.intp), counts[some].astype(np.intp)
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(rows):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + _PAIRS, side="right")))
        own = counts[begin:end]
        offsets = np.arange(ends[end - 1] - before) - np.repeat(ends[begin:end] - own - before, own)
        yield np.stack([np.repeat(rows[begin:end], own), np.repeat(first[begin:end], own) + offsets])
        begin = end


def _radius(number: int, parts: int, distance: int) -> int:
    """Return in how many bits a part is searched: if all parts differ in more, the hashes do in over `distance`."""
    whole, extra = divmod(distance, parts)
    return whole if number <= extra else whole - 1


def _choose_parts(count: int, distance: int) -> int:
    """Return the number of parts that takes least time for so many hashes; 1 compares all pairs."""

    def cost(parts: int) -> float:
        if parts == 1:
            return count * count / 2
        width = _BITS / parts
        lookups: int = sum(
            comb(round(width), size) for number in range(parts) for size in range(_radius(number, parts, distance) + 1)
        )
        per_hash: float = lookups * (_LOOKUP + _CORRELATION * count / 2 / 2.0**width)
        tables: float = _VALUE * parts * 2.0 ** min(width, _WIDEST)
        return per_hash * count + tables

    best: int = min([1, *range(-(-_BITS // _WIDEST), 33)], key=cost)
    return best
