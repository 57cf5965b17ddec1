"""TIFF files: find the page that holds the picture, refuse what Pillow would read wrongly, and scale deep gray.

Pillow reads 1 to 8 bits a sample, and of deeper ones gray of 16 bits, and signed or floating gray of 32.
"""

import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from PIL import ImageFile
from PIL import TiffImagePlugin as Tag

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.library_warnings import has_codec
from pneumo.serving.images.samples import CURVE, Samples
from pneumo.serving.images.size_limits import MAX_STEPS
from pneumo.serving.images.types import Size

SIGNATURES = tuple(Tag.PREFIXES)
"""First bytes of a TIFF or BigTIFF."""

_MAX_PAGES = 100
_TILE_SLACK = 2**22
"""Pixels by which a tile may be larger than its image: small images are padded to whole tiles."""
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 6: "b", 7: "s", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 18: "Q"}
"""TIFF's types as `struct` writes them, but rationals."""
_PAGE_TYPE, _SUB_PAGES, _INK_SET, _SUBSAMPLING = 254, 330, 332, 530
_MAXIMA = (341, 281)
"""SMaxSampleValue and MaxSampleValue."""
_CURVES = (291, 301)
"""GrayResponseCurve and TransferFunction."""
_TAGS = frozenset(range(254, 340)).union(_MAXIMA, [_SUBSAMPLING])

