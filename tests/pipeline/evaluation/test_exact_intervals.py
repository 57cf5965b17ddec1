import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from pneumo.pipeline.evaluation.bootstrap import estimate_metrics
from pneumo.pipeline.evaluation.cases import Cases, Scores
from pneumo.pipeline.evaluation.exact_intervals import auroc_bounds, count_pairs, precision_bound, share_bounds
from pneumo.pipeline.evaluation.results import Bootstrap, Estimate
from pneumo.pipeline.evaluation.subgroups import measure_subgroups
from tests.support.cases import make_decisions

SETTINGS = Bootstrap(resamples=50)


def cases(
    truth: list[int],
    answer: list[int],
    patient: list[int] | None = None,
    *,
    classes: int = 2,
    kind: np.ndarray | None = None,
) -> Cases:
    """Make images with confident answers, one per patient unless patients are given."""
    names = [f"{number}.png" for number in range(len(truth))]
    patients = np.array([f"p{number}" for number in patient or range(len(truth))], dtype=np.str_)
    decisions = make_decisions(threshold=0.5 if classes == 2 else None)
    logits = 4.0 * np.eye(classes)[answer]
    scores = Scores(
        names, np.full(len(truth), "test"), patients, np.array(truth), logits, {} if kind is None else {"kind": kind}
    )
    return Cases.make(scores, decisions, 1 if classes == 2 else None)


def measured(held: Cases) -> dict[str, Estimate]:
    return estimate_metrics(held, [f"c{number}" for number in range(held.classes)], SETTINGS)[0]


@given(st.integers(1, 500), st.data())
def test_bounds_of_a_share_are_those_of_the_exact_binomial_test(patients: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, patients))
    expected = binomtest(hits, patients).proportion_ci(0.95, method="exact")
    assert share_bounds(hits / patients, patients, 0.95) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_a_perfect_rate_has_an_interval_by_its_patients() -> None:
    found = measured(cases([0] * 22 + [1] * 40, [0] * 22 + [1] * 40))
    assert found["specificity"].low == pytest.approx(0.025 ** (1 / 22))
    assert found["specificity"].high == 1.0
    assert found["sensitivity"].low == pytest.approx(0.025 ** (1 / 40))
    assert found["accuracy"].low == pytest.approx(0.025 ** (1 / 62))
    assert found["coverage:c0"].low == pytest.approx(0.025 ** (1 / 22))
    assert found["uncertain"].value == 0
    assert found["uncertain"].high == pytest.approx(1 - 0.025 ** (1 / 62))
    assert found["balanced_accuracy"].low == pytest.approx((0.025 ** (1 / 22) + 0.025 ** (1 / 40)) / 2)
    assert found["auroc"].low == pytest.approx(0.025 ** (1 / 22))
    assert found["average_precision"].low == pytest.approx(precision_bound(0.025 ** (1 / 22), 40 / 62))
    assert found["f1"].low < found["sensitivity"].low + 1e-9


