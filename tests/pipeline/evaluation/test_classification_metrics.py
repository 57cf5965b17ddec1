import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.pipeline.evaluation.cases import Cases, Scores
from pneumo.pipeline.evaluation.classification_metrics import point_values
from tests.support.cases import make_binary_cases, make_decisions

DECISIONS = make_decisions(temperature=2.0, threshold=0.6, conformal_limit=0.7)
NAMES = ["NORMAL", "PNEUMONIA"]
RANKED = ("auroc", "average_precision", "balanced_accuracy")


def cases(logit: list[float], truth: list[int], positive: int = 1) -> Cases:
    logits = np.stack([np.zeros(len(logit)), np.asarray(logit, dtype=np.float64)], axis=1)
    names = [str(number) for number in range(len(logit))]
    patient, split = np.array(names, dtype=np.str_), np.full(len(logit), "test")
    return Cases.make(Scores(names, split, patient, np.asarray(truth, dtype=np.int64), logits), DECISIONS, positive)


def test_figures_by_hand() -> None:
    # Probabilities at temperature 2: 0.27, 0.5, 0.73, 0.88; the threshold is 0.6.
    found = point_values(cases([-2, 0, 2, 4], [0, 1, 0, 1]), NAMES)
    value = {name: point[0] for name, point in found.items()}
    assert value["auroc"] == 0.75
    assert value["accuracy"] == value["sensitivity"] == value["specificity"] == value["ppv"] == value["npv"] == 0.5
    assert value["prevalence"] == 0.5
    p = 1 / (1 + np.exp(-np.array([-1, 0, 1, 2])))
    assert value["brier"] == pytest.approx(((p - [0, 1, 0, 1]) ** 2).mean())
    assert value["nll"] == pytest.approx(-np.log([1 - p[0], p[1], 1 - p[2], p[3]]).mean())
    # 1 - p <= 0.7: only at 0.27 and 0.88 does one class remain; the third image's true class has 0.27.
    assert value["coverage"] == 0.75
    assert (value["coverage:NORMAL"], value["coverage:PNEUMONIA"]) == (0.5, 1.0)
    # Only the second image keeps both classes; of the three others two are called rightly.
    assert value["uncertain"] == 0.25
    assert value["accuracy_certain"] == pytest.approx(2 / 3)


def test_rates_belong_to_the_positive_class_in_either_column() -> None:
    first = point_values(cases([-3, -3, -3, 3], [0, 0, 0, 1], positive=0), NAMES)
    second = point_values(cases([3, 3, 3, -3], [1, 1, 1, 0], positive=1), NAMES)
    assert first["prevalence"][0] == 0.75
    assert {name: point[0] for name, point in first.items()} == pytest.approx(
        {name: point[0] for name, point in second.items()}
    )


@pytest.mark.parametrize(
    ("truth", "undefined", "reason"),
    [
        ([0, 0, 0], {*RANKED, "sensitivity", "coverage:PNEUMONIA"}, "no PNEUMONIA images"),
        ([1, 1, 1], {*RANKED, "specificity", "coverage:NORMAL"}, "no NORMAL images"),
    ],
)
def test_one_class_leaves_metrics_undefined_with_the_reason(truth: list[int], undefined: set[str], reason: str) -> None:
    found = point_values(cases([-4, 0, 4], truth), NAMES)
    assert {name for name, (value, _) in found.items() if value is None} == undefined
    assert all(reason in (found[name][1] or "") for name in undefined)


def test_predictive_values_are_undefined_if_no_image_was_called_the_class() -> None:
    found = point_values(cases([-4, -4], [0, 1]), NAMES)
    assert found["ppv"] == (None, "no image was called PNEUMONIA")
    assert found["f1"] == (0.0, None)
    found = point_values(cases([-4, -4], [0, 0]), NAMES)
    assert found["f1"][0] is None


def test_a_split_without_images_has_reasons_and_no_values() -> None:
    found = point_values(cases([], []), NAMES)
    assert found
    assert all(point == (None, "no images in this split") for point in found.values())


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 0.2, 1 / 3, 0.999]) | st.floats(0, 1), st.booleans()), min_size=1))
def test_calibration_error_is_that_of_torchmetrics(pairs: list[tuple[float, bool]]) -> None:
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import binary_calibration_error

    confidence, hit = np.array([p for p, _ in pairs]), np.array([y for _, y in pairs])
    theirs = binary_calibration_error(torch.tensor(confidence), torch.tensor(hit.astype(int)), n_bins=15, norm="l1")
    found = point_values(make_binary_cases(confidence, hit), NAMES)["ece"][0]
    assert found == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_error_of_three_classes_is_that_of_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import multiclass_calibration_error

    random = np.random.default_rng(0)
    logits, truth = random.normal(0, 2, (500, 3)), random.integers(0, 3, 500)
    names = [str(number) for number in range(500)]
    made = Cases.make(Scores(names, np.full(500, "test"), np.array(names), truth, logits), DECISIONS, None)
    theirs = multiclass_calibration_error(
        torch.tensor(made.probabilities), torch.tensor(truth), num_classes=3, n_bins=15, norm="l1"
    )
    found = point_values(made, ["a", "b", "c"])
    assert found["ece"][0] == pytest.approx(float(theirs), abs=1e-6)
    assert {"sensitivity:a", "sensitivity:b", "sensitivity:c"} < set(found)
