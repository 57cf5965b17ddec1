"""The pixels of a DICOM file as they are stored: native, run-length encoded, or compressed as JPEG or JPEG 2000."""

import io
import struct
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.contracts.install_hints import install_hint
from pneumo.serving.images.dicom_header import MAX_VALUE, UNREMARKABLE, Notes
from pneumo.serving.images.jpeg import read_size
from pneumo.serving.images.size_limits import MAX_STEPS, find_excess
from pneumo.serving.images.types import Size

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset
    from pydicom.uid import UID

MAX_TILES = 4096
"""Most tiles of a JPEG 2000 stream: OpenJPEG takes 10 KB for each, before it has read one."""

_OPEN_LENGTH = 0xFFFFFFFF
_ITEM = b"\xfe\xff\x00\xe0"
"""First bytes of encapsulated pixels; as native ones they would be two neighbours of 65534 and 57344."""


def decode_pixels(data: bytes, place: int, header: "FileDataset", size: Size, notes: Notes) -> NDArray[np.integer]:
    """Decode the pixels' element, at a position in a file, to codes [rows, columns], or to RGB [rows, columns, 3].

    Raises:
        ImageError: A kind of pixels that is not supported, or a compression without a plugin for it.
        Exception: Whatever pydicom or a plugin raises on damage; its message may quote the file.
    """
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import ExplicitVRBigEndian, RLELossless

    if 0x10 not in data[place + 2 : place + 4]:
        raise ImageError("unreadable", "unsupported: pixels as floating-point numbers; save whole numbers")
    syntax = _find_syntax(header, notes)
    kind = data[place + 4 : place + 6].decode("latin-1")
    start = place + (12 if kind in ("OB", "OW", "UN") else 8)  # whatever the file says of itself
    (length,) = struct.unpack_from("<I" if header.original_encoding[1] else ">I", data, start - 4)
    plugin = ""
    if syntax.is_compressed:
        frame = _read_frame(data, start)
        if syntax == RLELossless:
            return _unpack_runs(frame, header, size)
        plugin = _choose_plugin(syntax, int(header.BitsStored))
        _check_stream(frame, header, size, notes)
    elif length == _OPEN_LENGTH or data.startswith(_ITEM, start):
        raise ImageError("unreadable", "unsupported: compressed pixels without a transfer syntax that says how")
    swapped = syntax == ExplicitVRBigEndian and header.BitsAllocated == 8 and kind == "OW"
    if swapped:
        notes[UNREMARKABLE] = 2
    pixels = data[start:] if length == _OPEN_LENGTH else data[start : start + length]  # open length: to the end
    header.add_new(0x7FE00010, "OW" if swapped else "OB", pixels)
    codes = pixel_array(header, decoding_plugin=plugin, correct_unused_bits=header.SamplesPerPixel > 1)
    if codes.shape[:2] != size[::-1] or codes.itemsize > 2:
        raise ValueError("pixels of another size")
    return codes


def _find_syntax(header: "FileDataset", notes: Notes) -> "UID":
    """Return the transfer syntax of a file; if it names none, that in which its header is written."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = header.original_encoding
    if not header.file_meta.get("TransferSyntaxUID"):
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = syntax
        notes[f"no transfer syntax; read as {syntax.name}"] = 1
    try:
        get_decoder(header.file_meta.TransferSyntaxUID)
    except NotImplementedError:
        raise ImageError("unreadable", "unsupported: an unknown transfer syntax; save it in another one") from None
    return header.file_meta.TransferSyntaxUID


def _read_frame(data: bytes, start: int) -> bytes:
    """Return the one frame of encapsulated pixels that begin at `start`."""
    from pydicom.encaps import get_frame

    (offsets,) = struct.unpack_from("<I", data, start + 4)
    if offsets > MAX_VALUE:
        raise ValueError("offsets of many frames")
    file = io.BytesIO(data)
    file.seek(start)
    return get_frame(file, 0, number_of_frames=1)


def _unpack_runs(frame: bytes, header: "FileDataset", size: Size) -> NDArray[np.integer]:
    """Decode RLE (PS3.5 annex G) by Pillow, which stops at the given size and is 13 times as fast as pydicom."""
    from pydicom.pixels.processing import convert_color_space

    samples, width = int(header.SamplesPerPixel), int(header.BitsAllocated) // 8
    count, *offsets = struct.unpack_from("<16I", frame)
    if count != samples * width:
        raise ValueError("another number of segments")
    ends = [*offsets[1:count], len(frame)]
    columns, rows = size
    line, view = (rows * columns, 1), memoryview(frame)
    planes = [
        np.asarray(Image.frombytes("L", line, view[start:end], "packbits", "L"), dtype=np.uint8).reshape(rows, columns)
        for start, end in zip(offsets, ends, strict=False)
    ]
    if samples == 1:
        return planes[0] if width == 1 else planes[0].astype(np.uint16) << 8 | planes[1]
    return convert_color_space(np.stack(planes, axis=2), str(header.PhotometricInterpretation), "RGB")


def _choose_plugin(syntax: "UID", bits: int) -> str:
    """Return the plugin of pydicom that reads a compression: always the same one, whichever others are installed.

    Pillow reads JPEG 2000 too, but gives other values if the stream is signed and the file is not.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGBaseline8Bit, JPEGExtended12Bit

    if syntax == JPEGBaseline8Bit or (syntax == JPEGExtended12Bit and bits == 8):
        return "pillow"
    if "pylibjpeg" not in get_decoder(syntax).available_plugins:
        openjpeg = syntax in JPEG2000TransferSyntaxes or "High-Throughput" in syntax.name
        package, extra = ("openjpeg", "serve") if openjpeg else ("libjpeg", "dicom")
        raise ImageError(
            "unreadable",
            f"unsupported: DICOM data compressed as {syntax.name}, for which the service needs pylibjpeg and "
            f"pylibjpeg-{package}; {install_hint(extra)}",
        )
    return "pylibjpeg"


def _check_stream(frame: bytes, header: "FileDataset", size: Size, notes: Notes) -> None:
    """Check what a JPEG, JPEG-LS or JPEG 2000 stream says of itself, since decoders believe it.

    Raises:
        ImageError: It would cost much more than its pixels.
        ValueError: It is not a stream of the file's pixels.
    """
    excess, tiles, samples = find_excess(frame), 1, int(header.SamplesPerPixel)
    stated: Size | None
    start = frame.find(b"\xff\x4f\xff\x51")
    if start >= 0 and not frame.startswith(b"\xff\xd8"):
        right, bottom, left, top, across, down, x, y, samples, sign = struct.unpack_from(">8IHB", frame, start + 8)
        stated = (right - left, bottom - top)
        tiles = -((x - right) // across) * -((y - bottom) // down)
        if sign & 0x80 and not header.PixelRepresentation:
            notes[UNREMARKABLE] = 2
    else:
        stated = read_size(frame, MAX_STEPS)
    if stated != size or samples != header.SamplesPerPixel:
        raise ValueError("compressed pixels of another size")
    if tiles > MAX_TILES:
        excess = f"a JPEG 2000 of more than {MAX_TILES:,} tiles"
    if excess:
        raise ImageError("too-large", f"costs more than its pixels: {excess}")
