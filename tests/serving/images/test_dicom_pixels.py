import io
import logging
import struct
from typing import Any

import imagecodecs
import numpy as np
import openjpeg.utils
import pytest
from PIL import Image
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images import dicom_pixels
from pneumo.serving.images.decode import read_gray
from tests.support.dicoms import make_dicom, render_with_dcmtk

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
WINDOW: dict[str, Any] = {"WindowCenter": 120, "WindowWidth": 200}
BIG: dict[str, Any] = {"syntax": ExplicitVRBigEndian, "little": False}


def random_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def refused(data: bytes, reason: str = "unreadable") -> str:
    with pytest.raises(ImageError) as caught:
        read_gray(data)
    assert caught.value.reason == reason
    return str(caught.value)


@pytest.mark.parametrize("shape", [(16, 18), (15, 17), (16, 18, 3), (15, 17, 3)])
@pytest.mark.parametrize("words", [False, True], ids=["OB", "OW"])
@pytest.mark.parametrize("order", ["explicit", "implicit", "big endian"])
def test_bytes_keep_their_places_in_every_order_and_representation(shape, words, order, tmp_path):
    pixels = random_bytes(*shape)
    options = {"implicit": {"syntax": ImplicitVRLittleEndian, "implicit": True}, "big endian": BIG}.get(order, {})
    data = make_dicom(pixels, words=words, **WINDOW, **options)
    picture = read_gray(data)
    np.testing.assert_array_equal(picture.gray, read_gray(make_dicom(pixels, **WINDOW)).gray)
    assert picture.rules == (2 if words and order == "big endian" else 1)
    if len(shape) == 2:
        np.testing.assert_allclose(picture.gray, render_with_dcmtk(data, tmp_path, "+Wi", "1"), atol=1)


@pytest.mark.parametrize("stream_signed", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 7, 8, 9, 10, 12, 13, 15, 16])
@pytest.mark.parametrize("ratio", [None, 4])
def test_jpeg_2000_gives_the_pixels_that_went_in(bits, signed, stream_signed, ratio):
    if ratio and signed != stream_signed:
        pytest.skip("a lossy stream of another sign is another image")
    levels = 1 << bits
    codes = np.random.default_rng(bits).integers(0, levels, (40, 52))
    values = codes - (levels if signed else 0) * (codes >= levels // 2)
    kind = "1" if bits <= 8 else "2"
    streamed = codes - (levels if stream_signed else 0) * (codes >= levels // 2)
    stream = streamed.astype(("i" if stream_signed else "u") + kind)
    frame = bytes(openjpeg.utils.encode_array(stream, bits_stored=bits, compression_ratios=[ratio] if ratio else None))
    if ratio:
        values = imagecodecs.jpeg2k_decode(frame)
    middle = 0 if signed else levels // 2
    options: dict[str, Any] = {"BitsStored": bits, "WindowCenter": middle, "WindowWidth": levels}
    pixels = values.astype(("i" if signed else "u") + kind)
    for container in {kind, "2"}:
        stored = pixels.astype(pixels.dtype.kind + container)
        data = make_dicom(stored, frame=frame, syntax=JPEG2000 if ratio else JPEG2000Lossless, **options)
        picture = read_gray(data)
        np.testing.assert_array_equal(picture.gray, read_gray(make_dicom(stored, **options)).gray)
        assert picture.rules == (2 if stream_signed and not signed else 1)


def test_a_signed_stream_of_few_bits_keeps_its_sign():
    pixels = random_bytes(40, 44).view(np.int8)
    frame = bytes(openjpeg.utils.encode_array(pixels, bits_stored=8))
    options: dict[str, Any] = {"BitsStored": 12, "WindowCenter": 0, "WindowWidth": 300}
    compressed = make_dicom(pixels.astype(np.int16), frame=frame, syntax=JPEG2000Lossless, **options)
    np.testing.assert_array_equal(
        read_gray(compressed).gray, read_gray(make_dicom(pixels.astype(np.int16), **options)).gray
    )


@pytest.mark.parametrize("photometric", ["RGB", "YBR_RCT"])
def test_colour_in_jpeg_2000_becomes_luma(photometric):
    pixels = random_bytes(40, 44, 3)
    transformed = photometric == "YBR_RCT"
    frame = bytes(openjpeg.utils.encode_array(pixels, bits_stored=8, photometric_interpretation=1, use_mct=transformed))
    data = make_dicom(pixels, frame=frame, syntax=JPEG2000Lossless, PhotometricInterpretation=photometric)
    np.testing.assert_array_equal(read_gray(data).gray, read_gray(make_dicom(pixels)).gray)


def test_high_throughput_jpeg_2000_is_read():
    options: dict[str, Any] = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    frame = bytes(imagecodecs.htj2k_encode(RAMP, reversible=True))
    data = make_dicom(RAMP, frame=frame, syntax=HTJ2KLossless, **options)
    np.testing.assert_array_equal(read_gray(data).gray, read_gray(make_dicom(RAMP, **options)).gray)


def test_a_baseline_jpeg_is_read_as_dcmtk_does(tmp_path):
    smooth = np.rint(127 + 120 * np.sin(np.arange(64)[:, None] / 9) * np.cos(np.arange(80) / 11)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "JPEG", quality=90)
    data = make_dicom(smooth, frame=buffer.getvalue(), syntax=JPEGBaseline8Bit, **WINDOW)
    np.testing.assert_allclose(read_gray(data).gray, render_with_dcmtk(data, tmp_path, "+Wi", "1"), atol=3)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEGExtended12Bit])
