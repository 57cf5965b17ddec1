import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.serving.drift.resample import windows


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=2, max_size=60), st.data())
def test_windows_have_their_size_and_hold_whole_patients_but_one(groups, data):
    groups = np.array(groups)
    size = data.draw(st.integers(1, len(groups) - 1))
    drawn = windows(groups, size, draws=5, seed=data.draw(st.integers(0, 99)))
    assert drawn.sum(axis=1).tolist() == [size] * 5
    for window in drawn:
        parts = [window[groups == group].mean() for group in np.unique(groups)]
        assert sum(0 < part < 1 for part in parts) <= 1


def test_every_image_has_the_same_chance_where_each_is_of_another_patient():
    shares = windows(np.arange(40), 10, draws=4000).mean(axis=0)
    assert np.abs(shares - 0.25).max() < 0.03


def test_the_same_seed_draws_the_same_windows():
    groups = np.repeat(np.arange(20), 3)
    assert np.array_equal(windows(groups, 12, draws=50, seed=1), windows(groups, 12, draws=50, seed=1))
    assert not np.array_equal(windows(groups, 12, draws=50, seed=1), windows(groups, 12, draws=50, seed=2))