def test_images_of_one_patient_count_once() -> None:
    truth, patient = [0] * 30 + [1] * 30, [number // 3 for number in range(60)]
    found = measured(cases(truth, truth, patient))
    assert found["specificity"].low == pytest.approx(0.025 ** (1 / 10))
    assert found["auroc"].low == pytest.approx(0.025 ** (1 / 10))


def test_a_rate_that_resamples_move_keeps_its_percentiles() -> None:
    found = measured(cases([0] * 30 + [1] * 30, [0] * 29 + [1] * 31))
    assert found["specificity"].low != pytest.approx(share_bounds(29 / 30, 30, 0.95)[0])
    assert found["sensitivity"].low == pytest.approx(0.025 ** (1 / 30))


def test_an_answer_that_is_always_the_same_has_width_too() -> None:
    found = measured(cases([0] * 20 + [1] * 30, [1] * 50))
    assert (found["sensitivity"].value, found["specificity"].value, found["balanced_accuracy"].value) == (1, 0, 0.5)
    assert found["balanced_accuracy"].low == pytest.approx(0.025 ** (1 / 30) / 2)
    assert found["balanced_accuracy"].high == pytest.approx(1 - 0.025 ** (1 / 20) / 2)


def test_several_classes_have_widths() -> None:
    truth = [0] * 10 + [1] * 20 + [2] * 30
    found = measured(cases(truth, truth, classes=3))
    assert found["sensitivity:c0"].low == pytest.approx(0.025 ** (1 / 10))
    assert found["auroc"].low == pytest.approx(np.mean([0.025 ** (1 / n) for n in (10, 20, 30)]))
    assert found["balanced_accuracy"].low == pytest.approx(np.mean([0.025 ** (1 / n) for n in (10, 20, 30)]))


def test_counts_that_never_move_have_the_bounds_of_their_share() -> None:
    _, confusion = estimate_metrics(cases([0] * 20 + [1] * 30, [0] * 20 + [1] * 30), ["a", "b"], SETTINGS)
    assert confusion.counts == [[20, 0], [0, 30]]
    assert confusion.low is not None
    assert confusion.high is not None
    assert confusion.low[0][1] == 0
    assert confusion.high[0][1] == pytest.approx(20 * (1 - 0.025 ** (1 / 20)), abs=1e-5)
    assert confusion.low[0][0] < 20  # the size of a row moves by itself


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 10_000))
def test_the_bound_of_a_perfect_auroc_is_missed_no_more_often_than_said(more: int, fewer: int, seed: int) -> None:
    """At the bound a perfect ranking of the samples must not be likelier than the tail, however scores are spread."""
    count = min(more, fewer)
    bound = auroc_bounds(1.0, count, 0.95)
    assert bound is not None
    low = bound[0]
    random = np.random.default_rng(seed)
    wrong = random.random((4000, fewer)) > low  # the hardest case: a share of one class lies beyond all of the other
    assert (~wrong[:, :count].any(axis=1)).mean() < 0.025 + 6 * np.sqrt(0.025 / 4000)
    assert auroc_bounds(0.0, count, 0.95) == pytest.approx((0, 1 - low))
    assert auroc_bounds(0.9, count, 0.95) is None


def test_pairs_hold_no_patient_twice() -> None:
    truth = np.array([True, True, True, False, False])
    assert count_pairs(truth, np.arange(5)) == 2
    assert count_pairs(truth, np.array([0, 0, 0, 1, 2])) == 1
    assert count_pairs(truth, np.array([0, 1, 2, 0, 1])) == 1  # three patients make one pair
    assert count_pairs(truth, np.zeros(5, dtype=np.int64)) == 0


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_no_average_precision_lies_below_the_bound_of_its_auroc(seed: int, prevalence: float) -> None:
    random = np.random.default_rng(seed)
    truth = np.concatenate([[True, False], random.random(3000) < prevalence])
    scores = random.normal(0, random.uniform(0.2, 3), 3002) + truth * random.uniform(0, 3)
    scores = np.where(random.random(3002) < 0.1, np.sort(scores)[::-1], scores)
    bound = precision_bound(float(roc_auc_score(truth, scores)), float(truth.mean()))
    assert bound <= average_precision_score(truth, scores) + 0.01  # a sample, not the whole


def test_a_subgroup_that_is_all_right_and_the_worst_group_have_widths() -> None:
    truth = [0] * 25 + [1] * 60
    kind = np.array([""] * 25 + ["virus"] * 20 + ["bacteria"] * 40)
    found, worst = measure_subgroups(cases(truth, truth, kind=kind), ["a", "b"], SETTINGS)
    virus = next(part for part in found if part.value == "virus")
    assert virus.metrics["sensitivity"].low == pytest.approx(0.025 ** (1 / 20))
    assert virus.metrics["auroc"].low == pytest.approx(0.025 ** (1 / 20))
    assert worst is not None
    assert worst.auroc.value == 1
    assert worst.auroc.low == pytest.approx(0.025 ** (1 / 20))
    assert worst.auroc.high == 1


def test_the_exact_bounds_are_those_of_a_level() -> None:
    held = cases([0] * 20 + [1] * 20, [0] * 20 + [1] * 20)
    wide = estimate_metrics(held, ["a", "b"], SETTINGS.model_copy(update={"level": 0.99}))[0]["accuracy"]
    assert wide.low == pytest.approx(0.005 ** (1 / 40))
    lone = dataclasses.replace(held, patient=np.zeros(40, dtype=np.int64), patients=1)
    assert measured(lone)["accuracy"].low is None
