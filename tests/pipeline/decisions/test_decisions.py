from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from pneumo.pipeline import decisions
from pneumo.pipeline.data.importer import ImportSettings, import_dataset
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.decisions import DecisionRules, Decisions, Policy, fit_decisions
from pneumo.pipeline.decisions.calibration import count_fewest_images, fit_conformal_limits, fit_temperature
from pneumo.pipeline.decisions.policies import NOISE, choose_threshold
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.model.calibration import build_prediction_sets, calibrate_logits

TWO = ["NORMAL", "PNEUMONIA"]


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


def test_a_perfectly_separated_split_hardly_moves_the_temperature() -> None:
    logit = np.concatenate([np.full(20, -6.0), np.full(20, 6.0)])
    logits = np.stack([np.zeros(40), logit], axis=1)
    labels = (logit > 0).astype(np.int64)
    assert 0.75 < fit_temperature(logits, labels) < 1


def test_a_small_split_spoils_good_probabilities_less_than_the_likelihood_alone_would() -> None:
    """Thirty images of a calibrated model, over and over: what the temperature costs on new ones."""
    new, truth = drawn(20_000, seed=1)

    def loss(temperature: float) -> float:
        return float(-np.log(calibrate_logits(new, temperature)[np.arange(20_000), truth]).mean())

    costs, likeliest = [], []
    for seed in range(40):
        logits, labels = drawn(30, seed=100 + seed)
        candidates = np.geomspace(0.25, 10, 200)
        fits = [-np.log(calibrate_logits(logits, each)[np.arange(30), labels]).mean() for each in candidates]
        costs.append(loss(fit_temperature(logits, labels)) - loss(1.0))
        likeliest.append(loss(float(candidates[np.argmin(fits)])) - loss(1.0))
    assert np.mean(costs) < 0.6 * np.mean(likeliest)
    assert np.mean(costs) < 0.01


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
        return float(-np.log(calibrate_logits(logits, value)[np.arange(3_000), labels]).mean())

    assert temperature > 1.5
    assert loss(temperature) < min(loss(temperature * 0.9), loss(temperature * 1.1), loss(1.0))


POLICIES = ("max balanced accuracy", "max accuracy", "cost FN:FP = 5:1", "cost FN:FP = 1:20")


def gain(scores: np.ndarray, truth: np.ndarray, threshold: float, policy: Policy) -> float:
    one, other = policy.weights(int(truth.sum()), int((~truth).sum()))
    sensitivity, specificity = rates(scores, truth, threshold)
    return one * sensitivity + other * specificity


def noise(scores: np.ndarray, truth: np.ndarray, threshold: float, policy: Policy) -> float:
    """Standard error of the gain, with one image more of each answer."""
    sizes = (int(truth.sum()), int((~truth).sum()))
    hits = [(rate * size + 1) / (size + 2) for rate, size in zip(rates(scores, truth, threshold), sizes, strict=True)]
    parts = zip(policy.weights(*sizes), hits, sizes, strict=True)
    return float(np.sqrt(sum(weight**2 * hit * (1 - hit) / size for weight, hit, size in parts)))


@given(scored(), st.sampled_from(POLICIES))
def test_no_threshold_beats_the_chosen_one_by_more_than_noise(case: tuple[np.ndarray, np.ndarray], text: str) -> None:
    scores, truth = case
    policy = Policy.parse(text)
    cut = choose_threshold(scores, truth, policy)
    possible = [*scores, 0.0] + ([1.0] if scores.max() < 1 else [])
    top = max(gain(scores, truth, value, policy) for value in possible)
    best = [value for value in possible if gain(scores, truth, value, policy) > top - 1e-12]
    error = max(noise(scores, truth, value, policy) for value in best)
    assert cut.equivalent is not None
    low, high = cut.equivalent
    assert 0 <= low <= cut.threshold <= high <= 1
    for threshold in (cut.threshold, low, high):
        assert gain(scores, truth, threshold, policy) >= top - NOISE * error - 1e-9


