"""The header of a DICOM file: the attributes that pixels need, in bounded time and memory.

Of the patient only the age is parsed, and no message quotes the file.
"""

import io
import re
from typing import TYPE_CHECKING

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.contracts.sites import DEVICE

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.dataset import Dataset, FileDataset

Notes = dict[str, int]
"""First version of the decoding rules that reads a file so, by remark; `UNREMARKABLE` is the remark on a formality."""
UNREMARKABLE = ""

MAX_READS = 50_000
"""Most reads of a header, one or two per element: a radiograph has some hundred elements."""
MAX_VALUE = 1024
"""Most bytes of an attribute, other than pixels and lookup tables."""
_MAX_LUT = 2**18
"""Most bytes of a lookup table: 2**16 entries of two bytes, and its description."""
_MAX_READ = 2**19
"""Most bytes per read, pixels aside."""

_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
"""Pixels as floating-point numbers, of either precision, and as whole numbers."""
_LUTS = (0x00283000, 0x00283010, 0x20500010)
_NEEDED = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
)
_ATTRIBUTES = (
    *_NEEDED,
    *("Modality", "PresentationIntentType", "MIMETypeOfEncapsulatedDocument", "NumberOfFrames", "PlanarConfiguration"),
    *("HighBit", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "ModalityLUTSequence", "VOILUTSequence"),
    *("PresentationLUTSequence", "PresentationLUTShape", "PatientAge"),
    *DEVICE,
)
_COLOURS = {1: {"MONOCHROME1", "MONOCHROME2"}, 3: {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}}
"""Photometric interpretations by samples per pixel."""
_CHARACTER_SETS = (b"\x08\0\5\0", b"\0\x08\0\5")
_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}
_COSTLY = "costs more than its pixels: a DICOM"
_RESAVE = "save it with another program"

_START = re.compile(
    rb"\x02\0[\0-\x03\x10]\0(?:UL|OB|UI)|"  # file meta information
    rb"\x08\0[\0\x01\x05\x08\x12-\x18]\0(?:UL|CS|DA|TM|UI)|\0\x08\0[\0\x01\x05\x08\x12-\x18](?:UL|CS|DA|TM|UI)|"
    rb"\x08\0[\0\x01]\0\x04\0\0\0.{4}\x08\0|\x08\0\x05\0.\0\0\0(?:ISO|GB)|\x08\0\x08\0.\0\0\0(?:ORIG|DERI)|"
    rb"\x08\0\x12\0\x08\0\0\0\d{8}|\x08\0[\x14\x16\x18]\0.\0\0\0[0-2]\.\d",
    re.DOTALL,
)
"""First bytes of a file without a preamble: an element that headers begin with, explicit or implicit VR."""


def is_dicom(data: bytes) -> bool:
    """Return whether a file is DICOM: `DICM` behind a preamble of 128 bytes, or a data set without one."""
    return data[128:132] == b"DICM" or _START.match(data) is not None


def read_header(data: bytes) -> tuple["FileDataset", int]:
    """Parse the attributes of a DICOM file that pixels need, in bounded time and memory.

    Returns:
        The attributes, and the position of the pixels' element: the end if there is none.

    Raises:
        ImageError: The header costs too much, or is deflated.
        Exception: Whatever pydicom raises on damage; its message may quote the file.
    """
    from pydicom.filereader import read_partial
    from pydicom.tag import BaseTag, Tag

    file = _BoundedReader(data)
    tags: list[BaseTag | int] = [Tag(attribute) for attribute in _ATTRIBUTES]
    header = read_partial(file, stop_when=lambda tag, *_: tag in _PIXELS, specific_tags=tags, force=True)
    for element in header.elements():
        limit = _MAX_LUT if element.tag in _LUTS else MAX_VALUE
        _check_size(element, limit)
        for item in (header[element.tag].value or ()) if element.tag in _LUTS else ():
            for inner in item.elements():
                _check_size(inner, limit)
    return header, file.tell()


