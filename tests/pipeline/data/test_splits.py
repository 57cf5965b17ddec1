from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.splits import Fractions, Sample, carve_validation, group_images, split_images
from pneumo.serving.contracts.errors import InputError


@st.composite
def samples(draw: st.DrawFn) -> list[Sample]:
    count = draw(st.integers(1, 60))
    number = st.integers(0, draw(st.integers(1, 60)))
    return [
        Sample(f"image{i}", draw(st.sampled_from("abc")), f"patient{draw(number)}", f"digest{draw(number)}")
        for i in range(count)
    ]


def singles(*counts: tuple[str, int]) -> list[Sample]:
    names = [(label, i) for label, count in counts for i in range(count)]
    return [Sample(f"{label}{i}", label, f"p{label}{i}", f"d{label}{i}") for label, i in names]


@given(samples(), st.integers(0, 5))
def test_every_image_gets_one_split_and_nothing_shared_crosses(some: list[Sample], seed: int) -> None:
    splits = split_images(some, Fractions(), seed=seed)
    assert set(splits) == {sample.name for sample in some}
    for key in ("patient", "sha256"):
        seen: dict[str, Split] = {}
        for sample in some:
            assert seen.setdefault(getattr(sample, key), splits[sample.name]) is splits[sample.name]


@given(samples(), st.randoms(use_true_random=False))
def test_the_result_does_not_depend_on_the_order_of_the_files(some: list[Sample], random: object) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split_images(shuffled, Fractions(), seed=3) == split_images(some, Fractions(), seed=3)


@given(st.integers(3, 400), st.integers(3, 400), st.integers(0, 9))
def test_each_class_keeps_its_share_in_every_split_when_groups_are_small(a: int, b: int, seed: int) -> None:
    some = singles(("a", a), ("b", b))
    fractions = Fractions(0.6, 0.25, 0.15)
    splits = split_images(some, fractions, seed=seed)
    for label, total in (("a", a), ("b", b)):
        counts = Counter(splits[sample.name] for sample in some if sample.label == label)
        for split in Split:
            assert abs(counts[split] - fractions.share(split) * total) <= 2
            assert counts[split] > 0


@given(samples())
def test_every_class_reaches_the_training_split(some: list[Sample]) -> None:
    splits = split_images(some, Fractions(0.2, 0.4, 0.4), seed=0)
    whole = group_images(some)
    if all(len({sample.label for sample in group}) == 1 for group in whole):
        assert {sample.label for sample in some if splits[sample.name] is Split.TRAIN} == {s.label for s in some}


def test_another_seed_gives_another_division() -> None:
    some = singles(("a", 50), ("b", 50))
    assert split_images(some, Fractions(), seed=0) != split_images(some, Fractions(), seed=1)


def test_large_patients_are_spread_over_the_splits() -> None:
    some = [Sample(f"{p}-{i}", "a", f"p{p}", f"{p}-{i}") for p in range(200) for i in range(1 + 9 * (p % 4 == 0))]
    splits = split_images(some, Fractions(), seed=0)
    large = Counter(splits[sample.name] for sample in some if int(sample.patient[1:]) % 4 == 0)
    assert large[Split.VALIDATION] == pytest.approx(0.15 * 500, abs=20)
    assert large[Split.TEST] == pytest.approx(0.15 * 500, abs=20)


def test_images_are_chained_over_patients_and_bytes() -> None:
    chain = [
        Sample("1", "a", "x", "same"),
        Sample("2", "a", "y", "same"),
        Sample("3", "a", "y", "other"),
        Sample("4", "a", "z", "alone"),
    ]
    assert [[sample.name for sample in group] for group in group_images(chain)] == [["1", "2", "3"], ["4"]]


def test_a_split_of_share_zero_stays_empty() -> None:
    splits = split_images(singles(("a", 20), ("b", 20)), Fractions(0.8, 0.2, 0.0), seed=0)
    assert set(splits.values()) == {Split.TRAIN, Split.VALIDATION}


def test_carving_takes_whole_patients() -> None:
    some = [Sample(f"{p}-{i}", "ab"[p % 2], f"p{p}", f"{p}-{i}") for p in range(40) for i in range(3)]
    chosen = carve_validation(some, 0.2, seed=0)
    assert len(chosen) == pytest.approx(24, abs=3)
    assert {name.split("-")[0] for name in chosen}.isdisjoint(
        {s.name.split("-")[0] for s in some if s.name not in chosen}
    )


def test_fractions_are_scaled_to_one() -> None:
    assert Fractions.parse("70,20,10") == Fractions(0.7, 0.2, 0.1)


@pytest.mark.parametrize("text", ["", "1", "a,b,c", "0.5,0.5", "0,0.5,0.5", "-1,1,1", "nan,1,1", "inf,1,1", "0,0,0"])
def test_fractions_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="fractions"):
        Fractions.parse(text)
