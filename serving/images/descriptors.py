"""Descriptors of an image: numbers, computed without a model, in which drift of a scanner or an export shows first."""

import math
from dataclasses import dataclass

import numpy as np

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.images.types import Gray, Picture

BLACK = 5
"""Highest gray level that counts as black."""
WHITE = 250
"""Lowest gray level that counts as white."""

_STEP = 3
"""Of large images every third row and its neighbours are measured: enough pixels, at a third of the time. The step is
odd, so that it meets every row of the JPEG blocks, which are 8 rows high."""
_LARGE = 192
"""Rows from which an image is large."""

_LEVELS = np.arange(256, dtype=np.float64)
_SUMS = np.stack([_LEVELS, _LEVELS**2, _LEVELS <= BLACK, _LEVELS >= WHITE])
"""Times a histogram: the sums of gray levels, of their squares, of black and of white pixels."""


@dataclass(frozen=True)
class Descriptors:
    """Ten numbers about an image; gray levels are 0 to 255.

    Attributes:
        mean: Mean gray level.
        contrast: Standard deviation of gray levels.
        entropy: Entropy of the histogram of gray levels, in bits, 0 to 8.
        sharpness: Variance of the Laplacian, in squared gray levels.
        noise: Standard deviation of the noise, in gray levels (Immerkaer, Fast Noise Variance Estimation, 1996).
        black: Share of pixels at or below `BLACK`.
        white: Share of pixels at or above `WHITE`.
        aspect: Width over height of the original.
        width: Width of the original, in pixels.
        height: Height of the original, in pixels.
    """

    mean: float
    contrast: float
    entropy: float
    sharpness: float
    noise: float
    black: float
    white: float
    aspect: float
    width: float
    height: float


def compute_descriptors(picture: Picture, stored: Gray) -> Descriptors:
    """Compute the descriptors of an image.

    Args:
        picture: The decoded original, for its size and aspect.
        stored: The prepared square image, uint8 [S, S], S at least 3, for all else: so the numbers of a large film and
            of its prepared copy can be compared. From `_LARGE` rows on only every third row is measured.
    """
    step = _STEP if len(stored) >= _LARGE else 1
    sampled = stored[::step]
    size = sampled.size
    counts = np.bincount(sampled.reshape(-1), minlength=256).astype(np.float64)
    mean, squares, black, white = (_SUMS @ counts / size).tolist()
    sharpness, noise = _measure_edges(stored, step)
    return Descriptors(
        mean=mean,
        contrast=math.sqrt(max(0.0, squares - mean**2)),
        entropy=max(0.0, math.log2(size) - float(counts @ np.log2(np.maximum(counts, 1))) / size),
        sharpness=sharpness,
        noise=noise,
        black=black,
        white=white,
        aspect=picture.width / picture.height,
        width=float(picture.width),
        height=float(picture.height),
    )


def _measure_edges(stored: Gray, step: int) -> tuple[float, float]:
    """Return sharpness and noise: the Laplacian adds two second differences, Immerkaer's mask multiplies them."""
    rows = len(stored)
    above, middle, below = (stored[first : rows - 2 + first : step].astype(np.int16) for first in range(3))
    down = above
    down += below
    down -= middle
    down -= middle
    # As one vector, which takes half the time; the last two of each row mix in the next row, and are cut off.
    flat, flat_down = middle.reshape(-1), down.reshape(-1)
    laplacian, both = np.zeros_like(flat), np.zeros_like(flat)
    for second, of in ((laplacian[:-2], flat), (both[:-2], flat_down)):
        np.add(of[:-2], of[2:], out=second)
        second -= of[1:-1]
        second -= of[1:-1]
    laplacian[:-2] += flat_down[1:-1]
    laplacian, both = (each.reshape(middle.shape)[:, :-2] for each in (laplacian, np.abs(both, out=both)))
    # Row by row, since a longer vector would make BLAS wake other cores; a row's sum in float32 is off by 1e-6 at most.
    edges, size = laplacian.astype(np.float32), laplacian.size
    squares, mean = _add(np.vecdot(edges, edges)) / size, _add(edges.sum(axis=1)) / size
    absolute = _add(both.astype(np.float32).sum(axis=1)) / size
    return squares - mean**2, math.sqrt(math.pi / 2) / 6 * absolute


def _add(rows: Float32) -> float:
    return float(rows.sum(dtype=np.float64))
