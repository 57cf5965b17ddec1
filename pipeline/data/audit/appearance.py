"""The appearance of an image in a few numbers: a perceptual hash that finds copies, and its extremes of gray."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.images.preparation import resize
from pneumo.serving.images.types import Gray

NEAR_DISTANCE = 28
"""Most bits of 256 in which the hashes of copies differ.

Measured on the 5,216 training images of Kermany et al. at 224 px: the closest two images of different patients differ
in 39 bits, of one patient in 47 (byte-identical ones apart). An image and its copy differ in 12 at most after JPEG at
quality 50, resizing to 128 px and back, noise of 5 gray levels, or +10% and +10 levels of brightness; in 18 after
gamma 0.8; in 32 (95%: 25) after 1% is cut from each edge. A 64-bit hash cannot do this: 1,076 pairs of different
patients lie within 6 bits.
"""

_SIDE, _WAVES = 32, 16


@dataclass(frozen=True)
class Appearance:
    """Numbers that describe an image: sides of the original, perceptual hash of 256 bits, and gray levels.

    `spread` is the standard deviation of gray levels; `black` and `white` are the shares of pixels at 0 and 255.
    """

    width: int
    height: int
    hash: bytes
    spread: float
    black: float
    white: float


def describe_appearance(gray: Gray, *, width: int | None = None, height: int | None = None) -> Appearance:
    """Describe an image, uint8 [h, w]; give the original's width and height if `gray` is a prepared image."""
    levels = np.arange(256)
    shares = np.bincount(gray.ravel(), minlength=256) / gray.size
    mean = float(shares @ levels)
    return Appearance(
        width=width or gray.shape[1],
        height=height or gray.shape[0],
        hash=perceptual_hash(gray),
        spread=float(np.sqrt(shares @ (levels - mean) ** 2)),
        black=float(shares[0]),
        white=float(shares[255]),
    )


def perceptual_hash(gray: Gray) -> bytes:
    """Return a 256-bit hash of an image's content, uint8 [h, w].

    A bit says if one of the 16 x 16 lowest waves of the discrete cosine transform at 32 x 32 pixels is above their
    median (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, with 16 waves for 8).
    """
    small = resize(gray, _SIDE, _SIDE).astype(np.float64)
    waves = (_cosines() @ small @ _cosines().T).ravel()
    waves[0] = np.median(waves[1:])  # the mean gray is no content
    return np.packbits(waves > waves[0]).tobytes()


@cache
def _cosines() -> NDArray[np.float64]:
    wave, place = np.arange(_WAVES)[:, None], np.arange(_SIDE)[None, :]
    return np.cos(np.pi * (2 * place + 1) * wave / (2 * _SIDE))
