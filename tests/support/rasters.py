"""Radiograph-like samples, and image files of kinds that no library writes."""

import io
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tifffile

PALE = (1.0, 0.8, 0.5)
"""Shares of gray in red, green and blue, so that colours are no gray."""


def draw_shares(height: int = 37, width: int = 53) -> np.ndarray:
    """Gray as a share of white, float64 [height, width]: a slope with grain, a black corner and a white letter."""
    y, x = np.mgrid[:height, :width]
    shares = 0.7 * x / width + 0.3 * y / height + np.random.default_rng(0).normal(0, 0.02, (height, width))
    shares[:4, -6:], shares[:3, :3] = 1, 0
    return np.clip(shares, 0, 1)


def quantise(shares: np.ndarray, white: float, dtype: str) -> np.ndarray:
    """Shares of white as samples."""
    samples = shares * white
    return (samples if np.dtype(dtype).kind == "f" else np.rint(samples)).astype(dtype)


def to_luma(colours: np.ndarray) -> np.ndarray:
    """ITU-R 601 luma of [h, w, 3]."""
    return colours @ np.array([0.299, 0.587, 0.114])


def write_tiff(*pages: np.ndarray, order: Any = "<", big: bool = False, **options: Any) -> bytes:
    """A TIFF by tifffile; a page's own options stand in a list `each`."""
    buffer, each = io.BytesIO(), options.pop("each", [{}] * len(pages))
    with tifffile.TiffWriter(buffer, byteorder=order, bigtiff=big) as writer:
        for page, own in zip(pages, each, strict=True):
            writer.write(page, **{"photometric": "minisblack", "metadata": None} | options | own)
    return buffer.getvalue()


def write_plain_tiff(fields: Mapping[int, int | Sequence[int]], data: bytes = b"") -> bytes:
    """A little-endian TIFF of LONG values with its data in one strip at the end, whatever its tags say."""
    fields = dict(fields) | {273: 0, 279: len(data)}
    entries, values, start = b"", b"", 8 + 2 + 12 * len(fields) + 4
    lengths = sum(4 * len(value) for value in fields.values() if not isinstance(value, int))
    fields[273] = start + lengths
    for tag, value in sorted(fields.items()):
        numbers = [value] if isinstance(value, int) else list(value)
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        entries += struct.pack("<HHI", tag, 4, len(numbers))
        entries += packed if isinstance(value, int) else struct.pack("<I", start + len(values))
        values += b"" if isinstance(value, int) else packed
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4) + values + data


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def insert_chunks(png: bytes, chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A PNG with chunks behind its header."""
    return png[:33] + b"".join(chunk(kind, body) for kind, body in chunks) + png[33:]
