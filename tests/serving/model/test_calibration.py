import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pneumo.serving.model.calibration import build_prediction_sets, calibrate_logits, find_certain

LOGITS = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(2, 4)), elements=st.floats(-1e4, 1e4, width=32))


def test_a_binary_logit_beside_zero_gives_the_sigmoid():
    logits = np.array([[0, -2.0], [0, 0], [0, 3.0]])
    np.testing.assert_allclose(calibrate_logits(logits, 1.0)[:, 1], 1 / (1 + np.exp([2.0, 0, -3.0])))


@given(LOGITS, st.floats(0.05, 20))
def test_rows_are_probabilities_and_keep_the_order_of_the_logits(logits, temperature):
    probabilities = calibrate_logits(logits, temperature)
    assert np.isfinite(probabilities).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    for row, given_row in zip(probabilities, logits, strict=True):
        assert row[given_row.argmax()] == row.max()


@given(LOGITS)
def test_a_higher_temperature_is_less_sure(logits):
    assert (calibrate_logits(logits, 2.0).max(axis=1) <= calibrate_logits(logits, 1.0).max(axis=1) + 1e-12).all()


@pytest.mark.parametrize(
    ("limit", "sizes"), [(0.05, [0, 0]), (0.15, [1, 0]), (0.5, [1, 1]), (0.7, [1, 2]), (1, [2, 2])]
)
def test_a_set_holds_the_classes_within_the_limit(limit, sizes):
    assert build_prediction_sets(np.array([[0.1, 0.9], [0.4, 0.6]]), [limit, limit]).sum(axis=1).tolist() == sizes


def test_each_class_has_a_limit_of_its_own():
    sets = build_prediction_sets(np.array([[0.1, 0.9], [0.4, 0.6]]), [0.95, 0.3])
    assert sets.tolist() == [[True, True], [True, False]]


def test_a_class_exactly_at_the_limit_stays_in():
    assert build_prediction_sets(np.array([[0.25, 0.75]]), [0.25, 0.25]).tolist() == [[False, True]]


def test_only_a_set_that_is_the_answer_alone_is_certain():
    sets = np.array([[True, False], [True, False], [True, True], [False, False]])
    assert find_certain(sets, np.array([0, 1, 0, 0])).tolist() == [True, False, False, False]
