"""PNGs of gray of 16 bits are read as imagecodecs reads them; what their chunks declare counts."""

import struct

import imagecodecs
import numpy as np
import pytest

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.samples import CLIPPED, CURVE
from tests.support.rasters import draw_shares, insert_chunks, quantise

SHARES = draw_shares()


def write(samples: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    return insert_chunks(bytes(imagecodecs.png_encode(np.ascontiguousarray(samples))), chunks)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_samples_of_any_depth_in_16_bits_are_scaled_to_8(bits):
    content = write(quantise(SHARES, 2**bits - 1, "u2"))
    picture = read_gray(content)
    np.testing.assert_allclose(picture.gray, imagecodecs.png_decode(content) * (255 / (2**bits - 1)), atol=0.6)
    assert picture.remarks == (() if bits == 16 else (f"depth not declared, taken as {bits} bits",))
    assert picture.rules == 1


def test_hot_pixels_and_a_burnt_in_letter_do_not_darken_a_picture():
    samples = quantise(SHARES, 4095, "u2")
    plain = read_gray(write(samples)).gray
    for count, value in ((1, 4096), (1, 65_535), (15, 65_535)):
        hot = samples.copy()
        hot[20, :count] = value
        picture = read_gray(write(hot))
        np.testing.assert_array_equal(np.delete(picture.gray, 20, axis=0), np.delete(plain, 20, axis=0))
        assert picture.remarks == ("depth not declared, taken as 12 bits", CLIPPED)
        assert picture.rules == 2


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_significant_bits_are_those_before_scaling_up_or_those_of_unscaled_samples(share):
    twelve = quantise(SHARES * share, 4095, "u2")
    shifted, repeated, unscaled = twelve << 4, twelve << 4 | twelve >> 8, twelve.copy()
    unscaled[5, 5] = 4096
    for samples in (shifted, repeated, unscaled):
        picture = read_gray(write(samples, (b"sBIT", b"\x0c")))
        difference = np.abs(picture.gray - 255 * share * SHARES)
        difference[5, 5] = 0
        assert difference.max() <= 2.1
        assert set(picture.remarks) <= {CLIPPED}


@pytest.mark.parametrize("planes", [2, 3, 4])
def test_several_samples_of_16_bits_and_a_gray_that_means_transparent_are_refused(planes):
    for content in (
        write(quantise(np.dstack([SHARES] * planes), 65_535, "u2")),
        write(quantise(SHARES, 65_535, "u2"), (b"tRNS", struct.pack(">H", 7))),
    ):
        with pytest.raises(ImageError, match=r"^unsupported: 16-bit colours or alpha"):
            read_gray(content)


def test_a_dark_picture_whose_samples_were_scaled_up_stays_dark():
    twelve = quantise(SHARES / 20, 4095, "u2")
    picture = read_gray(write(twelve << 4, (b"sBIT", b"\x0c")))
    np.testing.assert_allclose(picture.gray, SHARES * (255 / 20), atol=0.6)


def gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


SRGB = (b"sRGB", b"\0")


@pytest.mark.parametrize(
    ("chunks", "unusual"),
    [
        ([], False),
        ([gamma(1 / 2.2)], False),
        ([gamma(0.45)], False),
        ([gamma(1)], True),
        ([gamma(1 / 1.8)], True),
        ([gamma(0)], True),
        ([gamma(1), SRGB], False),
        ([(b"cICP", b"\1\x0d\0\1")], False),
        ([(b"cICP", b"\x09\x10\0\1")], True),
        ([(b"cICP", b"\1\x0d\0\0")], True),
        ([(b"cICP", b"\1\x0d\0\1"), gamma(1)], False),
    ],
)
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_an_unusual_brightness_curve_is_remarked_and_not_applied(chunks, unusual, dtype):
    samples = quantise(SHARES, np.iinfo(dtype).max, dtype)
    picture = read_gray(write(samples, *chunks))
    np.testing.assert_array_equal(picture.gray, read_gray(write(samples)).gray)
    assert picture.remarks == ((CURVE,) if unusual else ())
