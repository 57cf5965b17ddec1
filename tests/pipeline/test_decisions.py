import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline import decisions
from pipeline.decisions import Decisions, Policy, choose_threshold, conformal_limit, decide, fit_temperature
from serving.errors import CheckFailedError, InputError
from serving.scores import calibrated, conformal_sets


def drawn(images: int, *, sharpness: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, 2] whose calibrated probabilities are right at temperature `sharpness`, and labels drawn from them."""
    random = np.random.default_rng(seed)
    logit = random.normal(0, 2, images)
    labels = (random.random(images) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    return np.stack([np.zeros(images), logit * sharpness], axis=1), labels


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties and extremes, and truths of both kinds."""
    images = draw(st.integers(2, 40))
    values = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, np.nextafter(0.5, 1), 5e-324]))
    scores = draw(arrays.arrays(np.float64, images, elements=values))
    truth = draw(arrays.arrays(np.bool_, images))
    truth[:2] = (True, False)
    return scores, truth


def rates(scores: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[float, float]:
    answer = scores >= threshold
    return float(answer[truth].mean()), float((~answer)[~truth].mean())


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_temperature_undoes_a_known_overconfidence(sharpness: float) -> None:
    logits, labels = drawn(20_000, sharpness=sharpness)
    assert fit_temperature(logits, labels) == pytest.approx(sharpness, rel=0.05)


def test_temperature_of_a_perfectly_separated_split_stays_within_reason() -> None:
    logit = np.concatenate([np.full(20, -6.0), np.full(20, 6.0)])
    logits = np.stack([np.zeros(40), logit], axis=1)
    labels = (logit > 0).astype(np.int64)
    temperature = fit_temperature(logits, labels)
    # Platt's target for 20 images is 21/22, whose logit is log 21.
    assert temperature == pytest.approx(6 / np.log(21), rel=1e-3)


def test_temperature_never_leaves_its_bounds() -> None:
    logits = np.array([[0.0, 1000.0], [0.0, -1000.0]])
    for labels in (np.array([1, 0]), np.array([0, 1])):
        assert 0.25 <= fit_temperature(logits, labels) <= 10


def test_temperature_of_three_classes_lowers_the_loss() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 3_000)
    logits = random.normal(0, 4, (3_000, 3)) + 4 * np.eye(3)[labels]
    temperature = fit_temperature(logits, labels)

    def loss(value: float) -> float:
        return float(-np.log(calibrated(logits, value)[np.arange(3_000), labels]).mean())

    assert temperature > 1.5
    assert loss(temperature) < min(loss(temperature * 0.9), loss(temperature * 1.1), loss(1.0))


@given(scored())
def test_no_threshold_beats_the_chosen_balanced_accuracy(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = case
    chosen = sum(rates(scores, truth, choose_threshold(scores, truth, Policy.parse("max balanced accuracy"))))
    possible = [*scores, 0.0] + ([1.0] if scores.max() < 1 else [])
    assert chosen >= max(sum(rates(scores, truth, value)) for value in possible) - 1e-12


@given(scored(), st.floats(0.01, 1))
def test_a_sensitivity_floor_is_kept_by_the_highest_threshold_that_does(
    case: tuple[np.ndarray, np.ndarray], floor: float
) -> None:
    scores, truth = case
    threshold = choose_threshold(scores, truth, Policy("sensitivity", floor))
    assert 0 <= threshold <= 1
    sensitivity, specificity = rates(scores, truth, threshold)
    assert sensitivity >= floor - 1e-9
    assert all(rates(scores, truth, v)[1] <= specificity for v in scores if rates(scores, truth, v)[0] >= floor)


@given(scored(), st.floats(0.01, 1))
def test_a_specificity_floor_is_kept_or_refused(case: tuple[np.ndarray, np.ndarray], floor: float) -> None:
    scores, truth = case
    try:
        threshold = choose_threshold(scores, truth, Policy("specificity", floor))
    except CheckFailedError:
        assert scores.max() == 1.0
        assert rates(scores, truth, 1.0)[1] < floor
        return
    sensitivity, specificity = rates(scores, truth, threshold)
    assert specificity >= floor - 1e-9
    assert all(rates(scores, truth, v)[0] <= sensitivity for v in scores if rates(scores, truth, v)[1] >= floor)


def test_the_threshold_lies_midway_between_neighbouring_scores() -> None:
    scores = np.array([0.1, 0.2, 0.6, 0.9])
    truth = np.array([False, False, True, True])
    assert choose_threshold(scores, truth, Policy.parse("max balanced accuracy")) == pytest.approx(0.4)
    assert choose_threshold(scores, truth, Policy.parse("sensitivity >= 0.5")) == pytest.approx(0.75)
    assert choose_threshold(scores, truth, Policy.parse("specificity >= 0.5")) == pytest.approx(0.15)


def test_of_equal_thresholds_the_more_sensitive_wins() -> None:
    scores, truth = np.array([0.2, 0.4, 0.6, 0.8]), np.array([False, True, False, True])
    assert choose_threshold(scores, truth, Policy.parse("max balanced accuracy")) == pytest.approx(0.3)


@pytest.mark.parametrize(
    "text", ["", "best", "sensitivity", "sensitivity >= 95%", "sensitivity > 0.9", "f1 >= 0.9", "sensitivity >= -0.5"]
)
def test_a_policy_that_is_no_rule_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InputError, match=r"sensitivity >= 0\.95"):
        Policy.parse(text)


