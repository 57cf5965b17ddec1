import io
import itertools
import logging
import struct
import subprocess
import sys
import traceback
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images import dicom
from pneumo.serving.images.decode import prepare, read_gray, read_stored
from pneumo.serving.images.preparation import Preparation, Storage
from pneumo.serving.images.types import DECODING_RULES, Decode, Fit, Picture
from tests.support import dicoms as _made
from tests.support.paths import ROOT

make_dicom, lookup_table = _made.make_dicom, _made.lookup_table

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
SMALL = np.arange(256, dtype=np.uint8).reshape(16, 16)
NAME = "Doe^Jane"


def encode(pixels: np.ndarray, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def read(pixels: np.ndarray, **attributes: Any) -> Picture:
    return read_gray(make_dicom(pixels, **attributes))


def store(data: bytes, size: int, how: Fit, decode: Decode) -> Picture:
    return read_stored(data, Storage(size=size, fit=how, decode=decode, rules=DECODING_RULES))


def refused(data: bytes, reason: str, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        read_gray(data, **options)
    assert caught.value.reason == reason
    return str(caught.value)


def test_a_window_is_applied_as_the_standard_says():
    picture = read(RAMP, BitsStored=12, WindowCenter=2048, WindowWidth=1000)
    expected = np.rint(255 * np.clip((RAMP - 2047.5) / 999 + 0.5, 0, 1))
    np.testing.assert_array_equal(picture.gray, expected)
    assert (picture.format, picture.mode, picture.width, picture.height) == ("DICOM", "MONOCHROME2", 64, 64)
    assert picture.remarks == ()


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("width", [1, 2, 700, 5000])
def test_windows_agree_with_pydicom(function, width):
    data = make_dicom(RAMP, BitsStored=12, WindowCenter=1800, WindowWidth=width, VOILUTFunction=function)
    header = pydicom.dcmread(io.BytesIO(data))
    expected = np.rint(255 * apply_voi_lut(RAMP, header) / 4095)
    assert np.abs(read_gray(data).gray - expected).max() <= 1


def test_the_first_of_several_windows_is_taken():
    many = read(RAMP, BitsStored=12, WindowCenter=[1000, 3000], WindowWidth=[100, 900])
    np.testing.assert_array_equal(many.gray, read(RAMP, BitsStored=12, WindowCenter=1000, WindowWidth=100).gray)


def test_the_rescale_comes_before_the_window():
    picture = read(RAMP, BitsStored=12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3096, WindowWidth=2000)
    expected = np.rint(255 * np.clip((2.0 * RAMP - 1000 - 3095.5) / 1999 + 0.5, 0, 1))
    np.testing.assert_array_equal(picture.gray, expected)


@pytest.mark.parametrize("implicit", [False, True])
def test_lookup_tables_are_applied_in_their_order(implicit):
    inverse = lookup_table(list(range(4095, -1, -1)))
    squares = lookup_table([round(4095 * (n / 4095) ** 2) for n in range(4096)], bits=12)
    options: dict[str, Any] = {"syntax": ImplicitVRLittleEndian, "implicit": True} if implicit else {}
    data = make_dicom(RAMP, BitsStored=12, ModalityLUTSequence=[inverse], VOILUTSequence=[squares], **options)
    header = pydicom.dcmread(io.BytesIO(data))
    expected = np.rint(255.0 * apply_voi_lut(apply_modality_lut(RAMP, header), header) / 4095)
    np.testing.assert_array_equal(read_gray(data).gray, expected)


def test_a_lookup_table_goes_before_a_window_and_holds_its_ends():
    table = lookup_table([0, 100, 255], first=10, bits=8)
    picture = read(SMALL, VOILUTSequence=[table], WindowCenter=1, WindowWidth=1)
    assert set(picture.gray[SMALL <= 10]) == {0}
    assert set(picture.gray[SMALL == 11]) == {100}
    assert set(picture.gray[SMALL >= 12]) == {255}


def test_without_a_window_gray_lies_between_two_percentiles():
    pixels = RAMP.copy()
    pixels[0, :5] = 60_000  # a few hot pixels do not darken the rest
    picture = read(pixels)
    low, high = np.percentile(pixels, [0.5, 99.5])
    assert np.abs(picture.gray - 255 * np.clip((pixels - low) / (high - low), 0, 1)).max() <= 1


def test_monochrome1_is_inverted():
    window = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    one, two = (read(RAMP, PhotometricInterpretation=f"MONOCHROME{n}", **window).gray for n in (1, 2))
    np.testing.assert_array_equal(one, 255 - two)
    assert one[0, 0] == 255


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_count(photometric):
    pixels = RAMP // 4 + 1000
    pixels[:, :30] = 4095
    plain = read(pixels[:, 30:], BitsStored=12, PhotometricInterpretation=photometric)
    padded = read(pixels, BitsStored=12, PhotometricInterpretation=photometric, PixelPaddingValue=4095)
    assert (padded.gray[:, :30] == 0).all()
    np.testing.assert_array_equal(padded.gray[:, 30:], plain.gray)


def test_a_range_of_padding_is_black():
    picture = read(RAMP, BitsStored=12, PixelPaddingValue=100, PixelPaddingRangeLimit=50)
    assert (picture.gray[(RAMP >= 50) & (RAMP <= 100)] == 0).all()
    assert picture.gray[RAMP == 200] > 0


def test_signed_pixels_and_bits_above_those_stored_are_read_right():
    signed = (RAMP.astype(np.int32) - 2048).astype(np.int16)
    window = {"BitsStored": 12, "WindowWidth": 4096}
    expected = read(RAMP, WindowCenter=2048, **window).gray
    np.testing.assert_array_equal(read(signed, WindowCenter=0, **window).gray, expected)
    masked = (signed.view(np.uint16) & 0x0FFF) | 0x7000  # an old overlay in the bits that are not stored
    np.testing.assert_array_equal(read(masked.view(np.int16), WindowCenter=0, **window).gray, expected)


@pytest.mark.parametrize("value", [0, 77])
def test_a_constant_image_is_black(value):
    assert read(np.full((8, 8), value, np.uint16)).gray.max() == 0


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 5, "WindowWidth": 0},
        {"WindowCenter": 5},
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"PixelPaddingValue": None, "NumberOfFrames": ""},
    ],
)
def test_empty_or_impossible_attributes_are_passed_over(attributes):
    np.testing.assert_array_equal(read(RAMP, **attributes).gray, read(RAMP).gray)


