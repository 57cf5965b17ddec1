import functools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.drift.column_tests import BEYOND, ColumnTests, adjust_p_values
from pneumo.serving.drift.samples import LEAST, NUMBERS, Sample
from pneumo.serving.drift.verdict import Verdict, find_worst
from pneumo.serving.drift.wording import write_summary

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def tests_of_reference(reference):
    return ColumnTests(reference, positive_class="PNEUMONIA")


@pytest.fixture
def said(tests_of_reference):
    def say(window):
        verdict, columns = tests_of_reference.compare(window)
        top = [column for column in columns if column.words][:3]
        return verdict, [column.name for column in top], write_summary(verdict, top, len(window))

    return say


@given(P_VALUES)
def test_a_correction_never_makes_a_column_stand_out_more_and_keeps_their_order(p_values):
    adjusted = adjust_p_values(p_values)
    assert all(0 <= before <= after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)
    assert min(adjusted) == pytest.approx(min(1, len(p_values) * min(p_values)))


def test_the_correction_is_holms():
    assert adjust_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("size", [30, 100, 500])
def test_windows_of_the_reference_raise_few_alarms(tests_of_reference, drawn, size):
    windows = [drawn(size, seed) for seed in range(1, 61)]
    alarms = sum(tests_of_reference.compare(window)[0] is not Verdict.OK for window in windows)
    assert alarms <= 7  # 3 are expected, more than 7 come once in a hundred times


@pytest.mark.parametrize("sites", [5, 20])
def test_windows_of_many_sites_raise_few_alarms_together(tests_of_reference, drawn, sites):
    def judge(window):
        parts = [window.take(np.arange(25) + 25 * site) for site in range(sites)]
        return find_worst(verdict for verdict, _ in tests_of_reference.compare_all([window, *parts]))

    alarms = sum(judge(drawn(25 * sites, seed)) is not Verdict.OK for seed in range(1, 21))
    assert alarms <= 4  # 1 is expected, more than 4 come less than once in two hundred times


def test_one_site_of_twenty_that_changes_is_named(tests_of_reference, drawn):
    parts = [drawn(25, seed) for seed in range(1, 21)]
    parts[7].numbers["mean"][:] += 15
    whole = functools.reduce(Sample.join, parts)
    _, *verdicts = (verdict for verdict, _ in tests_of_reference.compare_all([whole, *parts]))
    assert verdicts == [Verdict.DRIFT if number == 7 else Verdict.OK for number in range(20)]


def test_windows_with_several_images_of_a_patient_raise_few_alarms_where_patients_are_known(drawn):
    def of_patients(sample, seed):
        """Each patient's four images are nearly alike."""
        rows = np.repeat(np.arange(0, len(sample), 4), 4)
        alike = sample.take(rows)
        noise = np.random.default_rng(seed).normal(0, 1, (len(NUMBERS), len(rows)))
        numbers = {name: alike.numbers[name] + noise[place] for place, name in enumerate(NUMBERS)}
        numbers |= {name: alike.numbers[name] for name in ("aspect", "width", "height")}
        return replace(alike, numbers=numbers, groups=rows)

    reference = of_patients(drawn(600, 0), 0)
    windows = [of_patients(drawn(100, seed), seed) for seed in range(1, 61)]

    def alarms(known):
        judging = ColumnTests(known, positive_class="PNEUMONIA", draws=1000)
        return sum(judging.compare(window)[0] is not Verdict.OK for window in windows)

    assert alarms(reference) <= 7
    assert alarms(replace(reference, groups=None)) >= 20


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in ("aspect", "width", "height")])
def test_a_column_that_moves_by_a_deviation_is_drift_and_comes_first(said, drawn, name):
    window = drawn(100, 7)
    moved = window.numbers[name] + (0.35 if name == "probability" else 10)
    verdict, top, words = said(replace(window, numbers={**window.numbers, name: moved}))
    assert verdict is Verdict.DRIFT
    assert top[0] == name
    assert words.endswith("?")


