"""JPEG files: their segments, for the number of scans and the name of what is unsupported."""

import re
from collections.abc import Iterator

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""A marker that a length follows, or the end of the image: in the data of a scan 0xff is followed by 0 or a restart."""
_SCAN, _END, _FRAMES = 0xDA, 0xD9, b"\xc0\xc1\xc2\xc9\xca"
"""`_FRAMES`: those that Pillow decodes: baseline, extended and progressive, Huffman or arithmetic coded."""
_OTHER_FRAMES = {0xC3: "lossless JPEG", 0xCB: "lossless JPEG", 0xF7: "JPEG-LS"}
_OTHER_FRAMES |= dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG")


def has_many_scans(data: bytes, scans: int, segments: int) -> bool:
    """Return whether the first image has more scans, or more segments, than these numbers."""
    found = 0
    for number, (marker, _) in enumerate(_walk_segments(data), start=1):
        found += marker == _SCAN
        if found > scans or number > segments:
            return True
    return False


def name_unsupported(data: bytes) -> str | None:
    """Return the name of a kind of JPEG that Pillow does not decode; None if it decodes this one."""
    for marker, place in _walk_segments(data):
        if marker in _OTHER_FRAMES:
            return _OTHER_FRAMES[marker]
        if marker in _FRAMES:
            return None if data[place : place + 1] == b"\x08" else "JPEG of more than 8 bits"
    return None


def _walk_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and offset of the content of each segment of the first image, but not what lies within segments."""
    place = 2
    while (found := _MARKER.search(data, place)) and found[0][1] != _END and found.end() + 2 <= len(data):
        yield found[0][1], found.end() + 2
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
