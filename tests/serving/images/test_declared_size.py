import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pneumo.serving.images.declared_size import count_pixels, is_quick
from tests.support.dicoms import make_dicom


def encoded(image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (70, 30)).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_the_size_is_that_of_the_header(image_format):
    data = encoded(image_format)
    assert count_pixels(data) == 2100
    assert is_quick(data) == (image_format in ("PNG", "JPEG"))


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"exif": b"Exif\0\0" + b"\xff\xc0" * 50}, {"comment": b"\xff\xc0"}]
)
def test_markers_within_other_segments_of_a_jpeg_are_passed_over(options):
    assert count_pixels(encoded("JPEG", **options)) == 2100


def test_the_size_of_a_dicom_file_is_rows_times_columns():
    dicom = make_dicom(np.zeros((30, 70), np.uint16))
    assert count_pixels(dicom) == 2100
    assert not is_quick(dicom)


@pytest.mark.parametrize("start", [b"\xff\xd8\xff\xc0\x00\x11\x08\0\x01\0\x01", b"\x89PNG\r\n\x1a\n"])
def test_a_dicom_file_that_begins_as_another_format_counts_as_dicom(start):
    dicom = bytearray(make_dicom(np.zeros((30, 70), np.uint16)))
    dicom[: len(start)] = start
    assert count_pixels(bytes(dicom)) == 2100
    assert not is_quick(bytes(dicom))


def test_of_a_png_with_two_headers_the_one_counts_that_pillow_takes():
    def header(width: int, height: int) -> bytes:
        body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        return struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))

    png = encoded("PNG")
    twice = png[:8] + header(1, 1) + header(70, 30) + png[33:]
    with Image.open(io.BytesIO(twice)) as image:
        assert count_pixels(twice) == image.width * image.height == 2100


@given(
    st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "WEBP"]),
    st.integers(0, 60),
    st.integers(0, 255),
    st.integers(1, 400),
)
def test_damage_is_no_error(image_format, place, value, length):
    data = bytearray(encoded(image_format))
    data[place % len(data)] = value
    assert count_pixels(bytes(data[:length])) >= 0
