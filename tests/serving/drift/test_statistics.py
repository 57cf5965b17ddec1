import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import anderson_ksamp, fisher_exact, kstest

from pneumo.serving.drift import statistics
from pneumo.serving.drift.statistics import (
    Kernel,
    all_inside,
    anderson_darling,
    count_leading,
    draw_windows,
    estimate_tail,
    fisher,
    kolmogorov_smirnov,
)

SEEDS = st.integers(0, 10_000)


@pytest.mark.filterwarnings("ignore:p-value capped")
@given(SEEDS, st.integers(2, 30), st.integers(2, 30), st.sampled_from([0, 1, 5]))
def test_the_distance_of_distributions_is_anderson_and_darlings(seed, count, rest, decimals):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=count + rest).round(decimals)
    assume(len(set(values)) > 1)
    inside = rng.permutation(count + rest) < count
    n = count + rest
    found = anderson_darling(values, inside[None])[0]
    expected = anderson_ksamp([values[inside], values[~inside]], variant="right")
    # scipy gives it standardised: less its mean of 1, over the deviation of Scholz & Stephens.
    h, sizes = sum(1 / i for i in range(1, n)), 1 / count + 1 / rest
    g = sum(1 / ((n - i) * j) for i in range(1, n - 1) for j in range(i + 1, n))
    a = (4 * g - 6) + (10 - 6 * g) * sizes
    b = (2 * g - 4) * 4 + 8 * h * 2 + (2 * g - 14 * h - 4) * sizes - 8 * h + 4 * g - 6
    c = (6 * h + 2 * g - 2) * 4 + (4 * h - 4 * g + 6) * 2 + (2 * h - 6) * sizes + 4 * h
    d = (2 * h + 6) * 4 - 4 * h * 2
    variance = (a * n**3 + b * n**2 + c * n + d) / ((n - 1) * (n - 2) * (n - 3))
    assert found == pytest.approx(1 + expected.statistic * variance**0.5, rel=1e-6, abs=1e-9)


@given(SEEDS)
def test_many_windows_are_measured_as_each_alone(seed):
    rng = np.random.default_rng(seed)
    values, windows = rng.integers(0, 9, 40).astype(float), rng.permuted(np.tile(np.arange(40) < 12, (6, 1)), axis=1)
    assert anderson_darling(values, windows) == pytest.approx(
        [anderson_darling(values, row[None])[0] for row in windows]
    )


def test_a_number_that_is_always_the_same_has_no_distance():
    assert anderson_darling(np.ones(9), np.arange(9)[None] < 4) == pytest.approx([0.0])


def test_the_gap_is_between_the_distribution_functions():
    assert kolmogorov_smirnov(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3, 4])) == 0
    assert kolmogorov_smirnov(np.array([1.0, 2, 3, 4]), np.array([3.0, 4])) == pytest.approx(0.5)
    assert kolmogorov_smirnov(np.array([1.0, 2]), np.array([7.0, 8, 9])) == 1


@given(st.integers(1, 60), st.integers(1, 400), st.data())
def test_the_test_of_two_shares_is_fishers(count, rest, data):
    a, b = data.draw(st.integers(0, count)), data.draw(st.integers(0, rest))
    found = fisher(np.array([a, a]), count, np.array([b, b]), rest)
    assert found == pytest.approx([fisher_exact([[a, count - a], [b, rest - b]]).pvalue] * 2, rel=1e-6)


@given(st.integers(0, 10), st.integers(10, 60), st.integers(1, 400))
def test_the_chance_that_all_odd_images_are_inside_is_that_of_fishers_test_of_none_outside(odd, count, rest):
    expected = fisher_exact([[odd, count - odd], [0, rest]], alternative="greater").pvalue
    assert all_inside(np.array([odd]), count, rest) == pytest.approx([expected], rel=1e-6)


def test_leading_images_are_those_above_all_outside():
    windows = np.array([[True, True, False, True], [False, True, False, False], [True, False, False, True]])
    assert count_leading(np.array([9.0, 7.0, 5.0, 1.0]), windows).tolist() == [2, 0, 1]


