from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.types import Picture
from tests.support.dicoms import lookup_table, make_dicom, render_with_dcmtk

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
SIGNED = (RAMP.astype(np.int32) - 2048).astype(np.int16)
SMALL = np.arange(256, dtype=np.uint8).reshape(16, 16)
WINDOW: dict[str, Any] = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 3000}
FALLING = list(range(4095, -1, -1))
FIRST, TABLE = ("+Wi", "1"), ("+Wl", "1")
"""Options of dcmtk: the first window, the first VOI LUT."""


def read(pixels: np.ndarray, **attributes: Any) -> Picture:
    return read_gray(make_dicom(pixels, **attributes))


def table_without_values() -> Dataset:
    table = Dataset()
    table.LUTDescriptor = None
    table["LUTDescriptor"].VR = "US"
    table.LUTExplanation = ""
    return table


SHOWN: dict[str, tuple[np.ndarray, dict[str, Any], tuple[str, ...]]] = {
    "window": (RAMP, WINDOW, FIRST),
    "signed": (SIGNED, WINDOW | {"WindowCenter": 0}, FIRST),
    "10 bits": (RAMP // 4, {"BitsStored": 10, "WindowCenter": 500, "WindowWidth": 700}, FIRST),
    "16 bits": (RAMP * 16, {"WindowCenter": 30000, "WindowWidth": 40000}, FIRST),
    "8 bits": (SMALL, {"WindowCenter": 120, "WindowWidth": 200}, FIRST),
    "8 bits of 16": (RAMP % 256, {"BitsStored": 8, "WindowCenter": 120, "WindowWidth": 200}, FIRST),
    "overlay in the high bits": (RAMP | 0x5000, WINDOW, FIRST),
    "falling rescale": (RAMP, WINDOW | {"RescaleSlope": -1, "RescaleIntercept": 4095}, FIRST),
    "steep rescale": (RAMP, WINDOW | {"RescaleSlope": 3, "RescaleIntercept": -500}, FIRST),
    "rescale of slope 0": (RAMP, WINDOW | {"RescaleSlope": 0, "RescaleIntercept": 100}, FIRST),
    "rescale with a type": (RAMP, WINDOW | {"RescaleSlope": 2, "RescaleIntercept": 0, "RescaleType": "OD"}, FIRST),
    "sigmoid": (RAMP, WINDOW | {"VOILUTFunction": "SIGMOID"}, FIRST),
    "width 1": (RAMP, WINDOW | {"WindowWidth": 1}, FIRST),
    "several windows": (RAMP, WINDOW | {"WindowCenter": [1000, 3000], "WindowWidth": [900, 100]}, FIRST),
    "frames 1A": (RAMP, WINDOW | {"NumberOfFrames": 12345678}, FIRST),
    "implicit": (RAMP, WINDOW | {"syntax": ImplicitVRLittleEndian, "implicit": True}, FIRST),
    "big endian": (RAMP, WINDOW | {"syntax": ExplicitVRBigEndian, "little": False}, FIRST),
    "empty table beside a window": (RAMP, WINDOW | {"VOILUTSequence": [table_without_values()]}, FIRST),
    "table of no entries beside a window": (RAMP, WINDOW | {"VOILUTSequence": [lookup_table([0], bits=99)]}, FIRST),
    "VOI LUT": (RAMP, {"BitsStored": 12, "VOILUTSequence": [lookup_table(FALLING, bits=12)]}, TABLE),
    "VOI LUT of 8 bits": (SMALL, {"VOILUTSequence": [lookup_table([*range(255, -1, -1)], bits=8)]}, TABLE),
    "VOI LUT from below 0": (
        SIGNED,
        {"BitsStored": 12, "VOILUTSequence": [lookup_table(FALLING, first=-2048, bits=12, vr="SS")]},
        TABLE,
    ),
    "VOI LUT from below 0, written as US": (
        SIGNED,
        {"BitsStored": 12, "VOILUTSequence": [lookup_table(FALLING, first=63488, bits=12)]},
        TABLE,
    ),
    "VOI LUT from below 0 after a rescale, written as US": (
        RAMP,
        {
            "BitsStored": 12,
            "RescaleSlope": 1,
            "RescaleIntercept": -2048,
            "VOILUTSequence": [lookup_table(FALLING, first=63488, bits=12)],
        },
        TABLE,
    ),
    "VOI LUT beyond all pixels": (
        RAMP,
        {"BitsStored": 12, "VOILUTSequence": [lookup_table(FALLING[:3], first=9000, bits=12)]},
        TABLE,
    ),
    "modality LUT": (RAMP, WINDOW | {"ModalityLUTSequence": [lookup_table(FALLING, bits=12)]}, FIRST),
    "modality LUT from below 0, written as US": (
        SIGNED,
        WINDOW | {"ModalityLUTSequence": [lookup_table(FALLING, first=63488, bits=12)]},
        FIRST,
    ),
}


PLAIN = (("MONOCHROME1", None), ("MONOCHROME2", None))
SHAPED = tuple((photometric, shape) for photometric, _ in PLAIN for shape in ("IDENTITY", "INVERSE"))
PRESENTED = [(kind, *each) for kind in SHOWN for each in (*PLAIN, *(SHAPED if kind in ("window", "VOI LUT") else ()))]


@pytest.mark.parametrize(("kind", "photometric", "shape"), PRESENTED)
def test_gray_is_what_dcmtk_shows(kind: str, photometric: str, shape: str | None, tmp_path: Path) -> None:
    pixels, attributes, options = SHOWN[kind]
    presentation: dict[str, Any] = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
    data = make_dicom(pixels, **attributes, **presentation).replace(b"12345678", b"1A      ")
    np.testing.assert_allclose(read_gray(data).gray, render_with_dcmtk(data, tmp_path, *options), atol=1)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_shape_that_contradicts_the_photometric_interpretation_decides_and_is_remarked(photometric: str) -> None:
    usual, other = ("IDENTITY", "INVERSE") if photometric == "MONOCHROME2" else ("INVERSE", "IDENTITY")
    plain, agreed, contradicted = (
        read(RAMP, **WINDOW, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
        for shape in (None, usual, other)
    )
    np.testing.assert_array_equal(agreed.gray, plain.gray)
    np.testing.assert_array_equal(contradicted.gray, 255 - plain.gray)
    assert (plain.remarks, plain.rules) == (agreed.remarks, agreed.rules) == ((), 1)
    assert "PresentationLUTShape contradicts" in contradicted.remarks[0]
    assert contradicted.rules == 2


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@given(
    bits=st.integers(8, 16),
    signed=st.booleans(),
    first=st.integers(0, 2**16 - 1),
    length=st.integers(0, 300),
    ways=st.tuples(*[st.sampled_from(["as the standard says", "US", "SS", "stored bits"])] * 2),
    swapped=st.booleans(),
)
@settings(max_examples=30)
def test_padding_is_found_however_its_numbers_were_written(
    photometric: str, bits: int, signed: bool, first: int, length: int, ways: tuple[str, str], swapped: bool
) -> None:
    turn = 1 << bits
    lowest = -(turn // 2) if signed else 0
    first = lowest + first % turn
    last = first + min(length, turn // 4)
    assume(last < lowest + turn)
    spread = np.unique(np.linspace(lowest, lowest + turn - 1, 900).astype(np.int64))
    values = np.concatenate([spread, np.array([first, last] * 30)])
    values = np.resize(values, (values.size + 29) // 30 * 30).reshape(-1, 30)
    pixels = values.astype(np.int16 if signed else np.uint16)

    def write(number: int, way: str) -> int:
        if way == "stored bits":
            return number % turn
        as_us = number % 2**16
        return {"US": as_us, "SS": as_us - 2**16 * (as_us >= 2**15)}.get(way, number)

    options: dict[str, Any] = {"BitsStored": bits, "PhotometricInterpretation": photometric}
    written = [write(first, ways[0]), write(last, ways[1])]
    proper = read(pixels, PixelPaddingValue=first, PixelPaddingRangeLimit=last, **options)
    odd = make_odd_padding(pixels, written[::-1] if swapped else written, options)
    np.testing.assert_array_equal(odd.gray, proper.gray)
    assert (proper.gray[(values >= first) & (values <= last)] == 0).all()
    rest = values[(values < first) | (values > last)]
    plain = read(np.resize(rest, (1, rest.size)).astype(pixels.dtype), **options)
    np.testing.assert_array_equal(np.unique(proper.gray[(values < first) | (values > last)]), np.unique(plain.gray))
    assert proper.rules == 1
    assert odd.remarks == proper.remarks
    if written == [first, last]:
        assert odd.rules == 1


def make_odd_padding(pixels: np.ndarray, ends: list[int], options: dict[str, Any]) -> Picture:
    """A picture whose two ends of padding are written as US if they fit, else as SS, whatever the pixels are."""
    data = make_dicom(pixels, PixelPaddingValue=0x1234, PixelPaddingRangeLimit=0x2345, **options)
    for tag, end in zip((b"\x28\0\x20\x01", b"\x28\0\x21\x01"), ends, strict=True):
        at = data.index(tag)
        value = (b"US" if end >= 0 else b"SS") + b"\2\0" + (end % 2**16).to_bytes(2, "little")
        data = data[: at + 4] + value + data[at + 10 :]
    return read_gray(data)


def test_rules_tell_of_padding_only_if_pixels_are_padding() -> None:
    attributes: dict[str, Any] = WINDOW | {"WindowCenter": 0}
    unused = np.where(SIGNED == -2000, 0, SIGNED).astype(np.int16)
    assert make_odd_padding(SIGNED, [63536, 63536], attributes).rules == 2
    assert make_odd_padding(unused, [63536, 63536], attributes).rules == 1


@pytest.mark.parametrize("width", [0.05, 0.5, 0.999, 1])
def test_a_window_too_narrow_for_linear_is_no_threshold_on_values_that_lie_within_it(width: float) -> None:
    unit: dict[str, Any] = {"BitsStored": 12, "RescaleSlope": "0.000244200244", "RescaleIntercept": 0}
    window = unit | {"WindowCenter": 0.5, "WindowWidth": width}
    narrow, exact = read(RAMP, **window), read(RAMP, **window, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_array_equal(narrow.gray, exact.gray)
    np.testing.assert_allclose(narrow.gray, 255 * np.clip((RAMP / 4095 - 0.5) / width + 0.5, 0, 1), atol=0.51)
    assert "a window too narrow for LINEAR; read as LINEAR_EXACT" in narrow.remarks
    assert (narrow.rules, exact.rules) == (2, 1)


def test_a_window_of_width_1_on_whole_numbers_is_the_threshold_of_the_standard_with_a_remark() -> None:
    picture = read(RAMP, BitsStored=12, WindowCenter=2000, WindowWidth=1)
    np.testing.assert_array_equal(picture.gray, np.where(RAMP >= 2000, 255, 0))
    assert picture.remarks == ("the window leaves more than 90% of the pixels black or white",)
    assert picture.rules == 1


def test_a_window_that_shows_almost_nothing_is_remarked_padding_aside() -> None:
    assert read(RAMP, **WINDOW | {"WindowCenter": 9000}).remarks == (
        "the window leaves more than 90% of the pixels black or white",
    )
    padded = np.concatenate([np.zeros((2000, 64), np.uint16), RAMP.clip(1)])
    assert read(padded, **WINDOW, PixelPaddingValue=0).remarks == ()


@pytest.mark.parametrize(
    ("attributes", "remark", "rules"),
    [
        ({}, "no usable window", 1),
        ({"WindowCenter": 5, "WindowWidth": 0}, "no usable window", 1),
        ({"WindowCenter": [5, 2000], "WindowWidth": [0, 3000]}, "several windows", 2),
        ({"WindowCenter": [2000, 5], "WindowWidth": [3000, 10]}, "several windows", 1),
        ({"VOILUTFunction": "CUBIC"} | WINDOW, "an unknown VOI LUT function", 1),
        ({"VOILUTSequence": [lookup_table(FALLING, bits=12)] * 2}, "several lookup tables", 1),
        ({"RescaleSlope": 0} | WINDOW, "RescaleSlope 0 is passed over", 2),
        ({"PresentationLUTSequence": [lookup_table(FALLING)]} | WINDOW, "a presentation lookup table", 1),
    ],
)
def test_what_is_odd_is_remarked(attributes: dict[str, Any], remark: str, rules: int) -> None:
    picture = read(RAMP, **{"BitsStored": 12} | attributes)
    assert [told.startswith(remark) for told in picture.remarks] == [True]
    assert picture.rules == rules


def test_the_first_usable_window_or_table_is_applied() -> None:
    second = read(RAMP, BitsStored=12, WindowCenter=[5, 2000], WindowWidth=[0, 3000])
    np.testing.assert_array_equal(second.gray, read(RAMP, **WINDOW).gray)
    tables = [table_without_values(), lookup_table(FALLING, bits=12)]
    picture = read(RAMP, BitsStored=12, VOILUTSequence=tables)
    np.testing.assert_array_equal(picture.gray, read(RAMP, BitsStored=12, VOILUTSequence=tables[1:]).gray)
    assert picture.rules == 1


def test_the_first_value_of_a_table_written_as_us_reads_as_ss_and_changes_the_rules() -> None:
    us, ss = (
        read(SIGNED, BitsStored=12, VOILUTSequence=[lookup_table(FALLING, first=first, bits=12, vr=vr)])
        for first, vr in ((63488, "US"), (-2048, "SS"))
    )
    np.testing.assert_array_equal(us.gray, ss.gray)
    assert (us.rules, ss.rules) == (2, 1)


def test_a_modality_table_without_values_leaves_the_rescale() -> None:
    rescale: dict[str, Any] = WINDOW | {"RescaleSlope": 2, "RescaleIntercept": -100}
    picture = read(RAMP, ModalityLUTSequence=[table_without_values()], **rescale)
    np.testing.assert_array_equal(picture.gray, read(RAMP, **rescale).gray)
    assert picture.remarks == ("a lookup table that cannot be used is passed over",)


@pytest.mark.parametrize("attribute", ["RescaleSlope", "RescaleIntercept"])
@pytest.mark.parametrize("text", ["1,5", "NAN", "INF"])
def test_a_rescale_that_is_no_number_is_refused_by_name(attribute: str, text: str) -> None:
    placeholder: dict[str, Any] = {attribute: 12345678}
    data = make_dicom(RAMP, **WINDOW, **placeholder).replace(b"12345678", text.encode().ljust(8))
    with pytest.raises(ImageError, match="unsupported: a rescale or lookup table that gives no numbers"):
        read_gray(data)


def test_a_window_that_is_no_number_is_passed_over() -> None:
    data = make_dicom(RAMP, BitsStored=12, WindowCenter=12345678, WindowWidth=100)
    picture = read_gray(data.replace(b"12345678", b"10,5    "))
    np.testing.assert_array_equal(picture.gray, read(RAMP, BitsStored=12).gray)
    assert picture.remarks[0].startswith("no usable window")
