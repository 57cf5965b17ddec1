import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from pneumo.pipeline.evaluation.classification_metrics import point_values
from pneumo.serving.drift.performance import (
    LabelledAnswers,
    ProbabilitySums,
    bin_reliability,
    compute_calibration_error,
    estimate_auroc,
    estimate_share,
)
from tests.support.cases import make_binary_cases
from tests.support.drift_samples import sum_probabilities

NAMES = np.array(["NORMAL", "PNEUMONIA"])


def labelled(count: int, seed: int, *, threshold: float = 0.4, days: int = 10) -> LabelledAnswers:
    """Answers of a calibrated model to images of which most are clear."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.4, 0.5, count)
    truth = rng.uniform(size=count) < probability
    return LabelledAnswers(
        np.sort(rng.integers(0, days, count)),
        NAMES[truth.astype(int)],
        NAMES[(probability >= threshold).astype(int)],
        probability,
    )


@given(st.integers(1, 5000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_interval_of_a_share_is_wilsons_and_holds_the_share(hits_of):
    hits, count = hits_of
    found = estimate_share(hits, count)
    expected = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_share_of_nothing_is_none():
    assert estimate_share(0, 0) is None


SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=2, max_size=40)


@given(SCORED)
def test_the_area_is_that_of_scikit_learn_and_lies_in_its_interval(pairs):
    positive = np.array([each for each, _ in pairs])
    scores = np.array([score / 12 for _, score in pairs])
    found = estimate_auroc(positive, scores)
    if positive.all() or not positive.any():
        assert found is None
        return
    assert found.value == pytest.approx(metrics.roc_auc_score(positive, scores))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0.01  # never sure of an area, whatever the ties


@given(SCORED)
def test_scores_the_other_way_round_give_the_mirrored_interval(pairs):
    positive = np.array([each for each, _ in pairs])
    scores = np.array([score / 12 for _, score in pairs])
    found, mirrored = estimate_auroc(positive, scores), estimate_auroc(positive, -scores)
    if found is not None:
        assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)


def test_the_variance_of_an_area_is_delongs():
    rng = np.random.default_rng(3)
    ones, zeros = rng.normal(1, 1, 30), rng.normal(0, 1, 50)
    found = estimate_auroc(np.arange(80) < 30, np.concatenate([ones, zeros]))
    kernel = (ones[:, None] > zeros[None, :]).astype(float)
    variance = kernel.mean(axis=1).var(ddof=1) / 30 + kernel.mean(axis=0).var(ddof=1) / 50
    width = math.log(found.high / (1 - found.high)) - math.log(found.low / (1 - found.low))
    assert width == pytest.approx(2 * 1.96 * math.sqrt(variance) / (found.value * (1 - found.value)), rel=1e-4)


def test_the_interval_of_an_area_holds_the_truth_in_95_of_100_cases():
    rng = np.random.default_rng(0)
    truth = 0.9213504  # of two normal distributions two deviations apart, P(X > Y) = Phi(2 / sqrt 2)
    held = 0
    for _ in range(400):
        positive = rng.uniform(size=120) < 0.4
        found = estimate_auroc(positive, rng.normal(2.0 * positive, 1.0))
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 400 <= 0.985


def test_few_images_without_a_mistake_leave_an_area_open():
    found = estimate_auroc(np.arange(20) < 5, np.arange(20)[::-1].astype(float))
    assert found.value == 1
    assert found.low == pytest.approx(0.025 ** (1 / 5))


def test_what_is_measured_is_what_scikit_learn_measures():
    cases = labelled(500, 1)
    found = cases.measure("PNEUMONIA")
    truth, said = cases.truth == "PNEUMONIA", cases.predicted == "PNEUMONIA"
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(truth, said))
    assert found.sensitivity.value == pytest.approx(metrics.recall_score(truth, said))
    assert found.specificity.value == pytest.approx(metrics.recall_score(truth, said, pos_label=False))
    assert found.auroc.value == pytest.approx(metrics.roc_auc_score(truth, cases.probability))
    assert found.sensitivity.images == truth.sum()


def test_with_several_classes_only_accuracy_is_told():
    cases = labelled(50, 1)
    found = cases.measure(None)
    assert found.accuracy is not None
    assert (found.sensitivity, found.specificity, found.auroc) == (None, None, None)


def test_without_images_of_a_class_its_share_is_none_and_so_is_the_area():
    cases = labelled(200, 2)
    found = cases.take(cases.truth == "NORMAL").measure("PNEUMONIA")
    assert (found.sensitivity, found.auroc) == (None, None)
    assert found.specificity is not None


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(1, 60))
def test_spans_hold_every_image_once_in_order_and_enough_of_them(days, least):
    day = np.sort(np.array(days))
    names = np.full(len(day), "NORMAL")
    cases = LabelledAnswers(day, names, names, np.linspace(0, 1, len(day)))
    spans = list(cases.split_by_day(least))
    assert np.concatenate([span.probability for span in spans]).tolist() == cases.probability.tolist()
    assert all(set(one.day).isdisjoint(other.day) for one, other in itertools.pairwise(spans))
    assert len(spans) == 1 or all(len(span) >= least for span in spans)
    if least == 1:
        assert len(spans) == len(set(days))


def test_the_reliability_table_is_that_of_scikit_learn():
    claimed, came_true = labelled(2000, 4).outcomes("PNEUMONIA")
    table = bin_reliability(claimed, came_true)
    observed, mean = calibration_curve(came_true, claimed, n_bins=10)
    assert [each.observed.value for each in table] == pytest.approx(list(observed))
    assert [each.mean for each in table] == pytest.approx(list(mean))
    assert sum(each.observed.images for each in table) == 2000


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_the_calibration_error_is_that_of_the_bundle(pairs):
    claimed = np.array([each for each, _ in pairs])
    came_true = np.array([each for _, each in pairs])
    of_bundle = point_values(make_binary_cases(claimed, came_true), ["NORMAL", "PNEUMONIA"])["ece"][0]
    assert compute_calibration_error(claimed, came_true) == pytest.approx(of_bundle)


def test_with_several_classes_a_claim_is_about_the_class_that_was_said():
    names = np.array(["A", "B", "C"])
    cases = LabelledAnswers(np.zeros(3, dtype=int), names, np.array(["A", "C", "C"]), np.array([0.9, 0.5, 0.6]))
    assert cases.outcomes(None)[1].tolist() == [True, False, True]


def of(probability, threshold=0.4):
    return sum_probabilities(probability, probability >= threshold).estimate(two_classes=True)


def realised(probability, truth, threshold=0.4):
    said = probability >= threshold
    return {
        "accuracy": (said == truth).mean(),
        "sensitivity": said[truth].mean(),
        "specificity": (~said[~truth]).mean(),
    }


def test_calibrated_probabilities_tell_the_performance_without_labels():
    rng = np.random.default_rng(0)
    held = dict.fromkeys(("accuracy", "sensitivity", "specificity"), 0)
    away: dict[str, list[Any]] = {name: [] for name in held}
    for _ in range(400):
        probability = rng.beta(0.5, 0.6, 150)
        found = of(probability)
        for name, value in realised(probability, rng.uniform(size=150) < probability).items():
            estimate = getattr(found, name)
            held[name] += estimate.low <= value <= estimate.high
            away[name].append(value - estimate.value)
    for name in held:
        assert 0.93 <= held[name] / 400 <= 1, name
        assert abs(np.mean(away[name])) < 0.006, name


def test_the_interval_of_a_ratio_is_as_wide_as_chance_makes_it():
    rng = np.random.default_rng(0)
    probability = np.concatenate([rng.uniform(0.9, 1, 60), rng.uniform(0, 0.3, 100)])  # sure of one side alone
    truths = rng.uniform(size=(4000, 160)) < probability
    found = of(probability)
    for name in ("sensitivity", "specificity"):
        estimate = getattr(found, name)
        spread = np.std([realised(probability, truth)[name] for truth in truths])
        least = {"sensitivity": probability.sum(), "specificity": (1 - probability).sum()}[name]
        assert estimate.value - estimate.low - 0.5 / least == pytest.approx(1.96 * spread, rel=0.08), name


def test_probabilities_that_are_too_sure_are_believed_all_the_same():
    rng = np.random.default_rng(0)
    probability = rng.beta(0.5, 0.6, 2000)
    duller = 0.25 + probability / 2  # how often it comes true
    truth = rng.uniform(size=2000) < duller
    assert of(probability).accuracy.low > realised(probability, truth)["accuracy"] + 0.05


@given(st.lists(st.floats(0, 1), min_size=1, max_size=80), st.floats(0, 1))
def test_an_estimate_lies_in_its_interval_and_within_what_can_be(probabilities, threshold):
    found = of(np.array(probabilities), threshold)
    for each in (found.accuracy, found.sensitivity, found.specificity):
        assert each is None or 0 <= each.low <= each.value <= each.high <= 1
    assert found.auroc is None


def test_an_estimate_is_the_expectation_over_all_truths():
    probability = np.array([0.9, 0.8, 0.3, 0.1])
    weights = [
        (math.prod(p if bit else 1 - p for p, bit in zip(probability, bits, strict=True)), np.array(bits, dtype=bool))
        for bits in np.ndindex(2, 2, 2, 2)
    ]
    expected = sum(weight * ((probability >= 0.4) == truth).mean() for weight, truth in weights)
    assert of(probability).accuracy.value == pytest.approx(expected)


def test_few_expected_images_of_a_class_leave_its_share_out():
    found = of(np.full(100, 0.01))
    assert found.sensitivity is None
    assert found.specificity.value == 1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60), st.integers(1, 59))
def test_claims_of_parts_add_up_to_those_of_the_whole(probabilities, cut):
    values = np.array(probabilities)
    parts = [sum_probabilities(part, part >= 0.4) for part in (values[:cut], values[cut:])]
    whole = sum_probabilities(values, values >= 0.4)
    assert vars(ProbabilitySums.total(parts)) == pytest.approx(vars(whole))


def test_nothing_estimates_nothing():
    assert ProbabilitySums().estimate(two_classes=True).accuracy is None