def test_colour_becomes_luma():
    pixels = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], dtype=np.uint8)
    assert read(pixels).gray.tolist() == [[76, 150], [29, 9]]
    planar = make_dicom(np.moveaxis(pixels, 2, 0).reshape(pixels.shape), PlanarConfiguration=1)
    assert read_gray(planar).gray.tolist() == [[76, 150], [29, 9]]


def test_ybr_colour_becomes_luma():
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[:] = [100, 128, 128]
    assert set(read(colour, PhotometricInterpretation="YBR_FULL").gray.ravel()) == {100}


@pytest.mark.parametrize("case", ["implicit", "big endian"])
def test_other_orders_of_bytes_give_the_same_pixels(case):
    options = {
        "implicit": {"syntax": ImplicitVRLittleEndian, "implicit": True},
        "big endian": {"syntax": ExplicitVRBigEndian, "little": False},
    }[case]
    window = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 1000}
    np.testing.assert_array_equal(read(RAMP, **window, **options).gray, read(RAMP, **window).gray)


def rle(pixels: np.ndarray) -> bytes:
    """A frame of one segment a byte of a sample, as PS3.5 annex G has it."""
    planes = pixels[..., None].view(np.uint8).reshape(*pixels.shape[:2], -1, pixels.itemsize)[..., ::-1]
    segments = [packed(planes[..., sample, byte].tobytes()) for sample, byte in np.ndindex(planes.shape[2:])]
    starts = np.cumsum([64, *map(len, segments)])[:-1]
    return struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(segments))) + b"".join(segments)


def packed(data: bytes) -> bytes:
    content = b""
    for _, equal in itertools.groupby(data):
        run = bytes(equal)
        for start in range(0, len(run), 128):
            length = len(run[start : start + 128])
            content += bytes([257 - length if length > 1 else 0, run[0]])
    return content + b"\0" * (len(content) % 2)


@pytest.mark.parametrize("pixels", [SMALL, RAMP, np.dstack([SMALL, SMALL[::-1], SMALL.T])], ids=["8", "16", "colour"])
def test_run_lengths_give_the_pixels_that_went_in(pixels):
    compressed = make_dicom(pixels, frame=rle(pixels), syntax=RLELossless)
    np.testing.assert_array_equal(read_gray(compressed).gray, read(pixels).gray)


