import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.dicom_header import is_dicom
from tests.support.dicoms import make_dicom, without_start

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
ODD = np.arange(63 * 61, dtype=np.uint32).reshape(63, 61).astype(np.uint8)
WINDOW: dict[str, Any] = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 3000}
ORDERS: dict[str, dict[str, Any]] = {
    "Explicit VR Little Endian": {},
    "Implicit VR Little Endian": {"syntax": ImplicitVRLittleEndian, "implicit": True},
    "Explicit VR Big Endian": {"syntax": ExplicitVRBigEndian, "little": False},
}
PREAMBLE = bytes(128) + b"DICM"


def refused(data: bytes, reason: str = "unreadable") -> str:
    with pytest.raises(ImageError) as caught:
        read_gray(data)
    assert caught.value.reason == reason
    return str(caught.value)


@pytest.mark.parametrize("pixels", [RAMP, ODD], ids=["16 bits", "8 bits, an odd number of bytes"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("missing", ["preamble", "syntax", "syntax and preamble", "meta", "meta and preamble"])
def test_a_file_that_lacks_its_start_is_read_all_the_same(missing: str, order: str, pixels: np.ndarray) -> None:
    window = WINDOW if pixels is RAMP else {"WindowCenter": 120, "WindowWidth": 200}
    whole = make_dicom(pixels, **window, **ORDERS[order])
    data = whole
    for start in missing.split(" and "):
        data = without_start(data, start)
    if missing == "meta":
        data = PREAMBLE + data
    if missing == "meta and preamble":
        data = without_start(whole, "meta")
    picture = read_gray(data)
    np.testing.assert_array_equal(picture.gray, read_gray(whole).gray)
    assert picture.remarks == (() if missing == "preamble" else (f"no transfer syntax; read as {order}",))
    assert picture.rules == 1


@pytest.mark.parametrize(
    "attribute", ["SpecificCharacterSet", "ImageType", "InstanceCreationDate", "InstanceCreatorUID"]
)
@pytest.mark.parametrize("order", ORDERS)
def test_a_data_set_is_known_by_any_element_that_it_may_begin_with(attribute: str, order: str) -> None:
    first: Any = {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["DERIVED", "PRIMARY"],
        "InstanceCreationDate": "20260101",
        "InstanceCreatorUID": "1.2.3",
    }[attribute]
    attributes: dict[str, Any] = {attribute: first}
    whole = make_dicom(RAMP, **WINDOW, **ORDERS[order], **attributes)
    keys = [b"\x08\0" + low + b"\0" for low in (b"\5", b"\x08", b"\x12", b"\x14")]
    keys += [key[1::-1] + key[:1:-1] for key in keys]
    data = whole[min(at for at in (whole.find(key, 300) for key in keys) if at > 0) :]
    np.testing.assert_array_equal(read_gray(data).gray, read_gray(whole).gray)


def test_compressed_pixels_without_a_transfer_syntax_are_refused_by_name() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "JPEG2000", no_jp2=True)
    data = make_dicom(RAMP, frame=buffer.getvalue(), syntax=JPEG2000Lossless)
    assert "compressed pixels without a transfer syntax" in refused(without_start(data, "syntax"))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "TGA", "ICO"])
def test_other_formats_are_not_dicom(format: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(ODD).save(buffer, format)
    assert not is_dicom(buffer.getvalue())


@given(st.one_of(st.binary(max_size=40), st.lists(st.integers(0, 2**31 - 1), max_size=12)))
def test_arbitrary_bytes_and_tables_of_numbers_are_not_dicom(content: bytes | list[int]) -> None:
    data = content if isinstance(content, bytes) else struct.pack(f"<{len(content)}I", *content)
    assert not is_dicom(data)


@pytest.mark.parametrize(
    "name", ["Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored"]
)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_attribute_is_named(name: str, value: str | None) -> None:
    attributes: dict[str, Any] = {"HighBit": 15, name: value}
    data = make_dicom(RAMP, **attributes)
    assert f"a DICOM header without {name};" in refused(data)


def test_all_missing_attributes_are_named() -> None:
    assert "without Rows, Columns;" in refused(make_dicom(RAMP, Rows=None, Columns=None))


@pytest.mark.parametrize("text", ["1A", " 1", "1 ", "+1", "01", "1.0", "1\\1", ""])
def test_a_number_of_frames_is_read_as_dcmtk_does(text: str) -> None:
    data = make_dicom(RAMP, **WINDOW, NumberOfFrames=12345678).replace(b"12345678", text.encode().ljust(8))
    if text == "1\\1":
        assert "NumberOfFrames is not a number" in refused(data)
    else:
        np.testing.assert_array_equal(read_gray(data).gray, read_gray(make_dicom(RAMP, **WINDOW)).gray)


@pytest.mark.parametrize(("text", "words"), [("A", "NumberOfFrames is not a number"), ("2B", "several frames")])
def test_other_numbers_of_frames_are_refused(text: str, words: str) -> None:
    assert words in refused(make_dicom(RAMP, NumberOfFrames=12345678).replace(b"12345678", text.encode().ljust(8)))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR of 1 samples"),
        ({"PhotometricInterpretation": "YBR_PARTIAL_420"}, "a photometric interpretation of 1 samples"),
        ({"PhotometricInterpretation": "Doe^Jane"}, "a photometric interpretation of 1 samples"),
        ({"SamplesPerPixel": 3}, "MONOCHROME2 of 3 samples"),
        ({"BitsAllocated": 1, "BitsStored": 1}, "BitsAllocated 1;"),
        ({"BitsAllocated": 12, "BitsStored": 12}, "BitsAllocated 12;"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "BitsAllocated 32;"),
        ({"BitsStored": 17}, "BitsAllocated 16;"),
        ({"HighBit": 15, "BitsStored": 12}, "layout"),
        ({"syntax": DeflatedExplicitVRLittleEndian}, "deflated"),
        ({"syntax": "1.2.3"}, "unknown transfer syntax"),
    ],
)
def test_what_is_not_supported_says_so(attributes: dict[str, Any], words: str) -> None:
    message = refused(make_dicom(RAMP, **attributes))
    assert message.startswith("unsupported: ")
    assert words in message
    assert "damaged" not in message


@pytest.mark.parametrize(("tag", "vr"), [(b"\x08\0", b"OF"), (b"\x09\0", b"OD")])
def test_floating_point_pixels_are_not_supported(tag: bytes, vr: bytes) -> None:
    data = make_dicom(RAMP, BitsAllocated=16).replace(b"\xe0\x7f\x10\0OW", b"\xe0\x7f" + tag + vr)
    assert refused(data).startswith("unsupported: pixels as floating-point numbers")
