"""JPEGs: scans outside segments count, and what Pillow does not decode is named."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.jpeg import find_excess
from tests.support.rasters import draw_shares, quantise

PICTURE = quantise(draw_shares(64, 64), 255, "u1")

ARITHMETIC = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300080606070605080707070909080a0c140d0c0b0b0c1912130f141d1a1f1e1d"
    "1a1c1c20242e2720222c231c1c2837292c30313434341f27393d38323c2e333432ffc9000b080040004001011100ffcc000600101005ffda"
    "0008010100003f00ff00ca7845812865fe5ffb5164ea7958d6dc78707b01b8befbb11c9f24a0d95a2fc4f836e2324a005f5ca1691d9f06e0"
    "92069bd8f35103c445809549b8f9b65a5a2ddff78d3525989a8618d2ff00e8ea2c75585ff90ac97e76b9f7c82bfce347ec4b8bfbea46ddd4"
    "c58a10ffd9"
)
"""A slope of 64 x 64 by `cjpeg -arithmetic`."""


def write(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def insert(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read_gray(data)
    return str(caught.value)


def test_bytes_of_scans_within_profiles_thumbnails_and_further_pictures_do_not_count():
    plain = write()
    thumbnail = write(progressive=True)
    profile = b"ICC_PROFILE\0\1\1" + b"\xff\xda\0\x08" * 4000
    for content in (
        insert(plain, segment(0xE2, profile)),
        insert(plain, *[segment(0xE1, b"Exif\0\0" + thumbnail * 4)] * 12),
        insert(plain, segment(0xFE, b"\xff\xda" * 100)),
        plain + write(progressive=True) * 12,
    ):
        assert content.count(b"\xff\xda") > 40
        np.testing.assert_array_equal(read_gray(content).gray, read_gray(plain).gray)


def test_scans_count_wherever_other_segments_lie_between_them():
    content = write(progressive=True)
    last = content[content.rfind(b"\xff\xda") : -2]
    for between in (b"", segment(0xE2, bytes(50)), segment(0xFE, b"\xff\xd9"), b"\xff\xd0\xff\xff"):
        assert "scans" in reason_of(content[:-2] + (between + last) * 50 + content[-2:])
    hidden = segment(0xFE, b"") * 25_000
    assert "scans" in reason_of(content[:-2] + hidden + last * 50 + content[-2:])


def test_any_bytes_are_judged_in_linear_time():
    for piece in (b"\xff", b"\xff\0", b"\0", b"\xff\xda", b"\xff\xc0\0\0", b"\xff\xd8"):
        assert isinstance(find_excess(b"\xff\xd8" + piece * 500_000, 40, 20_000), str | None)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (imagecodecs.jpeg8_encode(PICTURE.astype("u2") * 16, bitspersample=12), "JPEG of more than 8 bits"),
        (imagecodecs.ljpeg_encode(PICTURE.astype("u2") * 257), "lossless JPEG"),
        (imagecodecs.jpegls_encode(PICTURE), "JPEG-LS"),
        (write().replace(b"\xff\xc0", b"\xff\xc5", 1), "hierarchical JPEG"),
    ],
)
def test_a_jpeg_that_pillow_does_not_decode_is_named(content, name):
    assert reason_of(content) == f"unsupported: {name}; save it as PNG"


def test_an_arithmetic_coded_jpeg_is_read():
    decoded = imagecodecs.jpeg8_decode(ARITHMETIC)
    assert decoded.shape == (64, 64)
    assert np.abs(read_gray(ARITHMETIC).gray.astype(int) - decoded).max() <= 1


def test_a_damaged_jpeg_is_no_unsupported_one():
    assert reason_of(write()[:200]).startswith("damaged")


def test_an_unsupported_bmp_is_no_damaged_one():
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "BMP")
    content = bytearray(buffer.getvalue())
    content[30:34] = struct.pack("<I", 4)  # a JPEG within
    assert reason_of(bytes(content)).startswith("unsupported: Unsupported BMP compression")