def test_run_lengths_in_ybr_become_luma():
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[:] = [100, 90, 200]
    plain = make_dicom(colour, PhotometricInterpretation="YBR_FULL")
    packed = make_dicom(colour, frame=rle(colour), syntax=RLELossless, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_array_equal(read_gray(packed).gray, read_gray(plain).gray)


def test_jpeg_and_jpeg_2000_inside_are_read():
    lossless = make_dicom(RAMP, frame=encode(RAMP, "JPEG2000", no_jp2=True), syntax=JPEG2000Lossless)
    np.testing.assert_array_equal(read_gray(lossless).gray, read(RAMP).gray)
    lossy = make_dicom(SMALL, frame=encode(SMALL, "JPEG", quality=95), syntax=JPEGBaseline8Bit)
    assert np.abs(read_gray(lossy).gray.astype(int) - read(SMALL).gray).max() <= 8


def test_pydicom_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert "pip install '.[serve]'" in refused(make_dicom(RAMP), "unreadable")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"NumberOfFrames": 2}, "several frames"),
        ({"PhotometricInterpretation": NAME}, "unsupported: a photometric interpretation"),
        ({"Rows": 0}, "layout"),
        ({"Rows": None}, "a DICOM header without Rows"),
        ({"Rows": 65}, "damaged or truncated"),
        ({"syntax": JPEGBaseline8Bit, "frame": encode(SMALL, "JPEG")}, "damaged or truncated"),
        ({"syntax": RLELossless, "frame": struct.pack("<16I", 1, 64, *[0] * 14)}, "damaged or truncated"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(attributes, words):
    message = refused(make_dicom(RAMP, **attributes), "unreadable")
    assert words in message
    assert NAME not in message


def without_pixels(**attributes: Any) -> bytes:
    content = make_dicom(np.zeros((1, 2), np.uint8), **attributes)
    return content[: content.rfind(b"\xe0\x7f\x10\x00")]


def test_reports_and_documents_are_not_images():
    assert "such as a report" in refused(without_pixels(Modality="SR"), "not-an-image")
    document = without_pixels(MIMETypeOfEncapsulatedDocument="application/pdf", EncapsulatedDocument=b"%PDF")
    assert "encapsulated document" in refused(document, "not-an-image")


WINDOW: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096}


@pytest.mark.parametrize("modality", ["CR", "DX", "DR", "RG"])
def test_radiographs_get_no_remark(modality):
    assert read(RAMP, Modality=modality, PresentationIntentType="FOR PRESENTATION", **WINDOW).remarks == ()


@pytest.mark.parametrize(
    ("modality", "name"),
    [*((term, f"modality {term}") for term in ("CT", "MG", "RF", "XA", "OT")), (NAME, "an unknown modality")]
    + [(none, "no modality") for none in (None, "")],
)
def test_another_modality_is_read_with_a_remark(modality, name):
    picture = read(RAMP, Modality=modality, **WINDOW)
    assert picture.remarks == (f"{name}; a radiograph has modality CR or DX",)
    np.testing.assert_array_equal(picture.gray, read(RAMP, **WINDOW).gray)
    assert picture.rules == 1


def test_an_image_for_processing_is_read_with_a_remark():
    picture = read(RAMP, Modality="DX", PresentationIntentType="FOR PROCESSING", **WINDOW)
    assert [remark.partition(":")[0] for remark in picture.remarks] == ["FOR PROCESSING"]
    assert picture.rules == 1


