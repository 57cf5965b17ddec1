import numpy as np
import pytest

from pneumo.pipeline.data.phantom.radiograph import draw_radiograph
from pneumo.pipeline.evaluation.stress import shifts as changes
from pneumo.pipeline.evaluation.stress.shifts import Shift, list_shifts

GRAY = draw_radiograph("NORMAL", np.random.default_rng(0), size=224)


@pytest.mark.parametrize("size", [28, 224])
def test_every_shift_changes_an_image_the_same_way_each_time_and_keeps_its_shape(size: int) -> None:
    gray = draw_radiograph("PNEUMONIA", np.random.default_rng(1), size=max(size, 32))[:size, :size].copy()
    before = gray.copy()

    for shift in list_shifts():
        changed = shift.apply(gray, "images/a.png")

        assert changed.dtype == np.uint8, shift.title
        assert changed.shape == gray.shape, shift.title
        assert not np.array_equal(changed, gray), shift.title
        np.testing.assert_array_equal(gray, before, err_msg=shift.title)
        np.testing.assert_array_equal(shift.apply(gray, "images/a.png"), changed, err_msg=shift.title)


def test_titles_differ_and_each_kind_has_two_strengths_or_more() -> None:
    found = list_shifts()
    assert len({shift.title for shift in found}) == len(found)
    names = [shift.name for shift in found]
    assert len(set(names)) >= 15
    assert all(names.count(name) >= 2 for name in names)


def test_the_second_strength_changes_more_than_the_first() -> None:
    keys = [f"images/{number}.png" for number in range(8)]  # directions are drawn by chance

    def moved(shift: Shift) -> float:
        return float(np.mean([np.abs(shift.apply(GRAY, key) - GRAY.astype(float)).mean() for key in keys]))

    for name in {shift.name for shift in list_shifts()}:
        first, second = (shift for shift in list_shifts() if shift.name == name)
        assert moved(second) > moved(first) > 0, name


@pytest.mark.parametrize("level", [0, 255])
def test_a_flat_image_survives_every_shift(level: int) -> None:
    for shift in list_shifts():
        assert shift.apply(np.full((40, 32), level, np.uint8), "a").shape == (40, 32), shift.title


@pytest.mark.parametrize("name", ["quantum noise", "heel effect", "rotation", "translation"])
def test_what_chance_decides_depends_on_the_image_it_is_for(name: str) -> None:
    shift = next(shift for shift in list_shifts() if shift.name == name)
    found = {shift.apply(GRAY, f"images/{number}.png").tobytes() for number in range(8)}
    assert len(found) > 1


def test_exposure_goes_where_its_name_says() -> None:
    assert changes.gamma(GRAY, 2.0).mean() < GRAY.mean() < changes.gamma(GRAY, 0.5).mean()
    assert changes.contrast(GRAY, 0.5).std() == pytest.approx(GRAY.std() / 2, rel=0.02)
    assert changes.brightness(np.full((9, 9), 100, np.uint8), 30)[0, 0] == 130
    assert changes.brightness(np.full((9, 9), 240, np.uint8), 30)[0, 0] == 255
    dark, light = np.full((9, 9), 60, np.uint8), np.full((9, 9), 200, np.uint8)
    assert changes.tone(dark, 2)[0, 0] < 60 < changes.tone(dark, 0.5)[0, 0]
    assert changes.tone(light, 2)[0, 0] > 200 > changes.tone(light, 0.5)[0, 0]
    assert np.ptp(np.bincount(changes.equalise(GRAY, 1.0).ravel() // 32, minlength=8)) < np.ptp(
        np.bincount(GRAY.ravel() // 32, minlength=8)
    )


def test_noise_is_strongest_where_least_radiation_comes_through() -> None:
    random = np.random.default_rng(0)
    dark, light = (np.full((224, 224), level, np.uint8) for level in (80, 220))
    spread = [changes.quantum_noise(gray, random, 1000).std() for gray in (dark, light)]
    assert spread[1] > 2 * spread[0] > 0
    # Of N e^(-3 x) photons the logarithm has a deviation of 1 / sqrt(N e^(-3 x)).
    assert spread[0] == pytest.approx(255 / 3 / np.sqrt(1000 * np.exp(-3 * 80 / 255)), rel=0.05)


def test_blur_and_sharpening_are_opposites_in_detail() -> None:
    def detail(gray: np.ndarray) -> float:
        return float(np.abs(np.diff(gray.astype(float), axis=1)).mean())

    assert detail(changes.blur(GRAY, 2)) < detail(changes.coarsen(GRAY, 2)) < detail(GRAY)
    assert detail(changes.sharpen(GRAY, 1)) > detail(GRAY)


def spot(x: float, y: float) -> np.ndarray:
    """A bright disc at a place in shares of the side."""
    rows, columns = (np.mgrid[:100, :200] + 0.5) / np.array([100, 200])[:, None, None]
    return np.where(((columns - x) / 0.05) ** 2 + ((rows - y) / 0.05) ** 2 < 1, 255, 0).astype(np.uint8)


def centre(gray: np.ndarray) -> tuple[float, float]:
    rows, columns = (np.mgrid[:100, :200] + 0.5) / np.array([100, 200])[:, None, None]
    return float(np.average(columns, weights=gray)), float(np.average(rows, weights=gray))


def test_a_warp_scales_moves_and_turns_about_the_centre() -> None:
    assert centre(changes.warp(spot(0.6, 0.6), scale=(2, 1))) == pytest.approx((0.7, 0.6), abs=0.01)
    assert centre(changes.warp(spot(0.6, 0.6), scale=(1, 2))) == pytest.approx((0.6, 0.7), abs=0.01)
    assert centre(changes.warp(spot(0.5, 0.5), move=(0.1, -0.2))) == pytest.approx((0.6, 0.3), abs=0.01)
    x, y = centre(changes.warp(spot(0.6, 0.5), degrees=90))
    assert x == pytest.approx(0.5, abs=0.01)
    assert abs(y - 0.5) == pytest.approx(0.2, abs=0.01)


def test_the_heel_effect_darkens_one_edge_and_brightens_the_other() -> None:
    gray = changes.heel_effect(np.full((50, 50), 120, np.uint8), np.random.default_rng(0), 0.4)
    assert gray.min() == pytest.approx(120 * 0.6, abs=2)
    assert gray.max() == pytest.approx(120 * 1.4, abs=2)
    assert gray.mean() == pytest.approx(120, abs=1)
