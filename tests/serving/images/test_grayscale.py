"""Transparency: composited on black where that shows the picture, refused where it would vanish."""

import io

import numpy as np
import pytest
from PIL import Image

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.grayscale import TRANSPARENT
from tests.support.rasters import draw_shares, quantise

PICTURE = quantise(draw_shares(), 255, "u1")


def write(colour: np.ndarray, alpha: np.ndarray, mode: str = "RGBA", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(colour).convert(mode)
    image.putalpha(Image.fromarray(alpha))
    image.save(buffer, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


@pytest.mark.parametrize(("mode", "kind"), [("LA", "PNG"), ("RGBA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF")])
@pytest.mark.parametrize("bands", [100, 2**18])
def test_a_picture_in_the_alpha_is_shown_by_a_bright_colour_and_refused_in_a_dark_one(mode, kind, bands, monkeypatch):
    monkeypatch.setattr("pneumo.serving.images.grayscale._BAND", bands)
    bright = read_gray(write(np.full_like(PICTURE, 255), PICTURE, mode, kind))
    np.testing.assert_allclose(bright.gray, PICTURE, atol=1)
    assert (bright.remarks, bright.rules) == ((TRANSPARENT,), 1)
    dark = np.full_like(PICTURE, 3)
    dark[5, :9] = 200  # a few other pixels change nothing
    with pytest.raises(ImageError, match=r"^unsupported: the picture lies in the alpha"):
        read_gray(write(dark, PICTURE, mode, kind))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_an_opaque_alpha_changes_nothing(mode):
    picture = read_gray(write(PICTURE, np.full_like(PICTURE, 255), mode))
    np.testing.assert_array_equal(picture.gray, PICTURE)
    assert picture.remarks == ()


def test_a_picture_in_the_colours_is_composited_on_black():
    alpha = np.where(np.arange(PICTURE.shape[1]) < 10, 0, 255) * np.ones_like(PICTURE)
    picture = read_gray(write(PICTURE, alpha.astype("u1")))
    np.testing.assert_array_equal(picture.gray, np.where(alpha, PICTURE, 0))
    assert picture.remarks == (TRANSPARENT,)


def test_an_image_without_a_pixel_that_shows_is_refused():
    with pytest.raises(ImageError, match=r"^unsupported: all pixels are transparent"):
        read_gray(write(PICTURE, np.zeros_like(PICTURE)))


def test_a_black_image_with_an_even_alpha_is_black():
    assert read_gray(write(np.zeros_like(PICTURE), np.full_like(PICTURE, 128))).gray.max() == 0