def test_the_pixel_limit_is_checked_before_decoding(monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(dicom, "decode_pixels", never)
    assert "more than 4,095 pixels" in refused(make_dicom(RAMP), "too-large", max_pixels=4095)


@pytest.mark.parametrize("how", Fit)
def test_a_dicom_is_prepared_as_any_image(how):
    data = make_dicom(np.tile(RAMP, (2, 3)))
    full, scaled = (store(data, 32, how, decode) for decode in Decode)
    np.testing.assert_array_equal(full.gray, scaled.gray)
    assert (full.width, full.height) == (192, 128)
    assert prepare(data, Preparation(size=32, fit=how, height=24, width=28, channels=3)).shape == (3, 24, 28)


PATIENT: dict[str, Any] = {
    "PatientName": NAME,
    "PatientID": NAME,
    "PatientBirthDate": NAME,
    "InstitutionName": NAME,
    "StudyDescription": NAME,
    "AccessionNumber": NAME,
}
NUMBER, CHARACTERS = "12345678", "ISO_IR 6"
"""As long as the name, which takes their place: pydicom refuses to write a name there."""
DAMAGE: dict[str, dict[str, Any]] = {
    "no rows": {"Rows": None},
    "a name for a window": {"WindowCenter": NUMBER, "WindowWidth": NUMBER},
    "a name for a slope": {"RescaleSlope": NUMBER, "RescaleIntercept": NUMBER},
    "a name for frames": {"NumberOfFrames": NUMBER},
    "a name for a colour": {"PhotometricInterpretation": NAME},
    "a name for a modality": {"Modality": NAME},
    "a name for a character set": {"SpecificCharacterSet": CHARACTERS},
    "too few pixels": {"Rows": 9999},
    "no jpeg": {"syntax": JPEGBaseline8Bit, "frame": NAME.encode()},
    "no jpeg 2000": {"syntax": JPEG2000Lossless, "frame": NAME.encode()},
    "no runs": {"syntax": RLELossless, "frame": NAME.encode() * 20},
}


def damaged(data: bytes) -> bytes:
    return data.replace(NUMBER.encode(), NAME.encode()).replace(CHARACTERS.encode(), NAME.encode())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("damage", [*DAMAGE, "cut off"])
def test_no_message_log_or_traceback_tells_of_the_patient(damage, caplog, capfd):
    data = damaged(make_dicom(RAMP, **PATIENT, **DAMAGE.get(damage, {})))
    assert data.count(NAME.encode()) >= len(PATIENT)
    if damage == "cut off":
        data = data[:-100]
    told = ""
    with caplog.at_level(logging.DEBUG):
        try:
            told = repr(read_gray(data))
        except ImageError as error:
            told = str(error) + "".join(traceback.format_exception(error))
    out, err = capfd.readouterr()
    assert "Jane" not in told + caplog.text + out + err


def test_a_process_that_reads_a_damaged_file_prints_nothing(tmp_path):
    data = damaged(make_dicom(RAMP, **PATIENT, SpecificCharacterSet=CHARACTERS))
    (tmp_path / "film.dcm").write_bytes(data[:-100])
    script = """
import logging, pathlib, sys, warnings
logging.basicConfig(level=logging.DEBUG)
warnings.simplefilter("always")
from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.decode import read_gray
try:
    read_gray(pathlib.Path(sys.argv[1]).read_bytes())
except ImageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "film.dcm")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "damaged or truncated DICOM data\n"
    assert "Jane" not in done.stderr
    assert "pydicom" not in done.stderr


FUZZED = {
    "plain": make_dicom(RAMP, BitsStored=12, WindowCenter=2048, WindowWidth=1000, RescaleSlope=1, RescaleIntercept=0),
    "implicit": make_dicom(RAMP, syntax=ImplicitVRLittleEndian, implicit=True, PixelPaddingValue=0),
    "tables": make_dicom(SMALL, VOILUTSequence=[lookup_table(list(range(256)), bits=8)]),
    "runs": make_dicom(RAMP, frame=rle(RAMP), syntax=RLELossless),
    "jpeg": make_dicom(SMALL, frame=encode(SMALL, "JPEG"), syntax=JPEGBaseline8Bit),
    "jpeg 2000": make_dicom(RAMP, frame=encode(RAMP, "JPEG2000", no_jp2=True), syntax=JPEG2000Lossless),
    "colour": make_dicom(np.dstack([SMALL] * 3)),
}


def gray_or_error(data: bytes) -> None:
    try:
        prepared = prepare(data, Preparation(size=32, height=24, width=28), max_pixels=1_000_000)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert prepared.shape == (1, 24, 28)
        assert 0 <= prepared.min() <= prepared.max() <= 1


@given(st.binary(max_size=600))
def test_arbitrary_bytes_behind_the_mark_give_an_image_or_an_image_error(data):
    gray_or_error(bytes(128) + b"DICM" + data)


@given(st.sampled_from(sorted(FUZZED)), st.data())
def test_damaged_files_give_an_image_or_an_image_error(name, data):
    content = bytearray(FUZZED[name])
    for _ in range(data.draw(st.integers(0, 6))):
        # Headers hold what parsers trip over, so most of the damage goes there.
        end = data.draw(st.sampled_from([min(700, len(content)), min(1200, len(content)), len(content)]))
        at = data.draw(st.integers(132, end - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    gray_or_error(bytes(content[: data.draw(st.integers(132, len(content)))]))


@given(st.sampled_from(sorted(FUZZED)), st.sampled_from(sorted(FUZZED)), st.data())
def test_spliced_files_give_an_image_or_an_image_error(one, other, data):
    head, tail = FUZZED[one], FUZZED[other]
    gray_or_error(head[: data.draw(st.integers(132, len(head)))] + tail[data.draw(st.integers(0, len(tail))) :])


@given(st.sampled_from(sorted(FUZZED)), st.integers(132, 1200), st.binary(min_size=1, max_size=8))
def test_overwritten_files_give_an_image_or_an_image_error(name, place, value):
    content = FUZZED[name]
    gray_or_error(content[:place] + value + content[place + len(value) :])


@given(st.sampled_from(sorted(FUZZED)), st.integers(0, 600), st.binary(max_size=8))
def test_overwritten_files_without_a_preamble_give_an_image_or_an_image_error(name, place, value):
    content = FUZZED[name][132:]
    gray_or_error(content[:place] + value + content[place + len(value) :])
