"""JPEG streams: their segments, for their size, their cost and the name of what is unsupported."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from pneumo.serving.images.types import Size

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""A marker that a length follows, or the end of the image: in the data of a scan 0xff is followed by 0 or a restart."""
_SCAN, _END, _FRAMES = 0xDA, 0xD9, b"\xc0\xc1\xc2\xc9\xca"
"""`_FRAMES`: those that Pillow decodes: baseline, extended and progressive, Huffman or arithmetic coded."""
_OTHER_FRAMES = {0xC3: "lossless JPEG", 0xCB: "lossless JPEG", 0xF7: "JPEG-LS"}
_OTHER_FRAMES |= dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG")


_SIZED = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Markers that the size of the image follows, JPEG-LS included."""


class Segment(NamedTuple):
    """A segment: its marker, and the offsets of the marker, of the content and of the end."""

    marker: int
    start: int
    content: int
    end: int


def find_excess(data: bytes, scans: int, steps: int) -> str | None:
    """Return why a JPEG would cost much more than its pixels: markers or junk in its header, or scans; else None."""
    many = data.count(b"\xff\xda") > scans  # profiles and thumbnails hold such bytes too, but most files have few
    found = walked = 0
    end = 2
    for number, segment in enumerate(walk_segments(data), start=1):
        walked += 0 if found else 1 + segment.start - end
        found, end = found + (segment.marker == _SCAN), segment.end
        if found and not many:
            return None
        if found > scans or (found and number > steps):
            return f"a JPEG of more than {scans} scans"
        if walked > steps:
            break
    too_long = not found and walked + len(data) - end > steps
    return f"a JPEG with more than {steps:,} markers in its header" if walked > steps or too_long else None


def read_size(data: bytes, steps: int) -> Size | None:
    """Return the width and height that a stream states within so many segments; None if it states none."""
    frame = next((each for each in islice(walk_segments(data), steps) if each.marker in _SIZED), None)
    if frame is None or frame.content + 5 > len(data):
        return None
    sides = data[frame.content + 1 : frame.content + 5]
    return int.from_bytes(sides[2:]), int.from_bytes(sides[:2])


def name_unsupported(data: bytes) -> str | None:
    """Return the name of a kind of JPEG that Pillow does not decode; None if it decodes this one."""
    for marker, _, place, _ in walk_segments(data):
        if marker in _OTHER_FRAMES:
            return _OTHER_FRAMES[marker]
        if marker in _FRAMES:
            return None if data[place : place + 1] == b"\x08" else "JPEG of more than 8 bits"
    return None


def walk_segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments of the first image, but not what lies within them."""
    end = 2
    while (found := _MARKER.search(data, end)) and found[0][1] != _END and found.end() + 2 <= len(data):
        end = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
        yield Segment(found[0][1], found.start(), found.end() + 2, end)
