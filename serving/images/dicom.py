"""DICOM radiographs to gray pixels.

Only attributes that the pixels need are read: no attribute of a patient is parsed, and no message quotes the file.
"""

import io
import struct
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.contracts.install_hints import install_hint
from pneumo.serving.images.dicom_grayscale import render_gray
from pneumo.serving.images.grayscale import to_gray
from pneumo.serving.images.library_warnings import silence_libraries
from pneumo.serving.images.size_limits import find_excess
from pneumo.serving.images.types import Picture, Size

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.dataset import FileDataset
    from pydicom.uid import UID

MAX_READS = 50_000
"""Most reads of a header, one or two per element: a radiograph has some hundred elements."""
_MAX_VALUE = 1024
"""Most bytes of an attribute, other than pixels and lookup tables."""
_MAX_LUT = 2**18
"""Most bytes of a lookup table: 2**16 entries of two bytes, and its description."""
_MAX_READ = 2**19
"""Most bytes per read, pixels aside."""

_PIXELS = 0x7FE00010
_LUTS = (0x00283000, 0x00283010)
_ATTRIBUTES = (
    *("Modality", "MIMETypeOfEncapsulatedDocument", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel"),
    *("PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "ModalityLUTSequence", "VOILUTSequence"),
)
_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "RG", "RF", "XA", "OT", "SC", ""})
_OTHERS = frozenset({"CT", "ES", "IO", "MG", "MR", "NM", "OCT", "OP", "PT", "PX", "RTDOSE", "SEG", "SM", "US", "XC"})
"""Other modalities that a message may quote; any other value could be personal data."""
_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_CHARACTER_SETS = (b"\x08\0\5\0", b"\0\x08\0\5")
_COSTLY = "costs more than its pixels: a DICOM"


def read_dicom(data: bytes, *, max_pixels: int) -> Picture:
    """Decode a DICOM radiograph to 8-bit gray as a viewer would show it (see `pneumo.serving.images.dicom_grayscale`).

    Args:
        data: A whole file, which begins with 128 bytes and `DICM`.
        max_pixels: Largest rows times columns.

    Raises:
        ImageError: Not a single image of 8 or 16 bits, damaged, too large, or compressed in a way that no installed
            plugin reads.
    """
    try:
        import pydicom  # noqa: F401 - to learn whether it is installed
    except ImportError:
        raise ImageError("unreadable", f"the service needs pydicom to read DICOM; {install_hint('serve')}") from None
    silence_libraries()  # after the import, which sets the level of the log
    damage = "damaged DICOM header"
    try:
        header, place = _read_header(data)
        if place >= len(data):
            kind = "an encapsulated document" if "MIMETypeOfEncapsulatedDocument" in header else "such as a report"
            raise ImageError("not-an-image", f"a DICOM file without an image, {kind}")
        rows, columns = _check_header(header, max_pixels)
        mode, remarks = str(header.PhotometricInterpretation), _list_remarks(header)
        damage = "damaged or truncated DICOM data"
        pixels = _decode_pixels(data, place, header, rows, columns)
        if pixels.ndim == 3:
            gray = to_gray(Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)))
        else:
            gray = render_gray(pixels, header)
    except ImageError:
        raise
    except Exception:  # pydicom's messages quote values
        raise ImageError("unreadable", damage) from None
    return Picture(gray, "DICOM", mode, columns, rows, remarks)


def _read_header(data: bytes) -> tuple["FileDataset", int]:
    """Parse the attributes of a DICOM file that pixels need, in bounded time and memory.

    Returns:
        The attributes, and the position of the pixels' element: the end if there is none.

    Raises:
        ImageError: The header costs too much.
        Exception: Whatever pydicom raises on damage; its message may quote the file.
    """
    from pydicom.filereader import read_partial
    from pydicom.tag import BaseTag, Tag

    file = _BoundedReader(data)
    tags: list[BaseTag | int] = [Tag(attribute) for attribute in _ATTRIBUTES]
    header = read_partial(file, stop_when=lambda tag, *_: tag == _PIXELS, specific_tags=tags)
    for element in header.elements():
        limit = _MAX_LUT if element.tag in _LUTS else _MAX_VALUE
        _check_size(element, limit)
        for item in header[element.tag].value if element.tag in _LUTS else ():
            for inner in item.elements():
                _check_size(inner, limit)
    return header, file.tell()


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
            raise ImageError("unreadable", "a deflated DICOM file; save it in another transfer syntax")
        if self._left < 0 or size > self._limit:
            raise ImageError("too-large", f"{_COSTLY} header of too many or too large elements")
        value = super().read(size)
        if size == 8:  # the head of an element; pydicom parses each character set at once, 12 us each
            self._limit = _MAX_VALUE if value[:4] in _CHARACTER_SETS else _MAX_READ
        return value


