"""From the bytes of an image file to what a network sees.

One path for import, training, the export check and a request, so that all of them see the same pixels::

    bytes --read_stored--> stored gray uint8 [S, S] --to_input--> float32 [C, H, W] in [0, 1]

`read_stored` of an image that already has the stored size changes nothing, so a prepared PNG and its original give the
same input.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.grayscale import to_gray
from pneumo.serving.images.library_warnings import hush
from pneumo.serving.images.size_limits import excess

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""What Pillow is let read; DICOM comes on top."""
MAX_PIXELS = 40_000_000
"""Pixels an image may have, width times height: a full-size film has about 15 million."""

Gray = NDArray[np.uint8]
Size = tuple[int, int]
"""Width and height in pixels."""

_SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|II\*\0|MM\0\*|RIFF....WEBP", re.DOTALL)
"""How image files begin (BMP has too weak a sign): tells a damaged image from what is none."""

_WEBP_COST = 3
"""A pixel of a WebP takes 15 bytes while it is decoded, one of other formats 5: two kilobytes can be 40 megapixels."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by EXIF orientation; from 5 on width and height change places."""


class ImageError(InputError):
    """The bytes cannot become an image. `reason` tells the kinds apart."""

    def __init__(self, reason: Literal["not-an-image", "unreadable", "too-large"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Fit(StrEnum):
    """How a rectangle becomes a square."""

    SQUASH = "squash"
    PAD = "pad"
    CROP = "crop"


class Decode(StrEnum):
    """How a JPEG is decoded.

    `full` decodes every pixel in colour. `scaled` decodes luma alone, at a half, a quarter or an eighth where that
    still covers the stored size: a few times faster, with pixels that differ by a third of a gray level in the mean
    (benchmarks/decode.py). Files of other formats are the same in both.
    """

    FULL = "full"
    SCALED = "scaled"


class Preparation(BaseModel):
    """How images were prepared for a data set and how a model takes them.

    Attributes:
        size: Side of the stored square image, in pixels.
        fit: How a rectangle became that square.
        decode: How JPEGs were decoded; data sets and bundles that do not say were made with `full`.
        height: Height of the model's input, in pixels; the stored image is resized to it.
        width: Width of the model's input, in pixels.
        channels: 1, or 3 for the gray image three times.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=8, le=4096)
    fit: Fit = Fit.SQUASH
    decode: Decode = Decode.FULL
    height: int = Field(ge=8, le=4096)
    width: int = Field(ge=8, le=4096)
    channels: Literal[1, 3] = 1


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        gray: Pixels, uint8 [h, w], upright: all of them, or as `read_stored` fitted them.
        format: Container format as Pillow names it, such as `JPEG`, or `DICOM`.
        mode: Pillow's mode of the file, such as `L`, `RGB`, `I;16`, `P`, `CMYK`; DICOM's photometric interpretation.
        width: Width of the original in pixels, after orientation.
        height: Height of the original in pixels, after orientation.
        remarks: What is odd about the file, in words that quote nothing of it.
    """

    gray: Gray
    format: str
    mode: str
    width: int
    height: int
    remarks: tuple[str, ...] = ()


def read_gray(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode all pixels of an image file to 8-bit gray, upright (see `images.grayscale`, `images.dicom`).

    Args:
        data: A whole image file.
        max_pixels: Largest width times height that is decoded, of a WebP a third of it; checked on the header, before
            pixels take memory.

    Raises:
        ImageError: Not an image of a known format, damaged, of several frames, or too large.
    """
    if _is_dicom(data):
        from pneumo.serving.images.dicom import read_dicom  # pydicom takes a third of a second to import

        return read_dicom(data, max_pixels=max_pixels)
    return _read(data, max_pixels, _decode_fully)


def read_stored(
    data: bytes, *, size: int, how: Fit, decode: Decode = Decode.FULL, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Decode an image file as a data set stores it: gray uint8 [size, size].

    Args:
        data: A whole image file.
        size: Side of the square, in pixels.
        how: How a rectangle becomes the square.
        decode: Whether a large JPEG is decoded in full.
        max_pixels: As for `read_gray`.

    Raises:
        ImageError: As for `read_gray`.
    """
    if decode is Decode.SCALED and data.startswith(b"\xff\xd8"):
        return _read(data, max_pixels, partial(_decode_scaled, size=size, how=how))
    picture = read_gray(data, max_pixels=max_pixels)
    return replace(picture, gray=fit(picture.gray, size, how))


def fit(gray: Gray, size: int, how: Fit) -> Gray:
    """Bring a gray image to a square.

    Args:
        gray: uint8 [h, w].
        size: Side of the result in pixels.
        how: `squash` ignores the aspect, `pad` keeps the whole image on black, `crop` keeps the centre.

    Returns:
        uint8 [size, size]; the same pixels where the image has this size already.
    """
    if gray.shape == (size, size):
        return gray
    height, width = gray.shape
    return np.asarray(_fit(Image.fromarray(gray), size, how, width, height), dtype=np.uint8)


def resize(gray: Gray, height: int, width: int) -> Gray:
    """Resize uint8 [h, w] to uint8 [height, width], bilinear with antialias."""
    if gray.shape == (height, width):
        return gray
    return np.asarray(Image.fromarray(gray).resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)


def to_input(stored: Gray, preparation: Preparation) -> NDArray[np.float32]:
    """Turn a stored image, uint8 [size, size], into a model's input, float32 [channels, height, width] in [0, 1]."""
    prepared = np.empty((preparation.channels, preparation.height, preparation.width), dtype=np.float32)
    return np.divide(resize(stored, preparation.height, preparation.width), np.float32(255), out=prepared)


def prepare(data: bytes, preparation: Preparation, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Turn the bytes of an image file into a model's input, float32 [channels, height, width] in [0, 1].

    Raises:
        ImageError: The bytes cannot become an image.
    """
    picture = read_stored(
        data, size=preparation.size, how=preparation.fit, decode=preparation.decode, max_pixels=max_pixels
    )
    return to_input(picture.gray, preparation)


def encode_png(gray: Gray) -> bytes:
    """Encode uint8 [h, w] as an 8-bit gray PNG."""
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, format="PNG", compress_level=2)
    return buffer.getvalue()


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def _read(data: bytes, max_pixels: int, decode: Callable[[Image.Image], tuple[Gray, Size]]) -> Picture:
    """Open an image, check what its header says, and decode it; all errors become an `ImageError`."""
    if not data:
        raise ImageError("unreadable", "the file is empty")
    hush()
    if told := excess(data):
        raise ImageError("too-large", f"costs more than its pixels: {told}")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if _SIGNATURE.match(data):
            raise ImageError("unreadable", "damaged or cut off inside its header") from None
        raise ImageError("not-an-image", f"not an image of a known format ({', '.join(FORMATS)}, DICOM)") from None
    except Image.DecompressionBombError:
        raise ImageError("too-large", f"more than {max_pixels:,} pixels") from None
    except Exception as error:  # Pillow's parsers raise many kinds on damaged headers
        raise ImageError("unreadable", f"damaged header: {_short(error)}") from None
    with image:
        limit = max_pixels // _WEBP_COST if image.format == "WEBP" else max_pixels
        if image.width * image.height > limit:
            raise ImageError("too-large", f"{image.width} x {image.height} is more than {limit:,} pixels")
        # Not `n_frames`: for a TIFF it reads every directory in the file, in quadratic time.
        if getattr(image, "is_animated", False):
            raise ImageError("unreadable", "several frames; send one image a file")
        file_format, mode = image.format or "", image.mode
        try:
            gray, (width, height) = decode(image)
        except Exception as error:
            raise ImageError("unreadable", f"damaged {file_format} data: {_short(error)}") from None
    return Picture(gray, file_format, mode, width, height)


def _decode_fully(image: Image.Image) -> tuple[Gray, Size]:
    image.load()
    turn = _turn(image)
    upright = image if turn is None else image.transpose(_TURNS[turn])
    return to_gray(upright), upright.size


def _decode_scaled(image: Image.Image, size: int, how: Fit) -> tuple[Gray, Size]:
    """Decode a JPEG no finer than the square needs; what is left of it is turned, not the image."""
    if image.mode not in ("L", "RGB"):
        gray, original = _decode_fully(image)
        return fit(gray, size, how), original
    width, height = image.size
    # The last column and row hold less of the image than the others where the scale does not divide it: `box` is what
    # it covers. Without it pixels differ from those of a full decode by 1.1 gray levels in the mean, with it by 0.3.
    inner_width, inner_height = _inner(size, width, height) if how is Fit.PAD else (size, size)
    drafted = image.draft("L", (max(1, inner_width), max(1, inner_height)))
    box = drafted[1] if drafted else (0, 0, width, height)
    turn = _turn(image)
    gray = np.asarray(_fit(image, size, how, box[2], box[3], turn), dtype=np.uint8)
    return gray, (width, height) if turn is None or turn < 5 else (height, width)


def _turn(image: Image.Image) -> int | None:
    """The EXIF orientation of an image that is not upright."""
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    return orientation if orientation in _TURNS else None


def _fit(image: Image.Image, size: int, how: Fit, width: float, height: float, turn: int | None = None) -> Image.Image:
    """Fit the part of a gray image that lies within `width` and `height` to a square, and turn it upright."""
    square = (size, size)
    inner = square
    left = top = 0.0
    if how is Fit.CROP:
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
    elif how is Fit.PAD:
        inner = _inner(size, width, height)
        if min(inner) == 0:
            return Image.new("L", square)
    box = (left, top, width - left, height - top)
    if image.size != inner or box != (0, 0, *inner):
        image = image.resize(inner, Image.Resampling.BILINEAR, box=box)
    if turn is not None:
        image = image.transpose(_TURNS[turn])
    if image.size == square:
        return image
    canvas = Image.new("L", square)
    canvas.paste(image, (round((size - image.width) / 2), round((size - image.height) / 2)))
    return canvas


def _inner(size: int, width: float, height: float) -> Size:
    """Width and height of a whole image inside a square; 0 for a side that would be less than half a pixel."""
    longest = max(width, height)
    return round(width / longest * size), round(height / longest * size)


def _short(error: Exception) -> str:
    text = str(error).splitlines()
    return text[0][:120] if text else type(error).__name__
