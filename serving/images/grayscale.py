"""Decoded Pillow images of 8 bits a sample, of any mode, to gray."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.types import Gray, Size

_BAND = 2**18
"""Pixels that are converted at once."""
TRANSPARENT = "transparent pixels lie on black"
"""Remark on an image that is not opaque."""
_NEAR = 5
"""Neighbouring gray levels that count as one colour."""
_DARK = 64
"""Level below which a picture in the alpha of one colour hardly shows."""


class Bands(NamedTuple):
    """An image of 8 bits a sample in bands of rows, since wider types for a whole film take many times its memory.

    Attributes:
        size: Width and height in pixels.
        images: Function that returns the bands from top to bottom.
        alpha: Whether pixels may be transparent.
        remarks: Remarks about the file.
        rules: First version of the decoding rules that gave these pixels.
    """

    size: Size
    images: Callable[[], Iterator[Image.Image]]
    alpha: bool
    remarks: tuple[str, ...] = ()
    rules: int = 1


def split(image: Image.Image) -> Bands:
    """Split an image into bands of about `_BAND` pixels."""
    rows = max(1, _BAND // image.width)

    def crop() -> Iterator[Image.Image]:
        if rows >= image.height:
            yield image
            return
        for top in range(0, image.height, rows):
            yield image.crop((0, top, image.width, min(top + rows, image.height)))

    return Bands(image.size, crop, image.has_transparency_data)


def to_gray(image: Image.Image) -> Gray:
    """Convert an image to uint8 [h, w], as `merge` does."""
    return merge(split(image))[0]


def merge(bands: Bands) -> tuple[Gray, tuple[str, ...]]:
    """Return gray pixels, uint8 [h, w], and remarks.

    Colour becomes luma (ITU-R 601). Transparency is composited on black. That shows a picture that lies in the alpha of
    one bright colour; one in the alpha of a dark colour would vanish.

    Raises:
        ImageError: Such a picture, or nothing but transparent pixels.
    """
    transparent = bands.alpha and _is_transparent(bands)
    width, height = bands.size
    gray, top = np.empty((height, width), dtype=np.uint8), 0
    for image in bands.images():
        gray[top : top + image.height] = _flatten(image, transparent)
        top += image.height
    return gray, (*bands.remarks, TRANSPARENT) if transparent else bands.remarks


def _flatten(image: Image.Image, transparent: bool) -> Gray:
    if transparent:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    if image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image if image.mode == "L" else image.convert("L"), dtype=np.uint8)


def _is_transparent(bands: Bands) -> bool:
    """Return whether pixels are transparent; raise an `ImageError` if that leaves no picture."""
    alphas, grays = np.zeros(256, int), np.zeros(256, int)
    for image in bands.images():
        coloured = image.convert("RGBA")
        alpha = coloured.getchannel("A")
        alphas += alpha.histogram()
        grays += coloured.convert("L").histogram(alpha)
    if not alphas[:255].any():
        return False
    if not grays.any():
        raise ImageError("unreadable", "unsupported: all pixels are transparent; save it without alpha")
    if _is_flat(grays) and grays[_DARK:].sum() < grays[:_DARK].sum() and not _is_flat(alphas):
        raise ImageError("unreadable", "unsupported: the picture lies in the alpha of a dark colour; save it as gray")
    return True


def _is_flat(histogram: np.ndarray) -> bool:
    """Return whether all but a hundredth of the pixels have about one level."""
    return bool(np.convolve(histogram, np.ones(_NEAR)).max() >= 0.99 * histogram.sum())