@settings(max_examples=20)
@given(SEEDS)
def test_the_discrepancy_is_that_of_its_definition(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=(9, 3)), rng.normal(1, 1, size=(6, 3))
    both = np.concatenate([one, other])
    squared = ((both[:, None] - both[None]) ** 2).sum(axis=2)
    kernel = np.exp(-squared / np.median(squared[:9, :9][np.triu_indices(9, 1)]))
    inside = [kernel[i, j] for i in range(9) for j in range(9) if i != j]
    outside = [kernel[i, j] for i in range(9, 15) for j in range(9, 15) if i != j]
    expected = np.mean(inside) + np.mean(outside) - 2 * kernel[:9, 9:].mean()
    value, extreme = Kernel(one).measure_window(other)
    assert value == pytest.approx(expected, abs=1e-12)
    assert extreme == pytest.approx(expected / (1 / 6 + 1 / 9), abs=1e-12)


def test_windows_out_of_the_reference_are_measured_as_windows_from_elsewhere():
    points = np.random.default_rng(0).normal(size=(12, 3))
    windows = np.array([np.arange(12) < 4, np.arange(12) % 3 == 0])
    whole = Kernel(points)
    for row, found in zip(windows, whole.measure_members(windows), strict=True):
        rest = Kernel(points[~row])
        rest._width = whole._width
        rest._inner = whole._inner[np.ix_(~row, ~row)]
        assert found == pytest.approx(rest.measure_window(points[row])[1])


def test_the_discrepancy_of_equal_distributions_has_uniform_p_values():
    rng = np.random.default_rng(0)
    windows = rng.permuted(np.tile(np.arange(90) < 30, (200, 1)), axis=1)
    found = []
    for _ in range(100):
        kernel = Kernel(rng.normal(size=(90, 5)))
        extreme = kernel.measure_window(rng.normal(size=(30, 5)))[1]
        found.append((kernel.measure_members(windows) >= extreme).mean())
    assert kstest(found, "uniform").pvalue > 0.01


def test_likeness_is_highest_in_the_middle_of_the_reference_and_leaves_an_image_itself_out():
    points = np.random.default_rng(0).normal(size=(50, 3))
    kernel = Kernel(points)
    middle, far = kernel.likeness(np.array([[0.0, 0, 0], [9.0, 9, 9]]))
    assert middle > 0.3 > 0.01 > far
    squared = ((points[1:] - points[0]) ** 2).sum(axis=1)
    assert kernel.likeness(points, own=True)[0] == pytest.approx(np.exp(-squared / kernel._width).mean())


def test_of_very_many_images_chance_takes_some(monkeypatch):
    monkeypatch.setattr(statistics, "MOST", 30)
    rng = np.random.default_rng(0)
    kernel = Kernel(rng.normal(size=(100, 3)))
    assert len(kernel) == 30
    assert abs(kernel.measure_window(rng.normal(size=(90, 3)))[0]) < 0.1


@given(st.lists(st.integers(0, 15), min_size=2, max_size=60), st.data())
def test_windows_have_their_size_and_hold_whole_patients_but_one(groups, data):
    groups = np.array(groups)
    size = data.draw(st.integers(1, len(groups) - 1))
    drawn = draw_windows(groups, size, draws=5, seed=data.draw(st.integers(0, 99)))
    assert drawn.sum(axis=1).tolist() == [size] * 5
    for window in drawn:
        parts = [window[groups == group].mean() for group in np.unique(groups)]
        assert sum(0 < part < 1 for part in parts) <= 1


def test_every_image_has_the_same_chance_where_each_is_of_another_patient():
    shares = draw_windows(np.arange(40), 10, draws=4000).mean(axis=0)
    assert np.abs(shares - 0.25).max() < 0.03


def test_the_same_seed_draws_the_same_windows():
    groups = np.repeat(np.arange(20), 3)
    assert np.array_equal(draw_windows(groups, 12, draws=50, seed=1), draw_windows(groups, 12, draws=50, seed=1))
    assert not np.array_equal(draw_windows(groups, 12, draws=50, seed=1), draw_windows(groups, 12, draws=50, seed=2))


@pytest.mark.parametrize(("freedom", "value"), [(1, 15.137), (2, 18.421), (5, 25.745)])
def test_a_rare_value_beyond_all_draws_has_about_its_chance(freedom, value):
    chances = []
    for seed in range(20):
        drawn = np.sort(np.random.default_rng(seed).chisquare(freedom, size=2000))
        chances.append(estimate_tail(drawn, value))
        assert chances[-1] > estimate_tail(drawn, 1.1 * value) > 0
    assert 0.5e-4 < np.median(chances) < 2e-4
    assert 1e-5 < min(chances) < max(chances) < 1e-3


def test_the_tail_of_equal_draws_or_of_few_is_not_known():
    assert estimate_tail(np.ones(2000), 2.0) == estimate_tail(np.arange(15.0), 99.0) == 1.0
