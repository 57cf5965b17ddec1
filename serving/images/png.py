"""PNG files: what their chunks declare of depth and brightness, and samples of 16 bits."""

import io
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pneumo.serving.images.grayscale import split
from pneumo.serving.images.samples import CURVE, Samples

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MODES = {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}
"""Mode by colour type, but for palettes."""
_GAMMA, _NEAR = 45_455, 1_000
"""gAMA of 1/2.2, and what differs as little as rounding does."""
_USUAL_CURVES = (1, 6, 13, 14, 15)
"""cICP's transfer functions of ordinary screens: BT.709, BT.601, sRGB, BT.2020."""


class Header(NamedTuple):
    """What the chunks before the pixels declare.

    Attributes:
        mode: Mode of the samples; None for a palette.
        depth: Bits of a sample.
        significant: Bits of a sample before it was scaled up to `depth`.
        remarks: Remarks about the file.
    """

    mode: str | None
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
    return Header(_MODES.get(colour), depth, significant, (CURVE,) if unusual else ())


def read_samples(image: ImageFile.ImageFile, header: Header, data: bytes) -> Samples:
    """Load an image of 16 bits, of which Pillow keeps the upper 8 if a pixel has several samples.

    Args:
        image: The image as Pillow opened it.
        header: What its file declares.
        data: The file.
    """
    mode, key = header.mode or "", image.info.pop("transparency", None)
    images = [image]
    if mode == "LA":
        image.tile = [tile._replace(args="RGBA") for tile in image.tile]  # four bytes to a pixel, as they are
    elif mode != "L":
        images.append(Image.open(io.BytesIO(data), formats=("PNG",)))  # the lower 8 bits
        images[1].tile = [tile._replace(args=f"{mode};16L") for tile in images[1].tile]
    for loaded in images:
        loaded.load()

    def read_bands() -> Iterator[NDArray[Any]]:
        for parts in zip(*(split(part).images() for part in images), strict=True):
            upper, *lower = map(np.asarray, parts)
            if mode == "L":
                values = upper[..., np.newaxis]
            else:
                values = upper.astype(np.uint16) << 8 | lower[0] if lower else upper.copy().view(">u2")
            if key is None:
                yield values
            else:
                opaque = (values != key).any(axis=-1, keepdims=True)
                yield np.concatenate([values, opaque * np.uint16(65_535)], axis=-1)

    return Samples(
        size=image.size,
        mode=mode if key is None else f"{mode}A",
        full=65_535,
        bands=read_bands,
        declared=2.0**header.significant - 1 if header.significant < 16 else None,
        padded=True,
        changed=key is not None,
        remarks=header.remarks,
    )
