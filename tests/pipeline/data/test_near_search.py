import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pneumo.pipeline.data.audit import near_search
from pneumo.pipeline.data.audit.near_search import group_near, suggest_pairs, to_words
from tests.support.near_pairs import find_near_pairs


def count_pairs(hashes: list[bytes], distance: int) -> list[list[int]]:
    numbers = [int.from_bytes(one) for one in hashes]
    return [
        [i, j]
        for i in range(len(numbers))
        for j in range(i + 1, len(numbers))
        if (numbers[i] ^ numbers[j]).bit_count() <= distance
    ]


def connect(count: int, pairs: list[list[int]]) -> set[frozenset[int]]:
    groups = [{number} for number in range(count)]
    for one, other in pairs:
        if groups[one] is not groups[other]:
            groups[one] |= groups[other]
            for member in groups[other]:
                groups[member] = groups[one]
    return {frozenset(group) for group in groups}


def partition(groups: NDArray[np.intp]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(groups == group).tolist()) for group in set(groups.tolist())}


@st.composite
def families(draw: st.DrawFn) -> list[bytes]:
    """Hashes with copies in which some bits differ, as hashes of real images have them; some bits never differ."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    fixed = random.random(256) < draw(st.floats(0, 0.6))
    hashes = []
    for _ in range(draw(st.integers(0, 12))):
        bits = random.integers(0, 2, 256) & ~fixed
        for _ in range(draw(st.integers(1, 6))):
            copy = bits.copy()
            copy[random.choice(256, random.integers(0, 45), replace=False)] ^= 1
            hashes.append(np.packbits(copy.astype(np.uint8)).tobytes())
    return hashes


@settings(max_examples=25)
@given(hashes=families(), distance=st.integers(0, 40), parts=st.sampled_from([None, 1, 14, 15, 16, 20, 32]))
def test_pairs_and_groups_are_those_of_a_plain_count(hashes: list[bytes], distance: int, parts: int | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if parts and distance // parts <= 1:  # what would take minutes in a few parts is never chosen
            patch.setattr(near_search, "_choose_parts", lambda count, distance: parts)
        patch.setattr(near_search, "_PAIRS", 7)
        expected = count_pairs(hashes, distance)
        assert find_near_pairs(hashes, distance).tolist() == expected
        assert partition(group_near(hashes, distance)) == connect(len(hashes), expected)


@settings(max_examples=25)
@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40), st.integers(0, 255))
def test_pairs_of_any_hashes_at_any_distance_are_those_of_a_plain_count(hashes: list[bytes], distance: int) -> None:
    assert find_near_pairs(hashes, distance).tolist() == count_pairs(hashes, distance)


def test_many_hashes_are_not_compared_in_pairs() -> None:
    random = np.random.default_rng(0)
    hashes = [random.bytes(32) for _ in range(20_000)]
    hashes[590] = hashes[3]
    compared = sum(pairs.shape[1] for pairs in suggest_pairs(to_words(hashes), 28))
    assert compared < 20_000**2 / 2 / 100
    assert find_near_pairs(hashes, 28).tolist() == [[3, 590]]


def test_ten_thousand_images_that_are_alike_are_one_group() -> None:
    random = np.random.default_rng(1)
    bits = random.integers(0, 2, 256)
    copies = np.repeat(bits[None], 3000, axis=0)
    for row in copies[1:]:
        row[random.choice(256, 10, replace=False)] ^= 1
    hashes = [b"\7" * 32] * 10_000 + [bytes(row) for row in np.packbits(copies.astype(np.uint8), axis=1)]
    groups = group_near(hashes, 28)
    assert len(set(groups[:10_000].tolist())) == len(set(groups[10_000:].tolist())) == 1
    assert groups[0] != groups[-1]
