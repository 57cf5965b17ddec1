"""Gray samples deeper than 8 bits, and the white that scales them to 8."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.grayscale import Bands, split
from pneumo.serving.images.types import Gray

CURVE = "an unusual brightness curve is declared and not applied"
"""Remark on a gamma that is not that of screens, and its like."""
CLIPPED = "pixels above white were clipped"
"""Remark on an image with hot pixels."""
_DEPTHS = (8, 10, 12, 14, 16)
_FULL = 2.0**16 - 1
_FEW = 0.01
"""Share of samples that may lie above white: hot pixels and burnt-in letters do, a chest does not."""


class Samples(NamedTuple):
    """A gray image of deep samples as Pillow loaded it: whole numbers of 16 or 32 bits, or floats.

    Attributes:
        image: The image, of mode `I;16`, `I;16B`, `I` or `F`.
        declared: White that the file declares.
        padded: Whether the standard scales samples of the declared depth up to 16 bits, as that of PNG does.
        inverted: Whether 0 is white.
        changed: Whether version 1 of the decoding rules read other samples.
        remarks: Remarks about the file.
    """

    image: Image.Image
    declared: float | None = None
    padded: bool = False
    inverted: bool = False
    changed: bool = False
    remarks: tuple[str, ...] = ()

    def read_bands(self) -> Iterator[NDArray[Any]]:
        """Yield bands of rows from top to bottom, each [rows, width]."""
        return map(np.asarray, split(self.image).images())


def scale_samples(samples: Samples) -> Bands:
    """Scale samples to 8 bits by their white; brighter ones are clipped.

    White is what the file declares (SMaxSampleValue, sBIT), unless more than a few samples exceed it. Otherwise it is
    guessed: the smallest of 8, 10, 12, 14 and 16 bits that only a few samples exceed, which is 1 in 100 of those that
    are not 0. So neither hot pixels nor a black border decide. Floating samples are first tried as 0 to 1. By the
    standard of PNG sBIT is the depth before samples were scaled up to 16 bits, so that white is 65,535, unless they
    leave the upper bits empty and use the lower ones.

    Raises:
        ImageError: Negative or infinite samples, or some of more than 16 bits.
    """
    is_float = samples.image.mode == "F"
    white, highest = _find_white(samples, is_float)
    before = next((2.0**bits - 1 for bits in _DEPTHS if highest < 2**bits), highest)  # under version 1 of the rules
    before = 1.0 if is_float and highest <= 1 else before
    guessed = white not in (samples.declared, 1.0 if is_float else _FULL)
    remarks = [f"depth not declared, taken as {int(white).bit_length()} bits"] if guessed else []
    remarks += [CLIPPED] if highest > white else []

    def scale(values: NDArray[Any]) -> Gray:
        gray: Gray = np.rint(np.minimum(values, white) * (255 / white)).astype(np.uint8)
        return 255 - gray if samples.inverted else gray

    table = None if samples.image.mode in ("I", "F") else scale(np.arange(highest + 1, dtype=np.uint32))

    def to_images() -> Iterator[Image.Image]:
        return (Image.fromarray(scale(band) if table is None else table[band]) for band in samples.read_bands())

    rules = 2 if samples.changed or white != before else 1
    return Bands(samples.image.size, to_images, False, (*samples.remarks, *remarks), rules)


def _find_white(samples: Samples, is_float: bool) -> tuple[float, float]:
    """Return white and the largest sample."""
    declared = samples.declared
    levels = [*([1.0] if is_float else []), *(2.0**bits - 1 for bits in _DEPTHS)]
    padding = int((_FULL + 1) // (declared + 1)) - 1 if samples.padded and declared else 0
    above, lit, loose, highest = dict.fromkeys([*levels, declared or 0.0], 0), 0, 0, 0.0
    for values in samples.read_bands():
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and np.isfinite(high)):  # the least of values with a NaN is NaN
            raise ImageError("unreadable", "unsupported: negative or infinite pixel values; save it as PNG")
        highest = max(highest, high)
        lit += int(np.count_nonzero(values))
        loose += int(np.count_nonzero(values & padding)) if padding else 0
        for level in above:
            limit = level if is_float else int(level)  # a float would turn the samples into floats
            above[level] += int(np.count_nonzero(values > limit)) if high > level else 0
    fits = [level for level in above if above[level] <= _FEW * lit]
    white = declared if declared in fits else next((level for level in levels if level in fits), None)
    if padding and (white != declared or loose <= _FEW * lit):  # samples that were scaled up end in zeros
        white = _FULL
    if white is None:
        raise ImageError("unreadable", "unsupported: pixel values of more than 16 bits; scale floating ones to 0 to 1")
    return white, highest