def check_header(header: "FileDataset", max_pixels: int) -> tuple[int, int]:
    """Return rows and columns; refuse a file that is not a single image of a supported layout."""
    if missing := [name for name in _NEEDED if header.get(name) in (None, "")]:
        raise ImageError("unreadable", f"a DICOM header without {', '.join(missing)}; {_RESAVE}")
    frames = re.match(r"[\s+]*(\d+)", str(header.get("NumberOfFrames") or 1))  # some write 1A
    if frames is None:
        raise ImageError("unreadable", f"NumberOfFrames is not a number; {_RESAVE}")
    if int(frames[1]) > 1:
        raise ImageError("unreadable", "several frames; send one image per file")
    header.NumberOfFrames = 1  # for pydicom, which reads it too
    rows, columns = int(header.Rows), int(header.Columns)
    if rows * columns > max_pixels:
        raise ImageError("too-large", f"{columns} x {rows} is more than {max_pixels:,} pixels")
    samples, allocated, stored = int(header.SamplesPerPixel), int(header.BitsAllocated), int(header.BitsStored)
    if (colour := header.PhotometricInterpretation) not in _COLOURS.get(samples, ()):
        named = colour if colour in ("PALETTE COLOR", *_COLOURS[1], *_COLOURS[3]) else "a photometric interpretation"
        raise ImageError("unreadable", f"unsupported: {named} of {samples} samples; save it as MONOCHROME2 or RGB")
    if allocated not in ((8, 16) if samples == 1 else (8,)) or not 1 <= stored <= allocated:
        raise ImageError("unreadable", f"unsupported: BitsAllocated {allocated}; send 8, or 16 for gray")
    if int(header.get("HighBit", stored - 1)) != stored - 1 or min(rows, columns) < 1:
        raise ImageError("unreadable", f"unsupported: pixels in an outdated layout; {_RESAVE}")
    return rows, columns


def read_numbers(header: "Dataset", keyword: str) -> list[float]:
    """Return the numbers of an attribute; NaN alone if it holds something else."""
    try:
        value = header.get(keyword)
        values = [value] if isinstance(value, int | float | str | None) else value
        return [float(number) for number in values if number not in (None, "")]
    except (TypeError, ValueError):
        return [float("nan")]


def read_number(header: "Dataset", keyword: str, default: float) -> float:
    """Return the first number of an attribute; the default if it is missing or empty."""
    return next(iter(read_numbers(header, keyword)), default)


def read_age(header: "Dataset") -> float | None:
    """Return the age of the patient in years; None if the header does not give it in DICOM's form, such as `034Y`."""
    age = re.fullmatch(r"(\d{3})([DWMY])", str(header.get("PatientAge") or "").strip())
    return int(age[1]) / _PER_YEAR[age[2]] if age else None


def read_device(header: "Dataset") -> tuple[str, ...]:
    """Return the values of `DEVICE`; an empty one if it is missing. Raw bytes, so that none can refuse an image."""
    values = [getattr(header.get_item(name), "value", None) for name in DEVICE]
    return tuple(value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else "" for value in values)


def _check_size(element: "DataElement | RawDataElement", limit: int) -> None:
    if isinstance(element.value, bytes) and len(element.value) > limit:
        raise ImageError("too-large", f"{_COSTLY} attribute of more than {limit:,} bytes")


class _BoundedReader(io.BytesIO):
    """A file that allows a limited number of reads of limited size."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = MAX_READS
        self._limit = _MAX_READ

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if size is None or size < 0:  # pydicom would inflate all of it at once
            raise ImageError("unreadable", "unsupported: a deflated DICOM file; save it in another transfer syntax")
        if self._left < 0 or size > self._limit:
            raise ImageError("too-large", f"{_COSTLY} header of too many or too large elements")
        value = super().read(size)
        if size == 8:  # the head of an element; pydicom parses each character set at once, 12 us each
            self._limit = MAX_VALUE if value[:4] in _CHARACTER_SETS else _MAX_READ
        return value
