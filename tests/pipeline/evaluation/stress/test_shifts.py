import numpy as np
import pytest

from pneumo.pipeline.data.phantom.radiograph import draw_radiograph
from pneumo.pipeline.evaluation.stress import pixel_changes as changes
from pneumo.pipeline.evaluation.stress.shifts import Family, Shift, Use, list_shifts

GRAY = draw_radiograph("NORMAL", np.random.default_rng(0), size=224)


@pytest.mark.parametrize("size", [28, 224])
def test_every_shift_changes_an_image_the_same_way_each_time_and_keeps_its_shape(size: int) -> None:
    gray = draw_radiograph("PNEUMONIA", np.random.default_rng(1), size=max(size, 32))[:size, :size].copy()
    before = gray.copy()

    for shift in list_shifts():
        both = [shift.apply(gray, "images/a.png", positive=positive) for positive in (False, True)]
        for positive, changed in enumerate(both):
            assert changed.dtype == np.uint8, shift.title
            assert changed.shape == gray.shape, shift.title
            again = shift.apply(gray, "images/a.png", positive=bool(positive))
            np.testing.assert_array_equal(again, changed, err_msg=shift.title)
        np.testing.assert_array_equal(gray, before, err_msg=shift.title)
        assert not all(np.array_equal(changed, gray) for changed in both), shift.title
        assert np.array_equal(both[0], both[1]) is (shift.family is not Family.CLASS_LINKED), shift.title


def test_titles_differ_and_each_kind_has_two_strengths_or_more() -> None:
    found = list_shifts()
    assert len({shift.title for shift in found}) == len(found)
    names = [shift.name for shift in found]
    assert len(set(names)) >= 15
    assert all(names.count(name) >= 2 for name in names)


def test_every_change_has_one_family_and_what_is_only_for_the_report_serves_nothing_else() -> None:
    every = [shift.title for shift in list_shifts()]
    selection, fitting, report = ([shift.title for shift in list_shifts(use)] for use in Use)
    assert set(selection) < set(fitting)
    assert not set(fitting) & set(report)
    assert sorted(fitting + report) == sorted(every)
    for use in (Use.FITTING, Use.REPORT):  # what is fitted without a family can be judged by that family
        families = {shift.family for shift in list_shifts(use)}
        assert families >= {each for each in Family if each is not Family.MIXED}, use
    assert all(shift.use is Use.REPORT for shift in list_shifts() if shift.family is Family.MIXED)
    more_classes = {shift.title for shift in list_shifts(binary=False)}
    by_class = [shift for shift in list_shifts() if shift.family is Family.CLASS_LINKED]
    assert set(every) - more_classes == {shift.title for shift in by_class}


def test_the_second_strength_changes_more_than_the_first() -> None:
    keys = [f"images/{number}.png" for number in range(8)]  # directions are drawn by chance

    def moved(shift: Shift) -> float:
        changed = [shift.apply(GRAY, key, positive=positive) for key in keys for positive in (False, True)]
        return float(np.mean([np.abs(each - GRAY.astype(float)).mean() for each in changed]))

    for name in {shift.name for shift in list_shifts()}:
        first, second = (shift for shift in list_shifts() if shift.name == name)
        assert moved(second) > moved(first) > 0, name


@pytest.mark.parametrize("level", [0, 255])
def test_a_flat_image_survives_every_shift(level: int) -> None:
    for shift in list_shifts():
        assert shift.apply(np.full((40, 32), level, np.uint8), "a").shape == (40, 32), shift.title


@pytest.mark.parametrize("name", ["quantum noise", "rotation", "collimation", "lead marker", "another department"])
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


def test_a_wide_film_that_is_cut_shows_a_taller_chest_that_touches_both_edges() -> None:
    rows = np.repeat(np.linspace(10, 250, 100)[:, None], 80, axis=1).astype(np.uint8)
    cut = changes.cut_film(rows, np.random.default_rng(0), 0.2)
    assert np.ptp(cut[:, 40].astype(int)) == pytest.approx(0.8 * 240, abs=6)
    assert cut.min() > 10
    assert cut.max() < 250


def test_a_collimated_field_is_black_outside_and_unchanged_inside() -> None:
    light = np.full((100, 100), 180, np.uint8)
    field = changes.collimate(light, np.random.default_rng(0), 0.1)
    assert set(np.unique(field)) == {0, 180}
    assert not field[0].any()
    assert (field[20:80, 20:80] == 180).all()
    assert 0.6 < (field == 180).mean() < 0.9


def test_a_marker_is_bright_and_lies_in_an_upper_corner() -> None:
    for number in range(8):
        marked = np.argwhere(
            changes.add_marker(np.zeros((200, 200), np.uint8), np.random.default_rng(number), 0.08) > 150
        )
        assert len(marked) > 10
        assert marked[:, 0].max() < 60
        assert marked[:, 1].max() < 140 or marked[:, 1].min() > 60


def test_processing_does_what_its_name_says() -> None:
    fine, coarse = (np.tile((128 + depth * np.sin(np.arange(128) / step)).astype(np.uint8), (128, 1))
                    for depth, step in ((4, 1.0), (60, 20.0)))  # fmt: skip
    assert changes.enhance(GRAY, 1.0) == pytest.approx(GRAY, abs=1)
    image = np.clip(fine.astype(int) + coarse - 128, 0, 255).astype(np.uint8)
    enhanced = changes.enhance(image, 0.7)
    assert (
        np.abs(np.diff(enhanced.astype(int), axis=1)).mean() > 1.2 * np.abs(np.diff(image.astype(int), axis=1)).mean()
    )
    dark_beside_light = np.repeat(np.where(np.arange(224) < 112, 40, 220)[None], 224, axis=0).astype(np.uint8)
    veiled = changes.scatter(dark_beside_light, 0.7).astype(int)[112]
    assert veiled[120] < veiled[216] - 30  # dense, beside what lets radiation through
    assert veiled[216] == pytest.approx(220, abs=3)
    lines = changes.add_lines(np.full((300, 50), 128, np.uint8), np.random.default_rng(0), 5)
    assert lines.std(axis=0).mean() == pytest.approx(5, rel=0.2)
    assert not lines.std(axis=1).any()


def test_an_older_child_has_a_narrower_heart_and_longer_lungs() -> None:
    heart = np.zeros((200, 200), np.uint8)
    heart[90:150, 78:138] = 200
    older = changes.grow_chest(heart, 0.3)
    wide, tall = (int((older > 100).any(axis=axis).sum()) for axis in (0, 1))
    assert wide == pytest.approx(60 * 0.75, abs=3)
    assert tall == pytest.approx(60 * 1.1, abs=4)