def test_a_column_that_only_spreads_out_is_noticed(said, drawn):
    window = drawn(200, 7)
    wider = 100 + 2 * (window.numbers["contrast"] - 100)
    verdict, top, _ = said(replace(window, numbers={**window.numbers, "contrast": wider}))
    assert (verdict, top) == (Verdict.DRIFT, ["contrast"])


def test_images_that_are_darker_and_flatter_are_told_so_with_a_cause(said, drawn):
    window = drawn(100, 7)
    changed = {"mean": window.numbers["mean"] - 15, "contrast": window.numbers["contrast"] - 10}
    _, top, words = said(replace(window, numbers={**window.numbers, **changed}))
    assert set(top[:2]) == {"mean", "contrast"}
    assert words == "images are darker and lower in contrast than the reference: exposure, or a new detector?"


def test_images_of_other_sizes_are_a_warning_but_no_drift(said, drawn):
    window = drawn(100, 7, constant=())
    assert said(window)[0] is Verdict.WARNING


def test_one_image_of_another_size_is_nothing(said, drawn):
    window = drawn(100, 7)
    width = window.numbers["width"].copy()
    width[3] = 512.0
    assert said(replace(window, numbers={**window.numbers, "width": width}))[0] is Verdict.OK


def test_a_kind_of_answer_that_the_reference_never_gave_is_nothing_when_it_is_given_once(reference, drawn):
    never = replace(reference, shares={**reference.shares, "uncertain": np.zeros(len(reference), dtype=bool)})
    window = drawn(100, 7)
    once = np.arange(100) == 5
    tests = ColumnTests(never, positive_class="P")
    _, columns = tests.compare(replace(window, shares={**window.shares, "uncertain": once}))
    assert next(column for column in columns if column.name == "uncertain").p_value > 0.1


def test_a_few_out_of_distribution_images_are_noticed(said, drawn):
    window = drawn(100, 7)
    score = window.numbers["outlier_score"].copy()
    score[:4] = 500.0
    verdict, top, words = said(replace(window, numbers={**window.numbers, "outlier_score": score}))
    assert verdict is Verdict.DRIFT
    assert top == [BEYOND]
    assert words.startswith("some images are more out-of-distribution than every reference image")


def test_embeddings_that_differ_where_no_single_number_does_are_noticed(said, drawn):
    window = drawn(100, 7)
    verdict, top, words = said(replace(window, embedding=window.embedding + 0.6))
    assert (verdict, top) == (Verdict.DRIFT, ["embedding"])
    assert "embeddings differ from the reference" in words


def test_more_of_a_class_is_told_as_such(said, drawn):
    window = drawn(200, 7)
    probability = 0.5 + window.numbers["probability"] / 2
    changed = replace(
        window,
        numbers={**window.numbers, "probability": probability},
        shares={**window.shares, "decision": probability >= 0.4},
    )
    _, top, words = said(changed)
    assert set(top) == {"probability", "decision"}
    assert "PNEUMONIA is predicted more often" in words


def test_too_few_images_say_nothing(reference, drawn):
    verdict, columns = ColumnTests(reference, positive_class="PNEUMONIA").compare(drawn(LEAST - 1, 7))
    assert (verdict, columns) == (Verdict.TOO_FEW, [])
    assert write_summary(verdict, [], LEAST - 1) == f"{LEAST - 1} images: too few to say anything"


def test_columns_that_are_constant_in_both_are_left_out(reference, drawn):
    _, columns = ColumnTests(reference, positive_class="PNEUMONIA", draws=100).compare(drawn(50, 7))
    assert not {"aspect", "width", "height"} & {column.name for column in columns}


def test_the_same_window_is_judged_the_same_again(reference, drawn):
    tests = (ColumnTests(reference, positive_class="PNEUMONIA", draws=300) for _ in range(2))
    first, second = (each.compare(drawn(60, 3)) for each in tests)
    assert first == second


def test_a_small_reference_can_be_judged_by(drawn):
    judging = ColumnTests(drawn(LEAST, 0), positive_class="PNEUMONIA")
    assert judging.compare(drawn(100, 1))[0] is Verdict.OK
    far = drawn(100, 1)
    far.numbers["mean"][:] += 100
    assert judging.compare(far)[0] is Verdict.DRIFT
