"""Paired comparison: against a bootstrap by hand, and where all resamples agree."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pneumo.pipeline.evaluation.cases import Cases, take_images
from pneumo.pipeline.evaluation.paired import compare_models, p_value
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.calibration import build_prediction_sets, calibrate_logits

CLASSES = ["NORMAL", "PNEUMONIA"]
SETTINGS = Bootstrap(level=0.9, resamples=200, seed=3)


def cases(logits, truth, patient, threshold: float = 0.5) -> Cases:
    columns = np.stack([np.zeros_like(logits), logits], axis=1)
    probabilities = calibrate_logits(columns, 1.0)
    return Cases(
        image=[str(number) for number in range(len(truth))],
        patient=patient,
        patients=int(patient.max()) + 1,
        truth=truth,
        probabilities=probabilities,
        uncalibrated=probabilities,
        answer=(probabilities[:, 1] >= threshold).astype(np.int64),
        sets=build_prediction_sets(probabilities, [0.5, 0.5]),
        positive=1,
    )


def pair(images: int = 120, *, second: float = 1.0, shared: float = 0.9, seed: int = 0) -> tuple[Cases, Cases]:
    """Two models whose errors are alike; the second is as good as the first where `second` is 1."""
    random = np.random.default_rng(seed)
    truth, patient = np.arange(images) % 2, np.arange(images) // 3
    common, own = random.normal(0, 1, images), random.normal(0, 1, (2, images))
    noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    of_first, of_second = (
        cases((2 * truth - 1) * gain + row, truth, patient) for gain, row in zip((1.0, second), noise, strict=True)
    )
    return of_first, of_second


def by_name(found):
    return {each.metric: each for each in found}


def test_the_interval_is_that_of_drawing_the_same_patients_for_both():
    first, second = pair(second=1.3)
    found = by_name(compare_models(first, second, CLASSES, SETTINGS))
    random = np.random.default_rng(SETTINGS.seed)
    by_hand = []
    for drawn in random.integers(0, first.patients, (SETTINGS.resamples, first.patients)):
        index = np.concatenate([np.flatnonzero(first.patient == who) for who in drawn])
        aurocs = [roc_auc_score(model.truth[index], model.probabilities[index, 1]) for model in (first, second)]
        by_hand.append(aurocs[1] - aurocs[0])
    low, high = np.quantile(by_hand, (0.05, 0.95))
    assert found["auroc"].low == pytest.approx(low, abs=1e-9)
    assert found["auroc"].high == pytest.approx(high, abs=1e-9)
    assert found["auroc"].p == p_value(np.array(by_hand))
    assert found["auroc"].value == pytest.approx(found["auroc"].second - found["auroc"].first)


def test_pairing_narrows_the_interval():
    alike, unlike = (
        [by_name(compare_models(*pair(shared=shared), CLASSES, SETTINGS))["auroc"]] for shared in (0.95, 0.0)
    )
    assert alike[0].high - alike[0].low < 0.6 * (unlike[0].high - unlike[0].low)


def test_swapping_the_models_swaps_the_signs():
    first, second = pair(second=1.2)
    there, back = (
        by_name(compare_models(first, second, CLASSES, SETTINGS)),
        by_name(compare_models(second, first, CLASSES, SETTINGS)),
    )
    for name, each in there.items():
        assert each.value == pytest.approx(-back[name].value)
        assert each.low == pytest.approx(-back[name].high, abs=1e-9)
        assert each.p == pytest.approx(back[name].p)


def test_p_values_are_small_for_a_real_difference_and_not_for_none():
    assert by_name(compare_models(*pair(300, second=2.5), CLASSES, SETTINGS))["auroc"].p < 0.01
    same = [
        by_name(compare_models(*pair(seed=seed), CLASSES, SETTINGS, metrics=["auroc"]))["auroc"].p for seed in range(12)
    ]
    assert sum(p < 0.05 for p in same) <= 3
    assert min(same) > 0


@pytest.mark.parametrize(("values", "p"), [([0.0] * 9, 1.0), ([1.0] * 9, 0.2), ([1.0] * 8 + [-1.0], 0.4)])
def test_a_p_value_counts_the_resamples_on_the_rarer_side(values, p):
    assert p_value(np.array(values)) == pytest.approx(p)


def test_two_models_that_are_both_right_on_few_images_may_still_differ():
    truth, patient = np.arange(20) % 2, np.arange(20)
    random = np.random.default_rng(0)
    first, second = (cases((2 * truth - 1) * random.uniform(1, 3, 20), truth, patient) for _ in range(2))
    found = by_name(compare_models(first, second, CLASSES, SETTINGS, metrics=["auroc", "sensitivity", "specificity"]))
    bound = 1 - 0.05 ** (1 / 10)  # of ten patients none differs: Clopper and Pearson, one side of 90%
    for each in found.values():
        assert (each.value, each.p) == (0, 1)
        assert each.low == pytest.approx(-bound)
        assert each.high == pytest.approx(bound)


def test_one_network_with_itself_differs_by_nothing():
    first, _ = pair(30)
    assert {(each.low, each.high) for each in compare_models(first, first, CLASSES, SETTINGS)} == {(0.0, 0.0)}


def test_other_images_are_refused():
    first, second = pair()
    with pytest.raises(InputError, match="same images"):
        compare_models(first, take_images(second, np.arange(len(second)) != 3), CLASSES, SETTINGS)


def test_what_is_undefined_says_why():
    first, second = (take_images(each, each.truth == 1) for each in pair())
    found = by_name(compare_models(first, second, CLASSES, SETTINGS))
    assert found["auroc"].value is None
    assert "no NORMAL images" in found["auroc"].reason
    assert found["sensitivity"].low is not None
