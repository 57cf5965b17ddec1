"""Size limits by header: refuse image files that cost far more than their pixels, before a decoder sees them.

Those of TIFFs lie in `images.tiff`, which reads the header anyway.

Pillow checks width times height, but walks headers in Python, one step at a time, and believes a file's size of tiles
and number of scans. Measured on files of 20 MB or less, all of few pixels: 760 MB and 15 s for a TIFF of strips of one
pixel, 380 MB for a TIFF of one huge tile, 23 ms more for each scan of 59 bytes in a progressive JPEG.
"""

import struct

from pneumo.serving.images import jpeg

MAX_SCANS = 40
"""Most scans of a JPEG: a progressive one has about ten."""
MAX_STEPS = 20_000
"""Most markers, chunks or values in a header that is walked in Python: a PNG in pieces of 1,000 bytes has as many."""


def find_excess(data: bytes) -> str | None:
    """Return why a file would cost much more than its pixels; None if it would not."""
    try:
        return next((check(data) for start, check in _CHECKS.items() if data.startswith(start)), None)
    except (struct.error, IndexError, OverflowError):
        return None  # truncated header: a decoder gets no further


def _check_jpeg(data: bytes) -> str | None:
    return jpeg.find_excess(data, MAX_SCANS, MAX_STEPS)


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


_CHECKS = {
    b"\xff\xd8": _check_jpeg,
    b"\x89PNG": _check_png,
    b"BM": _check_bmp,
}
"""Check of a file's header, by its first bytes."""
