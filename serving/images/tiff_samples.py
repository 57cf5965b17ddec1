"""Samples of TIFF pages that Pillow reads wrongly or not at all: deeper than 8 bits, packed, signed or floating.

Pillow is shown the strips or tiles as gray bytes, so that libtiff only decompresses them. Byte order, predictor (TIFF
6.0 and its Technical Note 3) and packing are undone here.
"""

import io
import struct
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL import TiffImagePlugin as Tag

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.grayscale import split
from pneumo.serving.images.samples import Samples
from pneumo.serving.images.tiff import MAXIMA, Page

_TILE_SLACK = 2**25
"""Bytes by which a tile may be larger than its image."""


def read_samples(page: Page) -> Samples:
    """Decompress the samples of a page.

    Raises:
        ImageError: Strips or tiles are missing.
    """
    bits, kind, images, block = page.bits, page.kinds[0], *_decompress(page)
    full = None if kind == 3 else 2.0 ** (bits - (kind == 2)) - 1
    maxima = [float(value) for tag in MAXIMA if (value := page.get(tag)) > 0 and (full is None or value < full)]
    maxima = [value for value in maxima if full is None or value in (2.0**depth - 1 for depth in range(bits))]
    is_raw = page.get(Tag.COMPRESSION, 1) == 1
    alpha = {1: "a", 2: "A"}.get(page.get(Tag.EXTRASAMPLES, 2), "") if page.channels > page.colours < 4 else ""

    def read_bands() -> Iterator[NDArray[Any]]:
        for parts in zip(*(split(image).images() for image in images), strict=True):
            yield np.concatenate([_unpack(page, np.asarray(part), block) for part in parts], axis=-1)

    return Samples(
        size=page.size,
        mode={1: "L", 3: "RGB", 4: "CMYK"}[page.colours] + alpha,
        full=full,
        bands=read_bands,
        declared=full if bits not in (16, 32) else next(iter(maxima), None),
        inverted=page.photometric == 0,
        changed=(page.photometric == 0 and bits > 8) or (page.planes > 1 and bits == 16 and is_raw),
        remarks=page.remarks,
    )


def _decompress(page: Page) -> tuple[list[ImageFile.ImageFile], int]:
    """Return the rows of bytes of each plane, with the padding of tiles, as gray images; and pixels across a tile."""
    (width, height), codec, tiled = page.size, page.get(Tag.COMPRESSION, 1), Tag.TILEOFFSETS in page.tags
    block = page.get(Tag.TILEWIDTH) if tiled else width
    rows = page.get(Tag.TILELENGTH) if tiled else min(page.get(Tag.ROWSPERSTRIP, height), height)
    places = page.tags.get(Tag.TILEOFFSETS if tiled else Tag.STRIPOFFSETS, ())
    sizes = page.tags.get(Tag.TILEBYTECOUNTS if tiled else Tag.STRIPBYTECOUNTS, places if codec == 1 else ())
    across, down = -(-width // max(block, 1)), -(-height // max(rows, 1))
    count, row = across * down, -(-block * page.bits * page.channels // page.planes // 8)
    if min(row, rows, height) < 1 or min(len(places), len(sizes)) < count * page.planes:
        raise ImageError("unreadable", "damaged TIFF data: strips or tiles are missing")
    if row * rows > row * across * height + _TILE_SLACK:
        raise ImageError("too-large", "costs more than its pixels: a TIFF with a tile much larger than the image")
    images = []
    for first in range(0, count * page.planes, count):
        starts, pieces = list(places[first : first + count]), []
        if codec != 1:  # what is not compressed Pillow reads in its place
            blocks = zip(starts, sizes[first : first + count], strict=True)
            pieces = [page.data[start : start + size] for start, size in blocks]
            starts = [*accumulate(map(len, pieces[:-1]), initial=8)]
        fields = {
            Tag.IMAGEWIDTH: [row * across],
            Tag.IMAGELENGTH: [height],
            Tag.BITSPERSAMPLE: [8],
            Tag.COMPRESSION: [codec],
            Tag.PHOTOMETRIC_INTERPRETATION: [1],
            Tag.TILELENGTH if tiled else Tag.ROWSPERSTRIP: [rows],
            Tag.TILEOFFSETS if tiled else Tag.STRIPOFFSETS: starts,
            Tag.TILEBYTECOUNTS if tiled else Tag.STRIPBYTECOUNTS: [*map(len, pieces)] or [row * rows] * count,
        }
        if tiled:
            fields[Tag.TILEWIDTH] = [row]
        end = 8 + sum(map(len, pieces))
        content = b"".join([b"II*\0", struct.pack("<I", end), *pieces, _write_directory(fields, end)])
        image = Image.open(io.BytesIO(content), formats=("TIFF",))
        image.getexif()  # from this directory, since `load` would read it from the file
        if codec == 1:
            image.fp = io.BytesIO(page.data)
        image.load()
        images.append(image)
    return images, block


def _write_directory(fields: dict[int, list[int]], start: int) -> bytes:
    entries, values = struct.pack("<H", len(fields)), b""
    end = start + 2 + 12 * len(fields) + 4
    for tag, numbers in sorted(fields.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        place = struct.pack("<I", end + len(values))
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + (packed if len(numbers) == 1 else place)
        values += packed if len(numbers) > 1 else b""
    return entries + bytes(4) + values


def _unpack(page: Page, rows: NDArray[np.uint8], block: int) -> NDArray[Any]:
    """Turn rows of bytes of a plane into samples [rows, width, channels of the plane]."""
    bits, size, height = page.bits, page.bits // 8, len(rows)
    channels, predictor = page.channels // page.planes, page.get(Tag.PREDICTOR, 1)
    across = -(-page.size[0] // block)
    tiles = rows.reshape(height, across, -1)
    if bits not in (8, 16, 32, 64):
        length = next(length for length in (8, 16, 32) if length > bits)
        padded = np.zeros((height, across, block * channels, length), np.uint8)
        single = np.unpackbits(tiles, axis=-1, count=block * channels * bits)
        padded[..., length - bits :] = single.reshape(height, across, -1, bits)
        values = np.packbits(padded, axis=-1).view(f">u{length // 8}")
    elif predictor == 3:
        bytes_ = tiles.reshape(height, across, -1, channels).cumsum(axis=2, dtype=np.uint8)
        values = bytes_.reshape(height, across, size, -1).swapaxes(2, 3).copy().view(f">f{size}")
    else:
        values = tiles.view(f"{page.order}u{size}")
        if predictor == 2:
            values = values.reshape(height, across, block, channels).cumsum(axis=2, dtype=f"u{size}")
            values = values.view(f"{'uif'[page.kinds[0] - 1]}{size}")
        else:
            values = values.view(f"{page.order}{'uif'[page.kinds[0] - 1]}{size}")
    return values.reshape(height, across * block, channels)[:, : page.size[0]]
