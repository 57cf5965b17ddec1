import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pneumo.serving.images.preparation import Preparation, encode_png, fit, to_input
from pneumo.serving.images.types import Fit
from pneumo.serving.model.heatmap import LONGEST, encode_heat, encode_overlay, project_on_film, scale_film

BLACK, WHITE = np.zeros((1, 1), dtype=np.uint8), np.full((1, 1), 255, dtype=np.uint8)


def pixels(png: bytes, mode: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert(mode))


def heat(*values: float) -> NDArray[np.float32]:
    return np.array([values], dtype=np.float32)


def as_a_model_sees(film: NDArray[np.uint8], preparation: Preparation) -> NDArray[np.float32]:
    """The input that a film becomes, in gray levels [h, w]: a heat map of what is bright."""
    return to_input(fit(film, preparation.size, preparation.fit), preparation)[0] * 255


@pytest.mark.parametrize("how", Fit)
@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (250, 250), (640, 200)])
def test_a_bright_blob_lies_on_itself_once_its_heat_map_is_laid_on_the_film(how: Fit, shape: tuple[int, int]) -> None:
    film = np.zeros(shape, dtype=np.uint8)
    film[shape[0] // 2 : shape[0] // 2 + 40, 110:150] = 255  # right of the middle and below, inside of any crop
    preparation = Preparation(size=96, fit=how, height=64, width=80)

    laid = np.nan_to_num(project_on_film(as_a_model_sees(film, preparation), preparation, shape, shape))

    rows, columns = np.nonzero(laid > 127)
    assert abs(rows.mean() - (shape[0] // 2 + 19.5)) < 2
    assert abs(columns.mean() - 129.5) < 2
    assert 0.8 < len(rows) / 40**2 < 1.25


@given(
    how=st.sampled_from(Fit),
    shape=st.tuples(st.integers(60, 300), st.integers(60, 300)),
    size=st.integers(40, 120),
    side=st.tuples(st.integers(30, 120), st.integers(30, 120)),
    axis=st.integers(0, 1),
)
def test_every_place_of_the_input_lies_on_its_place_of_the_film(
    how: Fit, shape: tuple[int, int], size: int, side: tuple[int, int], axis: int
) -> None:
    """The film grows brighter from one side to the other, so that its gray says where it is."""
    ramp = np.linspace(0, 255, shape[axis])
    film = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, shape).astype(np.uint8)
    preparation = Preparation(size=size, fit=how, height=side[0], width=side[1])

    laid = project_on_film(as_a_model_sees(film, preparation), preparation, shape, shape)

    inner = tuple(
        slice(count // 4, count - count // 4) for count in shape
    )  # at the borders cells mix with what is beyond
    seen = np.isfinite(laid[inner])
    assert seen.all() or how is Fit.CROP
    assert np.abs(laid[inner] - film[inner])[seen].max(initial=0) < 4  # half a cell and rounding


def test_where_the_model_did_not_look_there_is_no_heat() -> None:
    preparation = Preparation(size=32, fit=Fit.CROP, height=32, width=32)

    laid = project_on_film(np.ones((4, 4), dtype=np.float32), preparation, (100, 300), (100, 300))

    assert np.isnan(laid[:, :100]).all()
    assert (laid[:, 100:200] == 1).all()
    assert np.isnan(laid[:, 200:]).all()


def test_what_lies_in_the_padding_is_left_off() -> None:
    preparation = Preparation(size=90, fit=Fit.PAD, height=90, width=90)
    values = np.zeros((9, 9), dtype=np.float32)
    values[:, :2], values[:, 7:] = 7, 7

    laid = project_on_film(values, preparation, (300, 100), (300, 100))

    assert not laid.any()


@pytest.mark.parametrize("how", Fit)
def test_a_film_may_be_shown_smaller_than_it_was_sent(how: Fit) -> None:
    preparation = Preparation(size=64, fit=how, height=64, width=64)
    values = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)

    sent = project_on_film(values, preparation, (900, 600), (900, 600))
    shown = project_on_film(values, preparation, (900, 600), (300, 200))

    np.testing.assert_allclose(shown, sent[1::3, 1::3], atol=1e-5)


def test_a_large_film_is_shown_smaller_and_a_small_one_as_it_is() -> None:
    assert scale_film(np.zeros((3000, 1500), dtype=np.uint8)).shape == (LONGEST, LONGEST // 2)
    small = np.arange(200, dtype=np.uint8).reshape(10, 20)
    np.testing.assert_array_equal(scale_film(small), small)


def test_a_film_as_thin_as_a_pixel_is_shown() -> None:
    assert scale_film(np.zeros((1, 5000), dtype=np.uint8)).shape == (1, LONGEST)


def test_the_film_is_shown_unchanged() -> None:
    film = np.arange(200, dtype=np.uint8).reshape(10, 20)

    np.testing.assert_array_equal(pixels(encode_png(film), "L"), film)


def test_an_image_without_evidence_stays_gray_however_the_values_differ() -> None:
    against = -np.linspace(0, 9, 200).astype(np.float32).reshape(10, 20)
    film = np.arange(200, dtype=np.uint8).reshape(10, 20)

    drawn = pixels(encode_overlay(film, against), "RGB")

    np.testing.assert_array_equal(drawn, np.repeat(film[..., None], 3, axis=2))
    assert not pixels(encode_heat(against), "RGBA")[..., 3].any()


def test_nothing_is_drawn_where_the_model_did_not_look() -> None:
    assert pixels(encode_heat(heat(np.nan, 0.6)), "RGBA")[0, :, 3].tolist() == [0, 153]
    np.testing.assert_array_equal(pixels(encode_overlay(WHITE, heat(np.nan)), "RGB"), [[[255] * 3]])


@given(st.lists(st.floats(-2, 2, width=32), min_size=2, max_size=50))
def test_stronger_evidence_is_never_drawn_weaker_and_the_scale_is_the_same_for_all_images(values: list[float]) -> None:
    row = np.sort(heat(*values))

    drawn = pixels(encode_heat(row), "RGBA")[0, :, 3].astype(int)

    assert (np.diff(drawn) >= 0).all()
    np.testing.assert_allclose(drawn, np.clip(row[0], 0, 1) * 255, atol=0.51)


def test_opacity_says_how_much_of_the_film_is_hidden() -> None:
    strongest = heat(100)
    yellow = np.array([0xF0, 0xF9, 0x21])

    np.testing.assert_array_equal(pixels(encode_overlay(BLACK, strongest, 1.0), "RGB")[0, 0], yellow)
    np.testing.assert_array_equal(pixels(encode_overlay(BLACK, strongest, 0.0), "RGB")[0, 0], [0, 0, 0])
    half: Any = pixels(encode_overlay(BLACK, strongest, 0.5), "RGB")[0, 0]
    np.testing.assert_allclose(half, yellow / 2, atol=1)


def test_the_heat_laid_on_the_film_by_a_page_looks_as_the_overlay_does() -> None:
    film = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
    evidence = np.random.default_rng(1).normal(0, 1, (20, 30)).astype(np.float32)

    rgba = pixels(encode_heat(evidence), "RGBA").astype(float)
    cover = rgba[..., 3:] / 255 * 0.6
    laid = film[..., None] * (1 - cover) + rgba[..., :3] * cover

    np.testing.assert_allclose(pixels(encode_overlay(film, evidence, 0.6), "RGB"), laid, atol=2)


def test_colours_are_those_of_plasma() -> None:
    import matplotlib

    steps = np.linspace(0, 0.99, 60)
    drawn = pixels(encode_heat(steps[None].astype(np.float32)), "RGBA")[0]

    plasma = np.array(matplotlib.colormaps["plasma"](steps))[:, :3] * 255
    assert np.abs(drawn[1:, :3] - plasma[1:]).max() <= 8
