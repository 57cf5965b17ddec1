from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.pipeline.data.folds import apply_fold
from pneumo.pipeline.data.manifest import Dataset, DatasetInfo, Row, Split
from pneumo.pipeline.runs.run import Fold
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.types import Fit

CLASSES = ["NORMAL", "PNEUMONIA"]
PINNED = "200200020200021002220000121110020200002022000202002200002000220200102021"
"""Splits of a fold, by which finished runs are evaluated and exported."""


def make_dataset(patients: int, *, images: int = 1, shared: bool = False) -> Dataset:
    """Patients with some images each, every third of them positive, every fifth in the test split."""
    rows = tuple(
        Row(
            image=f"{patient}-{number}.png",
            label=CLASSES[patient % 3 == 0],
            split=Split.TEST if patient % 5 == 4 else Split(patient % 2),
            patient=f"p{patient}",
            source="",
            sha256=f"d{patient % 7 if shared else patient}-{number}",
            width=9,
            height=9,
        )
        for patient in range(patients)
        for number in range(images)
    )
    info = DatasetInfo(
        classes=CLASSES,
        counts={},
        patients={},
        size=9,
        fit=Fit.SQUASH,
        split={},
        source="",
        skipped=[],
        fingerprint="f",
    )
    return Dataset(Path("data"), rows, info, {})


def folds_of(folds: int, seed: int = 0) -> list[Fold]:
    return [Fold(number=number, folds=folds, seed=seed) for number in range(1, folds + 1)]


def assert_apart(parts: list[set[str]]) -> None:
    assert sum(map(len, parts)) == len(set.union(*parts))


@settings(max_examples=30)
@given(st.integers(60, 120), st.integers(1, 3), st.integers(2, 5), st.integers(0, 3))
def test_each_image_outside_the_test_split_is_held_out_once_with_its_patient(
    patients: int, images: int, folds: int, seed: int
) -> None:
    dataset = make_dataset(patients, images=images)
    held_out: Counter[str] = Counter()
    for fold in folds_of(folds, seed):
        divided = apply_fold(dataset, fold)
        held_out.update(row.image for row in divided.select(Split.TEST))
        assert_apart([{row.patient for row in divided.select(split)} for split in Split])
    assert held_out == Counter(row.image for row in dataset.rows if row.split is not Split.TEST)


def test_folds_keep_identical_bytes_together() -> None:
    dataset = make_dataset(200, shared=True)
    with pytest.raises(InputError, match="give fewer"):  # they are seven groups
        apply_fold(dataset, Fold(number=8, folds=8, seed=0))
    for fold in folds_of(2):
        divided = apply_fold(dataset, fold)
        assert_apart([{row.sha256 for row in divided.select(split)} for split in Split])


def test_folds_and_their_validation_keep_the_share_of_each_class() -> None:
    dataset = make_dataset(300)
    total = Counter(row.label for row in dataset.rows if row.split is not Split.TEST)
    for fold in folds_of(5):
        counts = apply_fold(dataset, fold).info.counts
        for label in CLASSES:
            assert counts["test"][label] == pytest.approx(total[label] / 5, abs=1)
            assert counts["validation"][label] == pytest.approx(0.15 * 0.8 * total[label], abs=1)


def test_folds_depend_on_the_seed_alone() -> None:
    dataset = make_dataset(90)
    turned = replace(dataset, rows=dataset.rows[::-1])
    fold = Fold(number=2, folds=3, seed=1)
    splits = {row.image: row.split for row in apply_fold(dataset, fold).rows}
    assert {row.image: row.split for row in apply_fold(turned, fold).rows} == splits
    assert {row.image: row.split for row in apply_fold(dataset, fold.model_copy(update={"seed": 2})).rows} != splits
    digest = "".join(str(int(splits[row.image])) for row in dataset.rows if row.image in splits)
    assert digest == PINNED, "a finished run would get other splits than it was trained with"


def test_an_ensemble_keeps_the_test_split_and_holds_out_its_first_fold() -> None:
    dataset = make_dataset(90)
    fold = folds_of(3)[0]
    whole, divided = apply_fold(dataset, fold, ensemble=True), apply_fold(dataset, fold)
    assert whole.select(Split.TEST) == dataset.select(Split.TEST)
    assert {row.image for row in whole.select(Split.VALIDATION)} == {row.image for row in divided.select(Split.TEST)}
    assert len(whole.rows) == len(dataset.rows)


def test_too_few_patients_for_so_many_folds_are_refused_by_class() -> None:
    dataset = make_dataset(30)
    with pytest.raises(InputError, match=r"fold \d of 9 would have no PNEUMONIA image for .*8 patients; give fewer"):
        [apply_fold(dataset, fold) for fold in folds_of(9)]