def normals(random: np.random.Generator, shift: float, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and truths: log odds normal around -shift and +shift with deviation 1.4, a quarter negative."""
    truth = np.arange(images) % 4 != 0
    logit = random.normal(np.where(truth, shift, -shift), 1.4)
    return 1 / (1 + np.exp(-logit)), truth


def test_a_nearly_perfect_model_loses_less_on_new_images_than_by_the_best_count() -> None:
    from scipy.stats import norm

    def lost(threshold: float) -> float:
        odds = np.log(threshold / (1 - threshold))
        return float(norm.cdf(3 / 1.4) - (norm.sf(odds, 3, 1.4) + norm.cdf(odds, -3, 1.4)) / 2)

    policy, ours, counted = Policy(), [], []
    for seed in range(12):
        scores, truth = normals(np.random.default_rng(seed), 3.0, 780)
        ours.append(lost(choose_threshold(scores, truth, policy).threshold))
        ordered = np.sort(scores)
        middle = (ordered[:-1] + ordered[1:]) / 2
        counted.append(lost(max(middle, key=lambda value: gain(scores, truth, value, policy))))
    assert np.mean(ours) < 0.4 * np.mean(counted)


def test_between_two_groups_that_never_meet_the_threshold_is_in_the_middle() -> None:
    scores = 1 / (1 + np.exp(-np.array([-5.0, -4.0, -4.5, 2.0, 2.5, 3.0])))
    cut = choose_threshold(scores, np.arange(6) > 2, Policy())
    assert np.log(cut.threshold / (1 - cut.threshold)) == pytest.approx(-1.0, abs=0.1)


def test_a_missed_positive_that_costs_more_lowers_the_threshold() -> None:
    scores, truth = normals(np.random.default_rng(0), 1.5, 2_000)
    found = [
        choose_threshold(scores, truth, Policy("cost", costs=(missed, 1.0))).threshold
        for missed in (0.2, 1.0, 5.0, 50.0)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] > 3 * found[-1]


def test_with_true_probabilities_the_cheapest_threshold_is_the_ratio_of_costs() -> None:
    """Elkan, The Foundations of Cost-Sensitive Learning (2001): positive from FP / (FP + FN) on."""
    logits, labels = drawn(40_000)
    scores = calibrate_logits(logits, 1.0)[:, 1]
    threshold = choose_threshold(scores, labels == 1, Policy.parse("cost FN:FP = 4:1")).threshold
    assert threshold == pytest.approx(0.2, abs=0.04)
    accurate = choose_threshold(scores, labels == 1, Policy.parse("max accuracy")).threshold
    assert accurate == pytest.approx(0.5, abs=0.06)


@given(scored(), st.floats(0.01, 1))
def test_a_sensitivity_floor_is_kept_by_the_highest_threshold_that_does(
    case: tuple[np.ndarray, np.ndarray], floor: float
) -> None:
    scores, truth = case
    threshold = choose_threshold(scores, truth, Policy("sensitivity", floor)).threshold
    assert 0 <= threshold <= 1
    sensitivity, specificity = rates(scores, truth, threshold)
    assert sensitivity >= floor - 1e-9
    assert all(rates(scores, truth, v)[1] <= specificity for v in scores if rates(scores, truth, v)[0] >= floor)


@given(scored(), st.floats(0.01, 1))
def test_a_specificity_floor_is_kept_or_refused(case: tuple[np.ndarray, np.ndarray], floor: float) -> None:
    scores, truth = case
    try:
        threshold = choose_threshold(scores, truth, Policy("specificity", floor)).threshold
    except CheckFailedError:
        assert scores.max() == 1.0
        assert rates(scores, truth, 1.0)[1] < floor
        return
    sensitivity, specificity = rates(scores, truth, threshold)
    assert specificity >= floor - 1e-9
    assert all(rates(scores, truth, v)[0] <= sensitivity for v in scores if rates(scores, truth, v)[1] >= floor)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("sens >= 95%", "sensitivity >= 0.95"),
        ("Sensitivity>=95 %", "sensitivity >= 0.95"),
        ("specificity ≥ 0.9", "specificity >= 0.9"),
        ("spec >= 97.5%", "specificity >= 0.975"),
    ],
)
def test_a_floor_may_be_short_and_a_percentage(text: str, meant: str) -> None:
    assert str(Policy.parse(text)) == meant


def test_a_floor_is_kept_midway_between_neighbouring_scores() -> None:
    scores = np.array([0.1, 0.2, 0.6, 0.9])
    truth = np.array([False, False, True, True])
    assert choose_threshold(scores, truth, Policy.parse("sensitivity >= 0.5")).threshold == pytest.approx(0.75)
    assert choose_threshold(scores, truth, Policy.parse("specificity >= 0.5")).threshold == pytest.approx(0.15)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "best",
        "max f1",
        "sensitivity",
        "sens > 95%",
        "sensitivity > 0.9",
        "f1 >= 0.9",
        "sensitivity >= -0.5",
        "cost = 5:1",
        "cost FP:FN = 5:1",
        "cost FN:FP = 5",
        "cost FN:FP = -5:1",
    ],
)
def test_a_policy_that_is_no_rule_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InputError, match=r"sensitivity >= 0\.95"):
        Policy.parse(text)


@pytest.mark.parametrize("text", ["sensitivity >= 95", "sens >= 101%", "specificity >= 0"])
def test_a_floor_outside_of_zero_to_one_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="above 0 and at most 1"):
        Policy.parse(text)


@pytest.mark.parametrize("text", ["cost FN:FP = 0:1", "cost FN:FP = 5:0", "cost fn:fp=0:0", "cost FN:FP = 1e999:1"])
def test_a_cost_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="both costs must be above 0"):
        Policy.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("COST fn : fp=5 :1", Policy("cost", costs=(5.0, 1.0))),
        ("cost  FN:FP  =  2.5:.5", Policy("cost", costs=(2.5, 0.5))),
        ("Max  Accuracy", Policy("accuracy")),
        (" MAX balanced accuracy ", Policy()),
        ("cost FN:FP = 10000000000000:0.00001", Policy("cost", costs=(1e13, 1e-5))),
    ],
)
def test_case_and_spaces_of_a_policy_do_not_matter(text: str, expected: Policy) -> None:
    assert Policy.parse(text) == expected
    assert Policy.parse(str(expected)) == expected


@given(st.sampled_from(["sensitivity", "specificity"]), st.integers(1, 100))
def test_a_policy_reads_what_it_prints(kind: str, percent: int) -> None:
    policy = Policy.parse(f"  {kind.upper()}>={percent / 100} ")
    assert policy.floor == pytest.approx(percent / 100)
    assert Policy.parse(str(policy)) == policy


@given(st.integers(1, 60), st.floats(0.05, 0.99), st.integers(0, 2**31))
def test_the_conformal_limit_of_a_class_covers_its_own_images(images: int, level: float, seed: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet((1, 1, 1), images)
    labels = np.random.default_rng(seed + 1).integers(0, 3, images)
    limits = fit_conformal_limits(probabilities, labels, level)
    sets = build_prediction_sets(probabilities, limits)
    for column in range(3):
        own = labels == column
        assert not own.any() or sets[own, column].mean() >= level - 1e-12
        assert (own.sum() >= count_fewest_images(level)) or limits[column] == 1


@pytest.mark.parametrize(("sizes", "level"), [((87, 141), 0.9), ((38, 51, 208), 0.8), ((7, 412), 0.95)])
def test_prediction_sets_by_class_are_those_of_crepes(sizes: tuple[int, ...], level: float) -> None:
    """With n images of each class so that (n + 1) (1 - level) is no whole number: there crepes keeps one image more."""
    from crepes import WrapClassifier

    class Model:
        """A classifier whose features are its probabilities."""

        classes_ = np.arange(len(sizes))

        def predict_proba(self, probabilities: np.ndarray) -> np.ndarray:
            return probabilities

    random = np.random.default_rng(4)
    labels = np.repeat(Model.classes_, sizes)
    probabilities = random.dirichlet(np.ones(len(sizes)), len(labels))
    probabilities[::5] = probabilities[5]  # ties
    new = np.concatenate([random.dirichlet(np.ones(len(sizes)), 500), probabilities])
    theirs = WrapClassifier(Model()).calibrate(probabilities, labels, class_cond=True)

    ours = build_prediction_sets(new, fit_conformal_limits(probabilities, labels, level))

    assert (
        ours.tolist() == theirs.predict_set(new, labels=False, confidence=level, smoothing=False).astype(bool).tolist()
    )
    assert 0.01 < ours.mean() < 0.99


@pytest.mark.parametrize(("images", "level"), [(9, 0.9), (30, 0.8), (101, 0.95)])
def test_conformal_sets_cover_new_images_as_promised(images: int, level: float) -> None:
    splits, random = 4_000, np.random.default_rng(7)
    covered, labels = np.empty(splits), np.ones(images + 1, dtype=np.int64)
    for number in range(splits):
        probabilities = random.dirichlet((1, 2), images + 1)
        limits = fit_conformal_limits(probabilities[:-1], labels[:-1], level)
        covered[number] = build_prediction_sets(probabilities[-1:], limits)[0, labels[-1]]
    error = 4 * np.sqrt(level * (1 - level) / splits)
    assert level - error <= covered.mean() <= level + 1 / (images + 1) + error


def test_coverage_over_many_splits_of_held_out_images_is_the_promised_one() -> None:
    """Temperature and limits from one half, coverage of each class on the other, 300 times: what a run does."""
    splits, level = 300, 0.9
    logits, labels = drawn(1_600, sharpness=2.0, seed=5)
    logits[:, 1] += 2.0  # one limit for both classes would cover the first one less
    random = np.random.default_rng(3)
    coverage = np.empty((splits, 2))
    for number in range(splits):
        order = random.permutation(1_600)
        half, other = order[:800], order[800:]
        found = fit_decisions(logits[half], labels[half], positive=None, classes=TWO)
        sets = build_prediction_sets(calibrate_logits(logits[other], found.temperature), found.conformal_limit)
        held = sets[np.arange(800), labels[other]]
        coverage[number] = [held[labels[other] == column].mean() for column in (0, 1)]
    # Halves of one set of images: each split has the binomial spread of both, and the mean is level to 1 / (n + 1).
    half_of_class = np.bincount(labels) / 2
    spread = np.sqrt(level * (1 - level) * 2 / half_of_class)
    assert (np.abs(coverage.mean(axis=0) - level) < 1 / half_of_class + 4 * spread / np.sqrt(splits)).all()
    assert coverage.std(axis=0) == pytest.approx(spread, rel=0.35)


@pytest.mark.lengthy
@pytest.mark.real
def test_coverage_on_real_images_is_the_promised_one_over_splits_by_patient(real_data: Path, tmp_path: Path) -> None:
    """A logistic regression on 32-pixel images; half of the held-out patients fit, the others are covered."""
    from sklearn.linear_model import LogisticRegression

    splits, level = 200, 0.9
    dataset = import_dataset(real_data / "chest_xray_224_train.tar", tmp_path / "data", ImportSettings(size=32))
    pixels = np.stack(
        [np.asarray(Image.open(dataset.path(row)), np.float64).ravel() / 255 - 0.5 for row in dataset.rows]
    )
    truth = np.array([row.label == "PNEUMONIA" for row in dataset.rows]).astype(np.int64)
    train = np.array([row.split is Split.TRAIN for row in dataset.rows])
    model = LogisticRegression(C=0.01, max_iter=300).fit(pixels[train], truth[train])
    logit = model.decision_function(pixels[~train])
    logits, labels = np.stack([np.zeros_like(logit), logit], axis=1), truth[~train]
    names = [row.patient for row, seen in zip(dataset.rows, train, strict=True) if not seen]
    patient = np.unique(names, return_inverse=True)[1]
    random = np.random.default_rng(0)
    coverage = np.empty((splits, 2))
    for number in range(splits):
        half = (random.permutation(patient.max() + 1) < patient.max() / 2)[patient]
        found = fit_decisions(logits[half], labels[half], positive=None, classes=TWO)
        sets = build_prediction_sets(calibrate_logits(logits[~half], found.temperature), found.conformal_limit)
        coverage[number] = [sets[labels[~half] == column, column].mean() for column in (0, 1)]
    print(f"coverage of each class {coverage.mean(axis=0)}, deviation {coverage.std(axis=0)} in {splits} splits")
    assert coverage.mean(axis=0) == pytest.approx(level, abs=0.012)


def test_a_split_too_small_for_the_level_rules_nothing_out() -> None:
    probabilities = np.array([[0.01, 0.99]] * 8)
    assert fit_conformal_limits(probabilities, np.ones(8, dtype=np.int64), 0.9) == [1.0, 1.0]
    assert fit_conformal_limits(probabilities[:0], np.ones(0, dtype=np.int64), 0.9) == [1.0, 1.0]


def test_the_rank_is_not_pushed_up_by_rounding() -> None:
    own = np.arange(1, 10) / 10
    probabilities = np.stack([1 - own, own], axis=1)
    # 10 * 0.7 is a little above 7 in floating point; the limit is the 7th smallest of 1 - own.
    assert fit_conformal_limits(probabilities, np.ones(9, dtype=np.int64), 0.7) == [1.0, pytest.approx(0.7)]
    assert [count_fewest_images(level) for level in (0.7, 0.8, 0.9, 0.95, 0.99)] == [3, 4, 9, 19, 99]


def test_decisions_are_fitted_on_calibrated_probabilities() -> None:
    logits, labels = drawn(4_000, sharpness=3.0)
    found = fit_decisions(logits, labels, positive=1, classes=TWO)
    assert found.temperature == pytest.approx(3.0, rel=0.15)
    assert found.threshold == pytest.approx(0.5, abs=0.1)
    assert found.fitted_on == "validation"
    assert found.images == 4_000
    probabilities = calibrate_logits(logits, found.temperature)
    assert build_prediction_sets(probabilities, found.conformal_limit)[np.arange(4_000), labels].mean() >= 0.9
    assert found.limits_by_class(TWO) == dict(zip(TWO, found.conformal_limit, strict=True))


def test_the_positive_class_may_be_the_first_column() -> None:
    logits, labels = drawn(2_000)
    rules = DecisionRules(Policy.parse("sensitivity >= 0.95"))
    one = fit_decisions(logits, labels, positive=1, classes=TWO, rules=rules)
    swapped = fit_decisions(logits[:, ::-1], 1 - labels, positive=0, classes=TWO, rules=rules)
    assert swapped.threshold == pytest.approx(one.threshold)
    answer = swapped.predict(calibrate_logits(logits[:, ::-1], swapped.temperature), 0)
    assert (answer[labels == 1] == 0).mean() >= 0.95


def test_more_than_two_classes_have_no_threshold() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    logits = random.normal(0, 1, (200, 3)) + 2 * np.eye(3)[labels]
    found = fit_decisions(logits, labels, positive=None, classes=["a", "b", "c"])
    assert found.threshold is None
    assert (found.predict(calibrate_logits(logits, found.temperature), None) == logits.argmax(axis=1)).all()


@pytest.mark.parametrize("images", [0, 12])
def test_a_split_that_cannot_say_where_to_cut_gives_neutral_decisions_and_a_note(images: int) -> None:
    found = fit_decisions(np.tile([0.0, 2.0], (images, 1)), np.ones(images, dtype=np.int64), positive=1, classes=TWO)
    assert (found.temperature, found.threshold) == (1.0, 0.5)
    assert "temperature stays 1 and the threshold 0.5" in found.notes[0]
    assert found.conformal_limit == [1, 1]  # of the other class nothing is known


def test_a_class_with_fewer_images_than_the_coverage_needs_is_never_ruled_out_and_a_note_says_so() -> None:
    logits, labels = drawn(100)
    keep = np.concatenate([np.flatnonzero(labels == 0)[:8], np.flatnonzero(labels == 1)[:9]])
    few = fit_decisions(logits[keep], labels[keep], positive=1, classes=TWO)
    assert few.conformal_limit[0] == 1 > few.conformal_limit[1]
    assert few.notes == [
        "validation has 8 NORMAL images, and prediction sets that cover 0.9 of them need 9: NORMAL is never ruled out, "
        "so that no other answer is certain"
    ]


def test_shares_outside_of_zero_to_one_are_refused() -> None:
    with pytest.raises(InputError, match=r"decisions\.coverage is 90"):
        DecisionRules(level=90)
    with pytest.raises(InputError, match=r"decisions\.outliers is 1;"):
        DecisionRules(outlier_quantile=1)


def test_what_was_asked_for_is_in_the_decisions() -> None:
    logits, labels = drawn(400)
    found = fit_decisions(
        logits, labels, positive=1, classes=TWO, rules=DecisionRules(Policy.parse("cost fn:fp=3:1"), 0.8, 0.95)
    )
    assert (found.policy, found.conformal_level, found.outlier_quantile) == ("cost FN:FP = 3:1", 0.8, 0.95)
    assert found.equivalent is not None
    assert found.equivalent[0] <= found.threshold <= found.equivalent[1]
    assert (
        fit_decisions(
            logits, labels, positive=1, classes=TWO, rules=DecisionRules(Policy("sensitivity", 0.9))
        ).equivalent
        is None
    )


def test_a_floor_is_not_fitted_under_changes() -> None:
    assert DecisionRules(Policy("cost", costs=(5, 1)), fit_on="shifts").fit_on == "shifts"
    with pytest.raises(InputError, match=r"fit_on is shifts and the policy 'sensitivity >= 0\.9'.* trade both errors"):
        DecisionRules(Policy("sensitivity", 0.9), fit_on="shifts")


def test_decisions_of_an_earlier_version_are_read() -> None:
    document = {
        "temperature": 1.2,
        "threshold": 0.4,
        "policy": "max balanced accuracy",
        "conformal_level": 0.9,
        "conformal_limit": 0.5,
        "fitted_on": "validation",
        "images": 12,
    }
    found = Decisions.model_validate(document)
    assert (found.outlier_quantile, found.equivalent) == (0.99, None)
    assert found.limits_by_class(TWO) == {"NORMAL": 0.5, "PNEUMONIA": 0.5}  # one limit for all


def test_decisions_are_read_back_and_damage_is_refused(synthesise_run) -> None:
    run = synthesise_run()
    with pytest.raises(InputError, match="pneumo evaluate"):
        decisions.read_decisions(run)
    found = fit_decisions(*drawn(50), positive=1, classes=TWO)
    decisions.save_decisions(run, found)
    assert decisions.read_decisions(run) == found
    (run.folder / decisions.FILE).write_text('{"temperature": 0}')
    with pytest.raises(InputError, match=r"decisions\.json: temperature"):
        decisions.read_decisions(run)


def test_an_image_exactly_at_the_threshold_is_positive() -> None:
    found = Decisions(
        temperature=1,
        threshold=0.5,
        policy="",
        conformal_level=0.9,
        conformal_limit=[1, 1],
        outlier_quantile=0.99,
        fitted_on="validation",
        images=1,
    )
    assert found.predict(np.array([[0.5, 0.5], [0.6, 0.4]]), 1).tolist() == [1, 0]
