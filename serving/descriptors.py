"""Numbers that describe an image without a model: what drift of a scanner, an exposure or an export shows in first."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.image import Gray, Picture

BLACK = 5
"""Gray level up to which a pixel counts as black."""
WHITE = 250
"""Gray level from which a pixel counts as white."""

_LEVELS = np.arange(256, dtype=np.float64)


@dataclass(frozen=True)
class Descriptors:
    """An image in ten numbers; gray levels are 0 to 255.

    Attributes:
        mean: Mean gray level.
        contrast: Standard deviation of gray levels.
        entropy: Of the histogram of gray levels, in bits, 0 to 8.
        sharpness: Variance of the Laplacian, in squared gray levels.
        noise: Standard deviation of the noise, in gray levels (Immerkaer, Fast Noise Variance Estimation, 1996).
        black: Share of pixels at or below `BLACK`.
        white: Share of pixels at or above `WHITE`.
        aspect: Width over height of the original.
        width: Of the original, in pixels.
        height: Of the original, in pixels.
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


def describe(picture: Picture, stored: Gray) -> Descriptors:
    """Describe an image.

    Args:
        picture: The decoded original: its size and aspect are taken.
        stored: The prepared square image, uint8 [S, S], S at least 3: all else is taken from it, so that the numbers of
            a large film and of its prepared copy can be compared.
    """
    counts = Image.fromarray(stored).histogram()
    found = np.array(counts, dtype=np.float64)
    mean = float(found @ _LEVELS) / stored.size
    seen = found[found > 0]
    sharpness, noise = _edges(stored.astype(np.int16))
    return Descriptors(
        mean=mean,
        contrast=math.sqrt(float(found @ np.square(_LEVELS - mean)) / stored.size),
        entropy=max(0.0, math.log2(stored.size) - float(seen @ np.log2(seen)) / stored.size),
        sharpness=sharpness,
        noise=noise,
        black=sum(counts[: BLACK + 1]) / stored.size,
        white=sum(counts[WHITE:]) / stored.size,
        aspect=picture.width / picture.height,
        width=float(picture.width),
        height=float(picture.height),
    )


def _edges(gray: NDArray[np.int16]) -> tuple[float, float]:
    """Sharpness and noise: the Laplacian is the sum of two second differences, Immerkaer's mask is their product."""
    middle = gray[1:-1]
    twice = middle << 1
    down = gray[:-2] + gray[2:]
    down -= twice
    laplacian = middle[:, :-2] + middle[:, 2:]
    laplacian -= twice[:, 1:-1]
    laplacian += down[:, 1:-1]
    both = down[:, :-2] + down[:, 2:]
    both -= down[:, 1:-1] << 1
    # Row by row, since a longer vector would make BLAS wake other cores; a row's sum in float32 is off by 1e-6 at most.
    edges, size = laplacian.astype(np.float32), laplacian.size
    squares, mean = _total(np.vecdot(edges, edges)) / size, _total(edges.sum(axis=1)) / size
    absolute = _total(np.abs(both, out=both).astype(np.float32).sum(axis=1)) / size
    return squares - mean**2, math.sqrt(math.pi / 2) / 6 * absolute


def _total(rows: NDArray[np.float32]) -> float:
    return float(rows.sum(dtype=np.float64))