_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}
"""Samples of a pixel without extra ones, by photometric interpretation."""
_OTHER_COLOURS = {4: "a mask", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "a colour filter", 32844: "LogL"}
_OTHER_COLOURS |= {32845: "LogLuv", 34892: "linear raw"}
_BYTE_CODECS = (1, 5, 8, 32773, 32946, 34925, 50000)
"""Compressions to which samples are bytes: none, LZW, deflate, PackBits, deflate, LZMA, Zstandard."""
_CODECS = {2: "fax", 3: "fax", 4: "fax", 7: "JPEG", 50001: "WebP"}
_OTHER_CODECS = {6: "old-style JPEG", 9: "JBIG", 10: "JBIG", 34661: "JBIG", 32809: "ThunderScan", 34676: "LogLuv"}
_OTHER_CODECS |= {34677: "LogLuv", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC"}
_OTHER_CODECS |= {34892: "lossy DNG", 34925: "LZMA", 50000: "Zstandard", 50002: "JPEG XL", 52546: "JPEG XL"}


@dataclass(frozen=True)
class Page:
    """One page of a TIFF file.

    Attributes:
        data: The whole file.
        order: Byte order, as `struct` writes it.
        big: Whether it is a BigTIFF.
        start: Offset of the page's directory.
        following: Offset of the next directory; 0 at the last page.
        tags: Values of the directory's tags.
        places: Places of their values in the file.
    """

    data: bytes
    order: str
    big: bool
    start: int
    following: int
    tags: dict[int, tuple[Any, ...]]
    places: dict[int, slice]

    def get(self, tag: int, default: Any = 0) -> Any:
        """Return the first value of a tag."""
        return (self.tags.get(tag) or (default,))[0]

    @property
    def size(self) -> Size:
        """Width and height, before the image is turned upright."""
        return self.get(Tag.IMAGEWIDTH), self.get(Tag.IMAGELENGTH)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks about the page."""
        return (CURVE,) if self.tags.keys() & set(_CURVES) else ()

    @property
    def small_palette(self) -> bytes | None:
        """Reds, greens and blues of a palette without a value above 255; None if there is none.

        By the standard such a palette of 16 bits is black. libtiff and all viewers take its values for 8 bits.
        """
        values = self.tags.get(Tag.COLORMAP, (0,))
        return bytes(values) if self.photometric == 3 and 0 < max(values) < 256 else None

    def check_kind(self) -> None:
        """Raise an `ImageError` if Pillow knows no such compression, colours or arrangement of samples."""
        codec, bits = self.get(Tag.COMPRESSION, 1), self.tags.get(Tag.BITSPERSAMPLE, (1,))
        if codec not in (*_BYTE_CODECS, *_CODECS) or not has_codec(codec):
            raise _refuse(f"{(_CODECS | _OTHER_CODECS).get(codec, 'unknown')} compression")
        if self.photometric not in _COLOURS:
            raise _refuse(f"colours of this kind ({_OTHER_COLOURS.get(self.photometric, 'unknown or not declared')})")
        extra = self.channels - self.colours
        if not 0 <= extra <= 4 or (extra and self.colours == 1 and Tag.EXTRASAMPLES not in self.tags):
            raise _refuse("this number of samples in a pixel")
        if len({*bits[: self.channels]}) > 1 or len({*self.kinds}) > 1 or self.kinds[0] not in (1, 2, 3):
            raise _refuse("samples of this type")
        if self.get(_INK_SET, 1) != 1 or (
            codec == 1 and self.photometric == 6 and self.tags.get(_SUBSAMPLING) != (1, 1)
        ):
            raise _refuse("colours stored in this way")
        if self.big and self.order == ">":  # Pillow and libtiff disagree about its layout
            raise _refuse("the layout of a big-endian BigTIFF")

    def is_deep(self) -> bool:
        """Return whether a sample has more than 8 bits; raise an `ImageError` if Pillow reads such a page wrongly."""
        codec, kind, extra = self.get(Tag.COMPRESSION, 1), self.kinds[0], self.channels - self.colours
        several = self.colours > 1 or (self.channels, self.photometric) == (2, 1)
        if kind == 1 and self.channels == 1 and self.bits in (1, 2, 4, 8):
            return False
        if kind == 1 and self.bits == 8 and several and (extra == 0 or self.planes == 1):
            return False
        one_gray = self.channels == 1 and self.photometric < 2
        is_swapped = self.bits == 32 and self.order == ">" and codec != 1  # by libtiff, and by Pillow once more
        if (self.bits, kind) not in ((16, 1), (32, 2), (32, 3)) or not one_gray or is_swapped:
            raise _refuse(f"such samples of {self.bits} bits (gray of 16 bits is read)")
        if codec not in _BYTE_CODECS or self.get(Tag.FILLORDER, 1) != 1:
            raise _refuse("samples of this depth with this compression or order of bits")
        return True

    def put_first(self, *, as_gray: bool = False) -> bytes:
        """Return the file with this page as its first; `as_gray` with black as 0, whatever the page says."""
        place, start = 8 if self.big else 4, struct.pack(self.order + ("Q" if self.big else "I"), self.start)
        if not as_gray and self.data[place : place + len(start)] == start:
            return self.data
        content = bytearray(self.data)
        content[place : place + len(start)] = start
        if as_gray:
            value = self.places[Tag.PHOTOMETRIC_INTERPRETATION]
            content[value] = (1).to_bytes(value.stop - value.start, "little" if self.order == "<" else "big")
        return bytes(content)

    def read_samples(self, image: ImageFile.ImageFile) -> Samples:
        """Load the samples of a deep page that Pillow has opened."""
        image.load()
        depths = [value for tag in _MAXIMA if (value := float(self.get(tag))) > 0]
        if self.bits == 16:
            depths = [value for value in depths if value in (2.0**bits - 1 for bits in range(16))]
        inverted = self.photometric == 0
        return Samples(image, next(iter(depths), None), inverted=inverted, changed=inverted)

    @property
    def photometric(self) -> int:
        """Meaning of the samples: 0 for gray whose 0 is white, 1 for gray, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr."""
        return int(self.get(Tag.PHOTOMETRIC_INTERPRETATION, -1))

    @property
    def bits(self) -> int:
        """Bits of a sample."""
        return int(self.get(Tag.BITSPERSAMPLE, 1))

    @property
    def kinds(self) -> tuple[int, ...]:
        """Kinds of the samples: 1 unsigned, 2 signed, 3 floating."""
        return self.tags.get(Tag.SAMPLEFORMAT, (1,))[: self.channels]

    @property
    def channels(self) -> int:
        """Samples of a pixel."""
        return int(self.get(Tag.SAMPLESPERPIXEL, len(self.tags.get(Tag.BITSPERSAMPLE, (1,)))))

    @property
    def colours(self) -> int:
        """Samples of a pixel without extra ones, such as alpha."""
        return 1 if self.channels == 1 and self.photometric == 6 else _COLOURS[self.photometric]

    @property
    def planes(self) -> int:
        """Number of planes, each of one sample of all pixels; 1 if the samples of a pixel are neighbours."""
        return self.channels if self.get(Tag.PLANAR_CONFIGURATION, 1) == 2 else 1


def read_page(data: bytes) -> Page:
    """Return the page of a TIFF that holds the picture.

    It is the only page whose NewSubfileType or SubfileType says neither reduced image nor mask. If all pages say so, it
    is the only full one below them (SubIFDs), or the only page.

    Raises:
        ImageError: Several pictures, a damaged header, or one that costs more than its pixels.
    """
    order, big = "<" if data.startswith(b"II") else ">", 43 in data[2:4]
    pages: dict[int, Page] = {}
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        while start and start not in pages and len(pages) < _MAX_PAGES:
            pages[start] = page = _read_directory(data, order, big, start)
            if sum(map(_is_full, pages.values())) > 1:
                break
            start = page.following
        full = [page for page in pages.values() if _is_full(page)]
        if not full:
            places = [place for page in pages.values() for place in page.tags.get(_SUB_PAGES, ())][:_MAX_PAGES]
            full = [page for place in places if _is_full(page := _read_directory(data, order, big, place))]
    except (struct.error, OverflowError):
        raise ImageError("unreadable", "damaged or truncated header") from None
    full = full or [*pages.values()]
    if len(full) != 1 or len(pages) == _MAX_PAGES or _is_stack(full[0]):
        raise ImageError("unreadable", "several frames; send one image per file")
    return full[0]


def _is_full(page: Page) -> bool:
    return not page.get(_PAGE_TYPE) & 5 and not (_PAGE_TYPE not in page.tags and page.get(_PAGE_TYPE + 1) == 2)


def _is_stack(page: Page) -> bool:
    """Return whether ImageJ wrote more images behind the only page, as it does with large stacks."""
    text = page.get(Tag.IMAGEDESCRIPTION, b"")
    return text.startswith(b"ImageJ=") and re.search(rb"^images=0*([2-9]|1\d)", text, re.MULTILINE) is not None


def _read_directory(data: bytes, order: str, big: bool, start: int) -> Page:
    entry, place, inline = struct.Struct(order + ("HHQ" if big else "HHI")), start + (8 if big else 2), 8 if big else 4
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    if count > MAX_STEPS:
        raise _refuse_excess(f"a TIFF of more than {MAX_STEPS:,} tags")
    tags: dict[int, tuple[Any, ...]] = {}
    places: dict[int, slice] = {}
    for _ in range(count):
        tag, kind, number = entry.unpack_from(data, place)
        letter = _TYPES.get(kind, "d")
        if number > MAX_STEPS and letter not in "Bbs":
            raise _refuse_excess(f"a TIFF with more than {MAX_STEPS:,} values in one tag, such as strips or tiles")
        form, at = struct.Struct(f"{order}{min(number, MAX_STEPS)}{letter}"), place + entry.size
        numeric = letter in "BHIQbhi" or (letter in "fd" and tag in _MAXIMA)
        if tag in _TAGS and tag not in tags and (numeric or (letter == "s" and tag == Tag.IMAGEDESCRIPTION)):
            with suppress(struct.error):  # many a damaged tag is not needed
                if form.size > inline:
                    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, at)
                tags[tag], places[tag] = form.unpack_from(data, at), slice(at, at + form.size)
        place += entry.size + inline
    following = int.from_bytes(data[place : place + inline], "little" if order == "<" else "big")
    page = Page(data, order, big, start, following, tags, places)
    if page.get(Tag.TILEWIDTH) * page.get(Tag.TILELENGTH) > page.size[0] * page.size[1] + _TILE_SLACK:
        raise _refuse_excess("a TIFF with a tile much larger than the image")
    return page


def _refuse(what: str) -> ImageError:
    return ImageError("unreadable", f"unsupported: a TIFF with {what}; save it as PNG")


def _refuse_excess(what: str) -> ImageError:
    return ImageError("too-large", f"costs more than its pixels: {what}")
