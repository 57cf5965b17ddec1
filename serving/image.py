"""From the bytes of an image file to what a network sees.

One path for import, training, the export check and a request, so that all of them see the same pixels::

    bytes --read_gray--> gray uint8 [h, w] --fit--> stored uint8 [S, S] --to_input--> float32 [C, H, W] in [0, 1]

`fit` of an image that already has the stored size changes nothing, so a prepared PNG and its original give the same
input.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from serving.errors import InputError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 40_000_000
"""Pixels an image may have, width times height: a full-size film has about 15 million."""

Gray = NDArray[np.uint8]

_DEEP_BITS = (8, 10, 12, 14, 16)
_BAND = 2**18
"""Pixels that are converted at once."""

_SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|II\*\0|MM\0\*|RIFF....WEBP", re.DOTALL)
"""How image files begin (BMP has too weak a sign): tells a damaged image from what is none."""


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


class Preparation(BaseModel):
    """How images were prepared for a data set and how a model takes them.

    Attributes:
        size: Side of the stored square image, in pixels.
        fit: How a rectangle became that square.
        height: Height of the model's input, in pixels; the stored image is resized to it.
        width: Width of the model's input, in pixels.
        channels: 1, or 3 for the gray image three times.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=8, le=4096)
    fit: Fit = Fit.SQUASH
    height: int = Field(ge=8, le=4096)
    width: int = Field(ge=8, le=4096)
    channels: Literal[1, 3] = 1


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        gray: Pixels, uint8 [height, width], upright.
        format: Container format as Pillow names it, such as `JPEG`.
        mode: Pillow's mode of the file, such as `L`, `RGB`, `I;16`, `P`, `CMYK`.
    """

    gray: Gray
    format: str
    mode: str

    @property
    def width(self) -> int:
        """Width of the original in pixels, after orientation."""
        return int(self.gray.shape[1])

    @property
    def height(self) -> int:
        """Height of the original in pixels, after orientation."""
        return int(self.gray.shape[0])


def read_gray(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode image bytes to 8-bit gray.

    Colour becomes luma (ITU-R 601), transparency lies on black, EXIF orientation is applied. Deeper than 8 bits is
    scaled by the smallest of 8, 10, 12, 14 and 16 bits that holds the image's maximum, since detectors store 12 in 16.

    Args:
        data: A whole image file.
        max_pixels: Largest width times height that is decoded; checked on the header, before pixels take memory.

    Raises:
        ImageError: Not an image of a known format, damaged, of several frames, or too large.
    """
    if not data:
        raise ImageError("unreadable", "the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of size and of damaged metadata, in words that quote the file
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            if _SIGNATURE.match(data):
                raise ImageError("unreadable", "damaged or cut off inside its header") from None
            raise ImageError("not-an-image", f"not an image of a known format ({', '.join(FORMATS)})") from None
        except Image.DecompressionBombError:
            raise ImageError("too-large", f"more than {max_pixels:,} pixels") from None
        except Exception as error:  # Pillow's parsers raise many kinds on damaged headers
            raise ImageError("unreadable", f"damaged header: {_short(error)}") from None
        with image:
            if image.width * image.height > max_pixels:
                raise ImageError("too-large", f"{image.width} x {image.height} is more than {max_pixels:,} pixels")
            file_format, mode = image.format or "", image.mode
            try:
                # Not `n_frames`: for a TIFF it reads every directory in the file, in quadratic time.
                gray = None if getattr(image, "is_animated", False) else _to_gray(image)
            except Exception as error:
                raise ImageError("unreadable", f"damaged {file_format} data: {_short(error)}") from None
            if gray is None:
                raise ImageError("unreadable", "several frames; send one image a file")
    return Picture(gray=gray, format=file_format, mode=mode)


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
    image = Image.fromarray(gray)
    if how is Fit.PAD:
        image = ImageOps.pad(image, (size, size), method=Image.Resampling.BILINEAR, color=0)
    elif how is Fit.CROP:
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    else:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8)


def resize(gray: Gray, height: int, width: int) -> Gray:
    """Resize uint8 [h, w] to uint8 [height, width], bilinear with antialias."""
    if gray.shape == (height, width):
        return gray
    return np.asarray(Image.fromarray(gray).resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)


def to_input(stored: Gray, preparation: Preparation) -> NDArray[np.float32]:
    """Turn a stored image, uint8 [size, size], into a model's input, float32 [channels, height, width] in [0, 1]."""
    pixels = resize(stored, preparation.height, preparation.width).astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(np.broadcast_to(pixels, (preparation.channels, *pixels.shape)))


def prepare(data: bytes, preparation: Preparation, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Turn the bytes of an image file into a model's input, float32 [channels, height, width] in [0, 1].

    Raises:
        ImageError: The bytes cannot become an image.
    """
    picture = read_gray(data, max_pixels=max_pixels)
    return to_input(fit(picture.gray, preparation.size, preparation.fit), preparation)


def encode_png(gray: Gray) -> bytes:
    """Encode uint8 [h, w] as an 8-bit gray PNG."""
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, format="PNG", compress_level=2)
    return buffer.getvalue()


def _to_gray(image: Image.Image) -> Gray:
    """Decode and convert; a band of rows at a time, since wider types for a whole film take many times its memory."""
    ImageOps.exif_transpose(image, in_place=True)
    deep = image.mode.startswith("I") or image.mode == "F"
    convert = _deep_converter(image) if deep else _shallow_to_gray
    gray = np.empty((image.height, image.width), dtype=np.uint8)
    for top, band in _bands(image):
        gray[top : top + band.height] = convert(band)
    return gray


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """An image from top to bottom in bands of about `_BAND` pixels, each with its first row."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _shallow_to_gray(image: Image.Image) -> Gray:
    if image.mode == "P" or image.has_transparency_data:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    if image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"), dtype=np.uint8)


def _deep_converter(image: Image.Image) -> Callable[[Image.Image], Gray]:
    """How bands of an image deeper than 8 bits become gray, by what the whole image holds."""
    highest = 0.0
    for _, band in _bands(image):
        values = np.asarray(band)
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):  # a minimum with a NaN in it is NaN
            raise ValueError("pixel values that are not finite")
        if low < 0:
            raise ValueError("negative pixel values")
        highest = max(highest, high)
    if image.mode == "F" and highest <= 1.0:
        white = 1.0
    else:
        white = next((2.0**bits - 1 for bits in _DEEP_BITS if highest < 2**bits), highest)

    def convert(values: NDArray[Any]) -> Gray:
        gray: Gray = np.rint(values * (255 / white)).astype(np.uint8)
        return gray

    if not image.mode.startswith("I;16"):
        return lambda band: convert(np.asarray(band, dtype=np.float64))
    table = convert(np.arange(highest + 1))
    return lambda band: table[np.asarray(band)]


def _short(error: Exception) -> str:
    text = str(error).splitlines()
    return text[0][:120] if text else type(error).__name__
