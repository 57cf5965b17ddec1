"""Size limits by header: refuse image files that cost far more than their pixels, before a decoder sees them.

Pillow checks width times height, but walks headers in Python, one step at a time, and believes a file's size of tiles
and number of scans. Measured on files of 20 MB or less, all of few pixels: 760 MB and 15 s for a TIFF of strips of one
pixel, 380 MB for a TIFF of one huge tile, 23 ms more for each scan of 59 bytes in a progressive JPEG.
"""

import struct

MAX_SCANS = 40
"""Most scans of a JPEG, thumbnails included: a progressive one has about ten."""
MAX_STEPS = 20_000
"""Most markers, chunks or values in a header that is walked in Python: a PNG in pieces of 1,000 bytes has as many."""

_TILE_SLACK = 2**22
"""Pixels by which a tile may be larger than its image: small images are padded to whole tiles."""
_BYTES = (1, 2, 6, 7)
"""TIFF's byte types: their values stay bytes, values of other types become one Python number each."""
_NUMBERS = {1: "B", 3: "H", 16: "Q"}
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323


def find_excess(data: bytes) -> str | None:
    """Return why a file would cost much more than its pixels; None if it would not."""
    try:
        return next((check(data) for start, check in _CHECKS.items() if data.startswith(start)), None)
    except (struct.error, IndexError, OverflowError):
        return None  # truncated header: a decoder gets no further


def _check_jpeg(data: bytes) -> str | None:
    if data.count(b"\xff\xda") > MAX_SCANS:  # image data holds no such bytes: after 0xff there is a zero
        return f"a JPEG of more than {MAX_SCANS} scans"
    position = 2
    for _ in range(MAX_STEPS):
        marker = data[position + 1]
        if data[position] != 0xFF or marker == 0xFF:
            position += 1
        elif marker == 0xDA:
            return None
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:  # no length follows
            position += 2
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return f"a JPEG with more than {MAX_STEPS:,} markers in its header"


def _check_png(data: bytes) -> str | None:
    position = 8
    for _ in range(MAX_STEPS):
        position += 12 + struct.unpack_from(">I", data, position)[0]
    return f"a PNG of more than {MAX_STEPS:,} chunks"


def _check_bmp(data: bytes) -> str | None:
    (size,) = struct.unpack_from("<I", data, 14)
    if size >= 40 and struct.unpack_from("<I", data, 30)[0] in (1, 2):
        return "a run-length encoded BMP, which is slow to read; save it as PNG"
    return None


def _check_tiff(data: bytes) -> str | None:
    big, order = data[2] == 43, "<" if data[:2] == b"II" else ">"
    if data.startswith(b"MM\0+"):
        return "a BigTIFF in big-endian order; save it as PNG"  # Pillow and libtiff disagree about its layout
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    if count > MAX_STEPS:
        return f"a TIFF of more than {MAX_STEPS:,} tags"
    entry = struct.Struct(order + ("HHQ" if big else "HHI"))
    size = 20 if big else 12
    table = data[start + (8 if big else 2) :][: count * size]
    numbers: dict[int, int] = {}
    for place in range(0, len(table) - size + 1, size):
        tag, kind, values = entry.unpack_from(table, place)
        if values > MAX_STEPS and kind not in _BYTES:
            return f"a TIFF with more than {MAX_STEPS:,} values in one tag, such as strips or tiles"
        (number,) = struct.unpack_from(order + _NUMBERS.get(kind, "I"), table, place + entry.size)
        numbers.setdefault(tag, number)
    tile = numbers.get(_TILE_WIDTH, 0) * numbers.get(_TILE_HEIGHT, 0)
    if tile > numbers.get(_WIDTH, 0) * numbers.get(_HEIGHT, 0) + _TILE_SLACK:
        return "a TIFF with a tile much larger than the image"
    return None


_CHECKS = {
    b"\xff\xd8": _check_jpeg,
    b"\x89PNG": _check_png,
    b"II": _check_tiff,
    b"MM": _check_tiff,
    b"BM": _check_bmp,
}
"""Check of a file's header, by its first bytes."""
