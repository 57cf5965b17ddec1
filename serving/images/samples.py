"""Samples deeper than 8 bits, and the white that scales them to 8."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.grayscale import Bands
from pneumo.serving.images.types import Gray, Size

CURVE = "an unusual brightness curve is declared and not applied"
"""Remark on a gamma that is not that of screens, and its like."""
CLIPPED = "pixels above white were clipped"
"""Remark on an image with hot pixels."""
_DEPTHS = (8, 10, 12, 14, 16)
_FEW = 0.01
"""Share of samples that may lie above white: hot pixels and burnt-in letters do, a chest does not."""


@dataclass(frozen=True)
class Samples:
    """Samples of an image as its file stores them.

    Attributes:
        size: Width and height in pixels.
        mode: Pillow's mode once a sample has 8 bits: `L`, `LA`, `RGB`, `RGBA`, `CMYK`; `La`, `RGBa` if premultiplied.
        full: Largest value that a sample can hold; None for floating samples.
        bands: Function that returns bands of rows from top to bottom, each [rows, width, channels].
        declared: White that the file declares, if it is smaller than `full`.
        padded: Whether the standard scales samples of the declared depth up to `full`, as that of PNG does.
        inverted: Whether 0 is white.
        changed: Whether version 1 of the decoding rules read other samples.
        remarks: Remarks about the file.
    """

    size: Size
    mode: str
    full: float | None
    bands: Callable[[], Iterator[NDArray[Any]]]
    declared: float | None = None
    padded: bool = False
    inverted: bool = False
    changed: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def colours(self) -> int:
        """Number of channels that are no alpha."""
        return len(self.mode.rstrip("Aa"))


def scale_samples(samples: Samples) -> Bands:
    """Scale samples to 8 bits by their white; brighter ones are clipped.

    White is what the file declares (BitsPerSample of 10, 12 or 14, SMaxSampleValue, sBIT), unless more than a few
    samples exceed it. Otherwise it is guessed: the smallest of 8, 10, 12, 14 and 16 bits and of what a sample can hold
    that only a few samples exceed, which is 1 in 100 of those that are not 0. So neither hot pixels nor a black border
    decide. Floating samples are first tried as 0 to 1. By the standard of PNG sBIT is the depth before samples were
    scaled up to 16 bits, so that white is 65,535, unless they leave the upper bits empty and use the lower ones.

    Raises:
        ImageError: Negative or infinite samples, or floating ones of more than 16 bits.
    """
    white, alpha_white, highest, guessed = _find_white(samples)
    has_alpha = samples.mode[-1] in "Aa"
    is_whole = len(samples.mode) > 1 and white == samples.full == 2**16 - 1
    before = next((2.0**bits - 1 for bits in _DEPTHS if highest < 2**bits), highest)  # under version 1 of the rules
    if samples.full is None and highest <= 1:
        before = 1.0
    if len(samples.mode) > 1:
        before = samples.full or before
    remarks = [f"depth not declared, taken as {int(white).bit_length()} bits"] if guessed else []
    remarks += [CLIPPED] if highest > white else []

    def scale(values: NDArray[Any], white: float = white) -> Gray:
        gray: Gray = np.rint(np.minimum(values, white) * (255 / white)).astype(np.uint8)
        return gray

    table = None
    if samples.full and samples.full < 2**16:
        possible = np.arange((samples.full if has_alpha else highest) + 1, dtype=np.uint32)
        table = (possible >> 8).astype(np.uint8) if is_whole else scale(possible)  # the former is what Pillow does

    def to_images() -> Iterator[Image.Image]:
        for band in samples.bands():
            gray = scale(band) if table is None else table[band]
            if has_alpha and alpha_white != white:
                gray[..., -1] = scale(band[..., -1], alpha_white)
            if samples.inverted:
                gray[..., : samples.colours] ^= 255
            yield _to_image(gray, samples.mode)

    rules = 2 if samples.changed or white != before else 1
    return Bands(samples.size, to_images, has_alpha, (*samples.remarks, *remarks), rules)


def _find_white(samples: Samples) -> tuple[float, float, float, bool]:
    """Return white, white of the alpha, the largest sample, and whether white was guessed."""
    full, declared, colours = samples.full, samples.declared, samples.colours
    levels = [1.0] if full is None else [full]
    levels = sorted({*levels, *(2.0**bits - 1 for bits in _DEPTHS if full is None or 2**bits - 1 < full)})
    padding = int((full + 1) // (declared + 1)) - 1 if samples.padded and full and declared else 0
    above, lit, loose, highest, alpha = dict.fromkeys([*levels, declared or 0.0], 0), 0, 0, 0.0, 0.0
    for band in samples.bands():
        values = band[..., :colours]
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and np.isfinite(high)):  # the least of values with a NaN is NaN
            raise ImageError("unreadable", "unsupported: negative or infinite pixel values; save it as PNG")
        highest, alpha = max(highest, high), max(alpha, float(band[..., colours:].max(initial=0)))
        lit += int(np.count_nonzero(values))
        loose += int(np.count_nonzero(values & padding)) if padding else 0
        for level in above:
            limit = level if full is None else int(level)  # a float would turn the samples into floats
            above[level] += int(np.count_nonzero(values > limit)) if high > level else 0
    fits = [level for level in above if above[level] <= _FEW * lit]
    white = declared if declared in fits else next((level for level in levels if level in fits), None)
    if padding and (white != declared or loose <= _FEW * lit):  # samples that were scaled up end in zeros
        white = full
    if white is None:
        raise ImageError("unreadable", "unsupported: floating pixel values of more than 16 bits; scale them to 0 to 1")
    alpha_white = next((level for level in ([] if full else [1.0]) + [white] if alpha <= level), full or white)
    return white, alpha_white, highest, white not in (declared, full or 1.0)


def _to_image(gray: Gray, mode: str) -> Image.Image:
    """Return samples of 8 bits, uint8 [h, w, channels], as an image; premultiplied ones with their colours restored."""
    if mode == "L":
        return Image.fromarray(gray[..., 0])
    if mode == "La":
        gray, mode = gray[..., (0, 0, 0, 1)], "RGBa"
    height, width, _ = gray.shape
    image = Image.frombytes(mode, (width, height), gray[..., : len(mode)].tobytes())
    return image.convert("RGBA") if mode == "RGBa" else image
