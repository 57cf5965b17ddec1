import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.pipeline.evaluation.bootstrap import draw_patients, estimate_metrics
from pneumo.pipeline.evaluation.cases import Cases, Scores
from pneumo.pipeline.evaluation.classification_metrics import point_values, rank_scores, resample_metrics
from pneumo.pipeline.evaluation.results import Bootstrap
from tests.support.cases import make_decisions, reference_metrics


def drawn(images: int, classes: int, patients: int, seed: int, *, coarse: bool = False) -> Cases:
    """Make cases with several images per patient; coarse scores tie."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, images)
    logits = random.normal(0, 1.5, (images, classes)) + 1.5 * np.eye(classes)[truth]
    if classes == 2:
        logits -= logits[:, :1]
    if coarse:
        logits = np.round(logits)
    decisions = make_decisions(temperature=1.3, threshold=0.45 if classes == 2 else None, conformal_limit=0.6)
    names = [f"{number}.png" for number in range(images)]
    patient = np.array([f"p{number}" for number in random.integers(0, patients, images)], dtype=np.str_)
    scores = Scores(names, np.full(images, "test"), patient, truth, logits)
    return Cases.make(scores, decisions, 1 if classes == 2 else None)


def repeated(cases: Cases, times: np.ndarray) -> Cases:
    """Repeat the images of each patient as often as the patient was drawn."""
    index = np.repeat(np.arange(len(cases)), times[cases.patient])
    return Cases(
        image=[cases.image[number] for number in index],
        patient=cases.patient[index],
        patients=cases.patients,
        truth=cases.truth[index],
        probabilities=cases.probabilities[index],
        uncalibrated=cases.uncalibrated[index],
        answer=cases.answer[index],
        sets=cases.sets[index],
        positive=cases.positive,
    )


@settings(max_examples=25)
@given(st.integers(1, 40), st.sampled_from([2, 3]), st.integers(1, 15), st.integers(0, 10_000), st.booleans())
def test_a_resample_has_the_figures_of_scikit_learn_on_repeated_images(
    images: int, classes: int, patients: int, seed: int, coarse: bool
) -> None:
    cases = drawn(images, classes, patients, seed, coarse=coarse)
    names = [f"class{number}" for number in range(classes)]
    times = np.random.default_rng(seed).multinomial(cases.patients, np.ones(cases.patients) / cases.patients, 3)
    values, cells = resample_metrics(cases, names, times)
    for row, drawn_once in enumerate(times):
        again = repeated(cases, drawn_once)
        for name, expected in reference_metrics(again, names).items():
            np.testing.assert_allclose(values[name][row], expected, rtol=1e-9, atol=1e-12, err_msg=name)
        for name, (value, reason) in point_values(again, names).items():
            np.testing.assert_allclose(values[name][row], np.nan if value is None else value, atol=1e-12, err_msg=name)
            assert (value is None) is bool(reason)
        assert cells[row].sum() == len(again)


def test_every_patient_drawn_once_gives_the_point_values() -> None:
    cases = drawn(200, 2, 60, 1)
    values, _ = resample_metrics(cases, ["a", "b"], np.ones((1, cases.patients), dtype=np.int64))
    points = point_values(cases, ["a", "b"])
    assert {name: value[0] for name, value in values.items()} == pytest.approx({n: p[0] for n, p in points.items()})


@settings(max_examples=20)
@given(st.integers(1, 60), st.sampled_from([2, 3]), st.integers(1, 30), st.integers(0, 10_000))
def test_an_interval_holds_its_value_or_is_missing_with_a_reason(
    images: int, classes: int, patients: int, seed: int
) -> None:
    cases = drawn(images, classes, patients, seed)
    found, _ = estimate_metrics(cases, [str(number) for number in range(classes)], Bootstrap(resamples=50))
    for estimate in found.values():
        if estimate.value is None or estimate.low is None or estimate.high is None:
            assert estimate.reason
            assert estimate.low is None
        else:
            assert estimate.low <= estimate.value <= estimate.high
            assert estimate.reason is None


def test_intervals_cover_the_true_auroc() -> None:
    from scipy.stats import norm

    truth = norm.cdf(np.sqrt(2))
    held = 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        label = random.integers(0, 2, 150)
        scores = random.normal(np.where(label == 1, 1.0, -1.0))
        times = random.multinomial(150, np.ones(150) / 150, 300)
        auroc, _ = rank_scores(scores, label == 1, times, np.arange(150))
        low, high = np.quantile(auroc, (0.025, 0.975))
        held += low <= truth <= high
    assert held / 150 > 0.88


def test_images_of_one_patient_widen_the_interval() -> None:
    once = drawn(60, 2, 10**6, 3)
    four = repeated(once, np.full(once.patients, 4))
    loose = Cases(**(vars(four) | {"patient": np.arange(240), "patients": 240}))
    settings = Bootstrap(resamples=400)

    def width(cases: Cases) -> float:
        auroc = estimate_metrics(cases, ["a", "b"], settings)[0]["auroc"]
        return (auroc.high or 0) - (auroc.low or 0)

    assert width(four) == pytest.approx(width(once))
    assert width(four) > 1.5 * width(loose)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    cases = drawn(100, 2, 50, 0)
    first = estimate_metrics(cases, ["a", "b"], Bootstrap(resamples=100, seed=1))
    assert first == estimate_metrics(cases, ["a", "b"], Bootstrap(resamples=100, seed=1))
    assert first != estimate_metrics(cases, ["a", "b"], Bootstrap(resamples=100, seed=2))


def test_draws_come_in_pieces_that_make_up_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = drawn(100, 2, 40, 0)
    monkeypatch.setattr("pneumo.pipeline.evaluation.bootstrap._CELLS", 700)
    pieces = list(draw_patients(cases, Bootstrap(resamples=20)))
    assert [len(piece) for piece in pieces] == [7, 7, 6]
    assert (np.concatenate(pieces).sum(axis=1) == cases.patients).all()


def test_one_patient_has_values_without_intervals() -> None:
    found, confusion = estimate_metrics(drawn(20, 2, 1, 0), ["a", "b"], Bootstrap(resamples=20))
    assert found["accuracy"].value is not None
    assert found["accuracy"].low is None
    assert "one patient" in (found["accuracy"].reason or "")
    assert confusion.low is None


def test_undefined_resamples_are_counted() -> None:
    cases = drawn(6, 2, 10**6, 5)
    assert sorted(set(cases.truth)) == [0, 1]
    auroc = estimate_metrics(cases, ["a", "b"], Bootstrap(resamples=500))[0]["auroc"]
    assert 0 < auroc.dropped < 500