def _check_header(header: "FileDataset", max_pixels: int) -> tuple[int, int]:
    """Return rows and columns; refuse a file that is not a single image of a supported layout."""
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise ImageError("unreadable", "several frames; send one image per file")
    rows, columns = int(header.Rows), int(header.Columns)
    if rows * columns > max_pixels:
        raise ImageError("too-large", f"{columns} x {rows} is more than {max_pixels:,} pixels")
    samples, allocated, stored = int(header.SamplesPerPixel), int(header.BitsAllocated), int(header.BitsStored)
    kinds = {1: {"MONOCHROME1", "MONOCHROME2"}, 3: _COLOURS}.get(samples, frozenset())
    if header.PhotometricInterpretation not in kinds:
        raise ImageError("unreadable", "neither MONOCHROME1, MONOCHROME2, RGB nor YBR; save it as one of these")
    if allocated not in ((8, 16) if samples == 1 else (8,)) or not 1 <= stored <= allocated:
        raise ImageError("unreadable", f"{allocated} bits per value; supported are 8, and 16 for gray")
    if int(header.get("HighBit", stored - 1)) != stored - 1 or min(rows, columns) < 1:
        raise ImageError("unreadable", "pixels in an outdated layout; save it with another program")
    return rows, columns


def _decode_pixels(data: bytes, place: int, header: "FileDataset", rows: int, columns: int) -> NDArray[np.integer]:
    """Decode the pixels' element at a position to codes [rows, columns], or to RGB [rows, columns, 3]."""
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import RLELossless

    explicit = data[place + 4 : place + 6] in (b"OB", b"OW", b"UN")  # whatever the file says of itself
    start = place + (12 if explicit else 8)
    (length,) = struct.unpack_from("<I" if header.original_encoding[1] else ">I", data, start - 4)
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        frame = _read_frame(data, start)
        if syntax == RLELossless:
            return _unpack_runs(frame, header, rows, columns)
        _check_plugin(syntax, int(header.BitsStored))
        if excess := find_excess(frame):
            raise ImageError("too-large", f"costs more than its pixels: {excess}")
        if _read_frame_size(frame) != (columns, rows):
            raise ValueError("compressed pixels of another size")
    header.PixelData = data[start:] if length == 0xFFFFFFFF else data[start : start + length]  # open length: to the end
    pixels = pixel_array(header)
    if pixels.shape[:2] != (rows, columns) or pixels.itemsize > 2:
        raise ValueError("pixels of another size")
    return pixels


def _read_frame(data: bytes, start: int) -> bytes:
    """Return the one frame of encapsulated pixels that begin at `start`."""
    from pydicom.encaps import get_frame

    (offsets,) = struct.unpack_from("<I", data, start + 4)
    if offsets > _MAX_VALUE:
        raise ValueError("offsets of many frames")
    file = io.BytesIO(data)
    file.seek(start)
    return get_frame(file, 0, number_of_frames=1)


def _unpack_runs(frame: bytes, header: "FileDataset", rows: int, columns: int) -> NDArray[np.integer]:
    """Decode RLE (PS3.5 annex G) by Pillow, which stops at the given size and is 13 times as fast as pydicom."""
    from pydicom.pixels.processing import convert_color_space

    samples, width = int(header.SamplesPerPixel), int(header.BitsAllocated) // 8
    count, *offsets = struct.unpack_from("<16I", frame)
    if count != samples * width:
        raise ValueError("another number of segments")
    ends = [*offsets[1:count], len(frame)]
    size, view = (rows * columns, 1), memoryview(frame)
    planes = [
        np.asarray(Image.frombytes("L", size, view[start:end], "packbits", "L"), dtype=np.uint8).reshape(rows, columns)
        for start, end in zip(offsets, ends, strict=False)
    ]
    if samples == 1:
        return planes[0] if width == 1 else planes[0].astype(np.uint16) << 8 | planes[1]
    return convert_color_space(np.stack(planes, axis=2), str(header.PhotometricInterpretation), "RGB")


def _check_plugin(syntax: "UID", bits: int) -> None:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGExtended12Bit

    try:
        plugins = get_decoder(syntax).available_plugins
    except NotImplementedError:
        raise ImageError("unreadable", "DICOM data in an unknown compression") from None
    if syntax == JPEGExtended12Bit and bits > 8:
        plugins = tuple(plugin for plugin in plugins if plugin != "pillow")
    if not plugins:
        missing = "openjpeg" if syntax in JPEG2000TransferSyntaxes or "High-Throughput" in syntax.name else "libjpeg"
        raise ImageError(
            "unreadable",
            f"DICOM data compressed as {syntax.name}, for which the service needs pylibjpeg and pylibjpeg-{missing}; "
            f"{install_hint('dicom')}",
        )


def _read_frame_size(frame: bytes) -> Size:
    """Return width and height as a JPEG, JPEG-LS or JPEG 2000 stream states them: decoders believe these."""
    start = frame.find(b"\xff\x4f\xff\x51")
    if start >= 0 and not frame.startswith(b"\xff\xd8"):
        right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
        return right - left, bottom - top
    position = 2
    while True:
        marker, length = struct.unpack_from(">HH", frame, position)
        if (0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC)) or marker == 0xFFF7:
            height, width = struct.unpack_from(">HH", frame, position + 5)
            return width, height
        if not 0xFFC0 <= marker <= 0xFFFE:
            raise ValueError("not a JPEG stream")
        position += 2 + length


def _list_remarks(header: "FileDataset") -> tuple[str, ...]:
    modality = str(header.get("Modality") or "")
    if modality in _RADIOGRAPHS:
        return ()
    name = f"modality {modality}" if modality in _OTHERS else "an unknown modality"
    return (f"{name}; a radiograph has modality CR or DX",)
