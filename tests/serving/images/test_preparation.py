import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pneumo.serving.images.decode import prepare
from pneumo.serving.images.preparation import Preparation, encode_png, fit, resize, to_input
from pneumo.serving.images.types import Decode, Fit

RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))


@pytest.mark.parametrize("how", Fit)
def test_every_fit_gives_the_square(how):
    for shape in ((1, 1), (1, 3000), (3000, 1), (50, 70), (200, 100)):
        assert fit(np.full(shape, 90, dtype=np.uint8), 32, how).shape == (32, 32), shape


def test_pad_keeps_the_whole_image_on_black():
    fitted = fit(np.full((50, 100), 200, np.uint8), 40, Fit.PAD)
    assert (fitted[10:30] == 200).all()
    assert (fitted[:10] == 0).all()
    assert (fitted[30:] == 0).all()


def test_crop_keeps_the_centre():
    wide = np.zeros((50, 100), np.uint8)
    wide[:, 25:75] = 200
    assert (fit(wide, 50, Fit.CROP) == 200).all()


def test_squash_keeps_everything_and_ignores_the_aspect():
    wide = np.zeros((50, 100), np.uint8)
    wide[:, 50:] = 200
    fitted = fit(wide, 50, Fit.SQUASH)
    assert (fitted[:, :24] == 0).all()
    assert (fitted[:, 26:] == 200).all()


@given(st.sampled_from(list(Fit)), st.integers(1, 300), st.integers(1, 300), st.integers(8, 100))
def test_fits_are_those_that_data_sets_were_made_with_so_far(how, height, width, size):
    gray = np.random.default_rng(height).integers(0, 256, (height, width)).astype(np.uint8)
    image, square, method = Image.fromarray(gray), (size, size), Image.Resampling.BILINEAR
    if how is Fit.SQUASH:
        expected = image.resize(square, method)
    elif how is Fit.PAD:
        expected = ImageOps.pad(image, square, method=method, color=0)
    else:
        expected = ImageOps.fit(image, square, method=method)
    np.testing.assert_array_equal(fit(gray, size, how), np.asarray(expected))


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(Fit)), st.integers(8, 64), st.integers(8, 64))
def test_a_prepared_image_and_its_original_give_the_same_input(seed, how, height, width):
    original = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    preparation = Preparation(size=24, fit=how, height=20, width=16, channels=3)
    stored = fit(original, 24, how)
    np.testing.assert_array_equal(fit(stored, 24, how), stored)
    np.testing.assert_array_equal(prepare(encode_png(original), preparation), prepare(encode_png(stored), preparation))


def test_the_input_holds_the_gray_image_once_a_channel_between_zero_and_one():
    stored = fit(RAMP, 32, Fit.SQUASH)
    prepared = to_input(stored, Preparation(size=32, height=32, width=32, channels=3))
    assert prepared.shape == (3, 32, 32)
    assert prepared.dtype == np.float32
    assert prepared.flags.c_contiguous
    for channel in prepared:
        np.testing.assert_array_equal(channel, stored.astype(np.float32) / np.float32(255))


def test_resize_to_the_same_size_changes_nothing():
    np.testing.assert_array_equal(resize(RAMP, *RAMP.shape), RAMP)


def test_preparations_that_do_not_say_decode_in_full():
    assert Preparation.model_validate({"size": 224, "height": 224, "width": 224}).decode is Decode.FULL