@pytest.mark.parametrize("text", ["sensitivity >= 95", "specificity >= 0"])
def test_a_floor_outside_of_zero_to_one_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="above 0 and at most 1"):
        Policy.parse(text)


@given(st.sampled_from(["sensitivity", "specificity"]), st.integers(1, 100))
def test_a_policy_reads_what_it_prints(kind: str, percent: int) -> None:
    policy = Policy.parse(f"  {kind.upper()}>={percent / 100} ")
    assert policy.floor == pytest.approx(percent / 100)
    assert Policy.parse(str(policy)) == policy


@given(st.integers(1, 60), st.floats(0.05, 0.99), st.integers(0, 2**31))
def test_the_conformal_limit_covers_its_own_images(images: int, level: float, seed: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet((1, 1, 1), images)
    labels = np.random.default_rng(seed + 1).integers(0, 3, images)
    sets = conformal_sets(probabilities, conformal_limit(probabilities, labels, level))
    assert sets[np.arange(images), labels].mean() >= level - 1e-12


@pytest.mark.parametrize(("images", "level"), [(9, 0.9), (30, 0.8), (101, 0.95)])
def test_conformal_sets_cover_new_images_as_promised(images: int, level: float) -> None:
    splits, random = 4_000, np.random.default_rng(7)
    covered = np.empty(splits)
    for number in range(splits):
        probabilities = random.dirichlet((1, 1), images + 1)
        labels = (random.random(images + 1) < probabilities[:, 1]).astype(np.int64)
        limit = conformal_limit(probabilities[:-1], labels[:-1], level)
        covered[number] = conformal_sets(probabilities[-1:], limit)[0, labels[-1]]
    error = 4 * np.sqrt(level * (1 - level) / splits)
    assert level - error <= covered.mean() <= level + 1 / (images + 1) + error


def test_a_split_too_small_for_the_level_rules_nothing_out() -> None:
    probabilities = np.array([[0.01, 0.99]] * 8)
    assert conformal_limit(probabilities, np.ones(8, dtype=np.int64), 0.9) == 1.0
    assert conformal_limit(probabilities[:0], np.ones(0, dtype=np.int64), 0.9) == 1.0


def test_the_rank_is_not_pushed_up_by_rounding() -> None:
    own = np.arange(1, 10) / 10
    probabilities = np.stack([1 - own, own], axis=1)
    # 10 * 0.7 is a little above 7 in floating point; the limit is the 7th smallest of 1 - own.
    assert conformal_limit(probabilities, np.ones(9, dtype=np.int64), 0.7) == pytest.approx(0.7)


def test_decisions_are_fitted_on_calibrated_probabilities() -> None:
    logits, labels = drawn(4_000, sharpness=3.0)
    found = decide(logits, labels, positive=1)
    assert found.temperature == pytest.approx(3.0, rel=0.15)
    assert found.threshold == pytest.approx(0.5, abs=0.1)
    assert found.fitted_on == "validation"
    assert found.images == 4_000
    probabilities = calibrated(logits, found.temperature)
    assert conformal_sets(probabilities, found.conformal_limit)[np.arange(4_000), labels].mean() >= 0.9


def test_the_positive_class_may_be_the_first_column() -> None:
    logits, labels = drawn(2_000)
    one = decide(logits, labels, positive=1, policy="sensitivity >= 0.95")
    swapped = decide(logits[:, ::-1], 1 - labels, positive=0, policy="sensitivity >= 0.95")
    assert swapped.threshold == pytest.approx(one.threshold)
    answer = swapped.predict(calibrated(logits[:, ::-1], swapped.temperature), 0)
    assert (answer[labels == 1] == 0).mean() >= 0.95


def test_more_than_two_classes_have_no_threshold() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    logits = random.normal(0, 1, (200, 3)) + 2 * np.eye(3)[labels]
    found = decide(logits, labels, positive=None)
    assert found.threshold is None
    assert (found.predict(calibrated(logits, found.temperature), None) == logits.argmax(axis=1)).all()


@pytest.mark.parametrize("images", [0, 12])
def test_a_split_that_cannot_say_where_to_cut_gives_neutral_decisions_and_a_note(images: int) -> None:
    found = decide(np.tile([0.0, 2.0], (images, 1)), np.ones(images, dtype=np.int64), positive=1)
    assert (found.temperature, found.threshold) == (1.0, 0.5)
    assert "temperature stays 1 and the threshold 0.5" in found.notes[0]


def test_a_level_outside_of_zero_to_one_is_refused() -> None:
    logits, labels = drawn(10)
    with pytest.raises(InputError, match="conformal level"):
        decide(logits, labels, positive=1, level=90)


def test_decisions_survive_the_disk_and_damage_is_told(synthesise_run) -> None:
    run = synthesise_run()
    with pytest.raises(InputError, match="pneumo evaluate"):
        decisions.read(run)
    found = decide(*drawn(50), positive=1)
    decisions.save(run, found)
    assert decisions.read(run) == found
    (run.folder / decisions.FILE).write_text('{"temperature": 0}')
    with pytest.raises(InputError, match=r"decisions\.json: temperature"):
        decisions.read(run)


def test_an_image_exactly_at_the_threshold_is_positive() -> None:
    found = Decisions(
        temperature=1,
        threshold=0.5,
        policy="",
        conformal_level=0.9,
        conformal_limit=1,
        fitted_on="validation",
        images=1,
    )
    assert found.predict(np.array([[0.5, 0.5], [0.6, 0.4]]), 1).tolist() == [1, 0]
