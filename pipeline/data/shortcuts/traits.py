"""Numbers about an image and its file that hold little or no anatomy."""

import hashlib
from dataclasses import astuple, dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from pneumo.serving.contracts.arrays import Float32, Float64
from pneumo.serving.images.descriptors import BLACK, WHITE, Descriptors, compute_descriptors
from pneumo.serving.images.types import Gray, Picture

DESCRIPTORS = tuple(field.name for field in fields(Descriptors))
STRIPS = ("top", "bottom", "left", "right")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
BORDER = tuple(
    f"{number} {place}"
    for place in (*(f"of the {strip} strip" for strip in STRIPS), *(f"in the {corner} corner" for corner in CORNERS))
    for number in ("mean", "contrast", "share of white", "share of black")
)
"""Names of the numbers about border and corners, in order."""

CELLS = 8
"""Rows and columns of the grid in which white, black and equal pixels are counted."""
FINEST = 112
"""Most rows and columns of the local contrast.

A burnt-in letter is a pixel or two wide at 224. On 1,000 real training images one drawn on every normal image, 8 to 16
pixels high and 160 to 255 bright, is told by one pixel of the local contrast with an AUROC of 0.97 to 0.997 at 112
rows, and of 0.88 to 0.99 at 56; without a letter it is 0.60 and 0.76. At 224 rows it takes four times the memory.
"""

_LEVELS = np.arange(256)
_SUMS = np.stack([_LEVELS, _LEVELS**2, _LEVELS >= WHITE, _LEVELS <= BLACK], axis=1).astype(np.float64)
"""Times a histogram: the sums of gray levels, of their squares, of white and of black pixels."""
PATCHES = (3, 5)
"""Sides of white patches, in pixels of the local contrast."""

MOST_IMAGES = 6000
"""Images that are measured, about: patients are sampled from more. They take 14 KB each."""


@dataclass(frozen=True)
class Traits:
    """What is measured of one image.

    Attributes:
        descriptors: The ten descriptors, by `DESCRIPTORS`.
        file: Bytes of the file, width, height and aspect of the original; NaN if unknown.
        format: Container format of the file, None if unknown.
        border: Numbers about border and corners, by `BORDER`.
        areas: Shares of white, of black and of equal pixels in each cell of the grid, [3 x 64]; then the largest share
            of white, and for each of `PATCHES` the gray level of the whitest patch, wherever they are.
        contrast: Gray level above that of the surroundings, halved, plus 128; [n, n], n up to `FINEST`.
    """

    descriptors: Float64
    file: Float64
    format: str | None
    border: Float64
    areas: Float32
    contrast: NDArray[np.uint8]


def is_sampled(patient: str, images: int) -> bool:
    """Return whether a patient's images are measured, given the number of images of all patients."""
    number = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8])
    return number * images < MOST_IMAGES * 2**64


def describe_traits(picture: Picture, stored: Gray, *, size: int | None, file_format: str | None) -> Traits:
    """Describe an image by numbers without anatomy.

    Args:
        picture: The original, for its width and height.
        stored: The prepared square image, uint8 [S, S], S at least 8, from which all else is taken.
        size: Bytes of the original file, None if unknown.
        file_format: Its container format, None if unknown.
    """
    about, small = compute_descriptors(picture, stored), _shrink(stored)
    return Traits(
        descriptors=np.array(astuple(about)),
        file=np.array([np.nan if size is None else size, about.width, about.height, about.aspect]),
        format=file_format,
        border=_describe_border(stored),
        areas=_count_areas(stored, small),
        contrast=_measure_contrast(small),
    )


def _describe_border(gray: Gray) -> Float64:
    """Describe strips of 1/28 of the side, and corners of 1/8."""
    strip, corner = max(1, len(gray) // 28), max(1, len(gray) // CELLS)
    strips = (gray[:strip], gray[-strip:], gray[:, :strip], gray[:, -strip:])
    corners = (gray[rows, columns] for rows in _ends(corner) for columns in _ends(corner))
    sums = np.stack([np.bincount(part.ravel(), minlength=256) / part.size for part in (*strips, *corners)]) @ _SUMS
    sums[:, 1] = np.sqrt((sums[:, 1] - sums[:, 0] ** 2).clip(0))
    return np.asarray(sums.ravel())


def _ends(length: int) -> tuple[slice, slice]:
    return slice(length), slice(-length, None)


def _count_areas(gray: Gray, small: Image.Image) -> Float32:
    counts = np.bincount((_cell_keys(len(gray)) + gray).ravel(), minlength=CELLS**2 << 8).reshape(CELLS**2, 256)
    shares = (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    white = shares[:, WHITE:].sum(axis=1)
    # Below white all are the same: of classes that differ in exposure the brightest patch would tell, which is no mark.
    patches = [max(_find_patch(np.asarray(small), side), WHITE - 1) for side in PATCHES]
    return np.array(
        [*white, *shares[:, : BLACK + 1].sum(axis=1), *shares.max(axis=1), white.max(), *patches], np.float32
    )


def _find_patch(gray: Gray, side: int) -> int:
    """Return the gray level that all pixels of the brightest square of `side` pixels reach."""
    for _ in range(2):  # along one axis, then along the other
        gray = np.minimum.reduce([gray[first : len(gray) - side + 1 + first] for first in range(side)]).T
    return int(gray.max())


def _shrink(gray: Gray) -> Image.Image:
    side = min(FINEST, len(gray))
    return Image.fromarray(gray).resize((side, side), Image.Resampling.BOX)


def _measure_contrast(small: Image.Image) -> NDArray[np.uint8]:
    around = small.filter(ImageFilter.BoxBlur(max(2, small.width // 28)))
    return np.asarray(ImageChops.subtract(small, around, scale=2, offset=128))


@lru_cache(maxsize=4)
def _cell_keys(side: int) -> NDArray[np.intp]:
    """Return 256 times the number of each pixel's cell, [side, side]."""
    cell = np.arange(side) * CELLS // side
    return (cell[:, None] * CELLS + cell) << 8
