"""PNG files: what their chunks declare of depth and brightness, and gray of 16 bits."""

import struct
from typing import NamedTuple

from PIL import ImageFile

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.samples import CURVE, Samples

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GAMMA, _NEAR = 45_455, 1_000
"""gAMA of 1/2.2, and what differs as little as rounding does."""
_USUAL_CURVES = (1, 6, 13, 14, 15)
"""cICP's transfer functions of ordinary screens: BT.709, BT.601, sRGB, BT.2020."""


class Header(NamedTuple):
    """What the chunks before the pixels declare.

    Attributes:
        is_gray: Whether a pixel is one sample of gray.
        depth: Bits of a sample.
        significant: Bits of a sample before it was scaled up to `depth`.
        remarks: Remarks about the file.
    """

    is_gray: bool
    depth: int
    significant: int
    remarks: tuple[str, ...]


def read_header(data: bytes) -> Header:
    """Read the chunks before the pixels; `size_limits` has limited their number.

    Raises:
        struct.error: The file ends before its pixels.
    """
    chunks: dict[bytes, bytes] = {}
    place = len(SIGNATURE)
    while b"IDAT" not in chunks:
        length, kind = struct.unpack_from(">I4s", data, place)
        chunks[kind] = data[place + 8 : place + 8 + min(length, 64)]
        place += 12 + length
    depth, colour = struct.unpack_from("BB", chunks.get(b"IHDR", b""), 8)
    (gamma,) = struct.unpack_from(">I", chunks.get(b"gAMA", struct.pack(">I", _GAMMA)))
    unusual = abs(gamma - _GAMMA) > _NEAR and not chunks.keys() & {b"iCCP", b"sRGB"}
    if len(curve := chunks.get(b"cICP", b"")) == 4:
        unusual = curve[1] not in _USUAL_CURVES or curve[2:] != b"\0\1"
    significant = max(chunks.get(b"sBIT", b"")[: 3 if colour & 2 else 1], default=depth)
    return Header(colour == 0, depth, significant, (CURVE,) if unusual else ())


def read_samples(image: ImageFile.ImageFile, header: Header) -> Samples:
    """Load an image of 16 bits that Pillow has opened.

    Raises:
        ImageError: A pixel has several samples, of which Pillow keeps the upper 8 bits, or one that means transparent.
    """
    if not header.is_gray or "transparency" in image.info:
        raise ImageError("unreadable", "unsupported: 16-bit colours or alpha; save it as gray, or with 8 bits")
    image.load()
    declared = 2.0**header.significant - 1 if header.significant < 16 else None
    return Samples(image, declared, padded=True, remarks=header.remarks)
