"""Decoded Pillow images of any mode to 8-bit gray."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo.serving.images.types import Gray

_DEEP_BITS = (8, 10, 12, 14, 16)
_BAND = 2**18
"""Pixels that are converted at once."""


def to_gray(image: Image.Image) -> Gray:
    """Convert an image to uint8 [h, w].

    Colour becomes luma (ITU-R 601), transparency becomes black. An image deeper than 8 bits is scaled by the smallest
    of 8, 10, 12, 14 and 16 bits that holds its maximum, since detectors store 12 bits in 16. The image is converted in
    bands of rows, since wider types for a whole film take many times its memory.

    Raises:
        ValueError: Impossible pixel values.
    """
    deep = image.mode.startswith("I") or image.mode == "F"
    convert = _deep_converter(image) if deep else _shallow_to_gray
    if image.width * image.height <= _BAND:
        return convert(image)
    gray = np.empty((image.height, image.width), dtype=np.uint8)
    for top, band in _bands(image):
        gray[top : top + band.height] = convert(band)
    return gray


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield bands of about `_BAND` pixels from top to bottom, each with its first row."""
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
    return np.asarray(image if image.mode == "L" else image.convert("L"), dtype=np.uint8)


def _deep_converter(image: Image.Image) -> Callable[[Image.Image], Gray]:
    """Return a function that converts bands of an image deeper than 8 bits, scaled by the whole image."""
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

    def convert(values: NDArray[np.floating]) -> Gray:
        gray: Gray = np.rint(values * (255 / white)).astype(np.uint8)
        return gray

    if not image.mode.startswith("I;16"):
        return lambda band: convert(np.asarray(band, dtype=np.float64))
    table = convert(np.arange(highest + 1))
    return lambda band: table[np.asarray(band)]