def test_a_missing_plugin_is_named_with_the_fix(syntax):
    if "pylibjpeg" in get_decoder(syntax).available_plugins:
        pytest.skip("the plugin is installed")
    message = refused(make_dicom(RAMP, frame=b"\xff\xd8", syntax=syntax, BitsStored=12))
    assert message.startswith("unsupported: ")
    assert "pylibjpeg-libjpeg" in message
    assert "pip install '.[dicom]'" in message


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless])
def test_a_missing_plugin_for_jpeg_2000_is_named(syntax, monkeypatch):
    monkeypatch.setattr("pydicom.pixels.common.CoderBase.available_plugins", property(lambda self: ("pillow",)))
    message = refused(make_dicom(RAMP, frame=b"\0\0", syntax=syntax))
    assert "pylibjpeg-openjpeg" in message
    assert "pip install '.[serve]'" in message


def test_an_unreadable_compression_is_not_supported():
    message = refused(make_dicom(RAMP, frame=b"\0\0", syntax=MPEG2MPML))
    assert message.startswith("unsupported: an unknown transfer syntax")


def test_compressed_pixels_that_claim_to_be_native_are_refused():
    data = make_dicom(RAMP, frame=bytes(8192))
    at = data.index(b"OB", 200) + 4
    for length in (data[at : at + 4], b"\xff\xff\xff\xff"):
        message = refused(data[:at] + length + data[at + 4 :])
        assert message.startswith("unsupported: compressed pixels without a transfer syntax")


def jpeg_2000(*, tiles: tuple[int, int] | None = None, samples: int | None = None) -> bytes:
    """A file of 255 x 255 pixels whose stream claims another tile size or number of samples."""
    pixels = np.zeros((255, 255), np.uint8)
    frame = bytearray(openjpeg.utils.encode_array(pixels, bits_stored=8))
    if tiles:
        struct.pack_into(">II", frame, 24, *tiles)
    if samples:
        struct.pack_into(">H", frame, 40, samples)
    return make_dicom(pixels, frame=bytes(frame), syntax=JPEG2000Lossless)


def test_a_stream_that_costs_more_than_its_pixels_is_refused_before_decoding(monkeypatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("pydicom.pixels.utils.pixel_array", never)
    limit = f"{dicom_pixels.MAX_TILES:,} tiles"
    assert limit in refused(jpeg_2000(tiles=(1, 1)), "too-large")  # OpenJPEG would take 680 MB
    assert "damaged" in refused(jpeg_2000(samples=1000))
    assert "damaged" in refused(jpeg_2000(tiles=(0, 0)))


def test_damaged_streams_write_nothing_to_the_log_or_to_the_terminal(caplog, capfd):
    frame = bytes(openjpeg.utils.encode_array(RAMP, bits_stored=12))
    random = np.random.default_rng(0)
    refusals = 0
    with caplog.at_level(logging.DEBUG):
        for _ in range(150):
            damaged = bytearray(frame)
            for place in random.integers(4, len(frame), 4):
                damaged[place] ^= 1 << int(random.integers(8))
            try:
                read_gray(make_dicom(RAMP, frame=bytes(damaged), syntax=JPEG2000Lossless, BitsStored=12))
            except ImageError:
                refusals += 1
    out, err = capfd.readouterr()
    assert refusals > 10
    assert (out, err) == ("", "")
    assert [record.name for record in caplog.records if not record.name.startswith("pneumo")] == []
