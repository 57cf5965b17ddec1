"""PNGs of 16 bits are read as imagecodecs reads them; what their chunks declare counts."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.grayscale import TRANSPARENT
from pneumo.serving.images.samples import CLIPPED, CURVE
from tests.support.rasters import PALE, draw_shares, insert_chunks, quantise, to_luma

SHARES = draw_shares()
OPAQUE = np.ones_like(SHARES)


def write(samples: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    return insert_chunks(bytes(imagecodecs.png_encode(np.ascontiguousarray(samples))), chunks)


def stack(colours: int, alpha: np.ndarray | None) -> np.ndarray:
    planes = [SHARES * share for share in PALE] if colours == 3 else [SHARES]
    return np.dstack([*planes, *([] if alpha is None else [alpha])]).squeeze()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("alpha", [None, OPAQUE])
@pytest.mark.parametrize("colours", [1, 3])
def test_samples_of_any_depth_in_16_bits_are_scaled_to_8(colours, alpha, bits):
    samples = quantise(stack(colours, alpha), 2**bits - 1, "u2")
    content = write(samples)
    shares = imagecodecs.png_decode(content).reshape(*SHARES.shape, -1) / (2**bits - 1)
    expected = 255 * (to_luma(shares[..., :3]) if colours == 3 else shares[..., 0])
    picture = read_gray(content)
    np.testing.assert_allclose(picture.gray, expected, atol=1.6)
    assert picture.remarks == (() if bits == 16 else (f"depth not declared, taken as {bits} bits",))
    assert picture.rules == (2 if bits < 16 and (colours, alpha is None) != (1, True) else 1)


def test_colours_of_full_depth_keep_the_pixels_of_older_rules():
    content = write(quantise(stack(3, None), 65_535, "u2"))
    with Image.open(io.BytesIO(content)) as image:
        before = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(read_gray(content).gray, before)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("colours", [1, 3])
def test_alpha_of_16_bits_has_the_scale_of_the_colours_or_of_the_container(colours, bits, share):
    alpha = np.where(np.arange(SHARES.shape[1]) < 20, share, 1.0) * OPAQUE
    for scale in {bits, 16}:
        samples = quantise(stack(colours, None), 2**bits - 1, "u2")
        content = write(np.dstack([samples, quantise(alpha, 2**scale - 1, "u2")]))
        luma = to_luma(stack(3, None)) if colours == 3 else SHARES
        picture = read_gray(content)
        np.testing.assert_allclose(picture.gray, 255 * luma * alpha, atol=2.1)
        assert TRANSPARENT in picture.remarks


@pytest.mark.parametrize("colours", [1, 3])
def test_hot_pixels_and_a_burnt_in_letter_do_not_darken_a_picture(colours):
    samples = quantise(stack(colours, None), 4095, "u2")
    plain = read_gray(write(samples)).gray
    for count, value in ((1, 4096), (1, 65_535), (15, 65_535)):
        hot = samples.copy()
        hot[20, :count] = value
        picture = read_gray(write(hot))
        np.testing.assert_array_equal(np.delete(picture.gray, 20, axis=0), np.delete(plain, 20, axis=0))
        assert picture.remarks == ("depth not declared, taken as 12 bits", CLIPPED)
        assert picture.rules == 2


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_significant_bits_are_those_before_scaling_up_or_those_of_unscaled_samples(colours, share):
    chunk = (b"sBIT", bytes([12] * colours))
    twelve = quantise(stack(colours, None) * share, 4095, "u2")
    expected = read_gray(write(twelve.astype("u2") << 4)) if share == 1 else None
    shifted, repeated, unscaled = twelve << 4, twelve << 4 | twelve >> 8, twelve.copy()
    unscaled[5, 5] = 4096
    luma = 255 * share * (to_luma(stack(3, None)) if colours == 3 else SHARES)
    for samples in (shifted, repeated, unscaled):
        picture = read_gray(write(samples, chunk))
        difference = np.abs(picture.gray - luma)
        difference[5, 5] = 0
        assert difference.max() <= 2.1
        assert set(picture.remarks) <= {CLIPPED}
    if expected is not None:
        assert expected.remarks == ()


def test_a_dark_picture_whose_samples_were_scaled_up_stays_dark():
    twelve = quantise(SHARES / 20, 4095, "u2")
    picture = read_gray(write(twelve << 4, (b"sBIT", b"\x0c")))
    np.testing.assert_allclose(picture.gray, SHARES * (255 / 20), atol=0.6)


@pytest.mark.parametrize("colours", [1, 3])
def test_the_colour_that_means_transparent_is_black(colours):
    samples = quantise(stack(colours, None), 65_535, "u2")
    samples[10:20, 10:20] = key = samples[-1, -1]
    picture = read_gray(write(samples, (b"tRNS", struct.pack(f">{colours}H", *np.atleast_1d(key)))))
    assert (picture.gray[10:20, 10:20] == 0).all()
    assert picture.gray[25, 30] == pytest.approx(read_gray(write(samples)).gray[25, 30], abs=1)
    assert (picture.remarks, picture.rules) == ((TRANSPARENT,), 2)


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


def test_a_png_of_16_bit_colours_may_have_half_of_the_pixels():
    content = write(np.zeros((100, 100, 3), "u2"))
    with pytest.raises(ImageError, match="more than 9,999 pixels"):
        read_gray(content, max_pixels=19_999)
    assert read_gray(content, max_pixels=20_000).gray.shape == (100, 100)
