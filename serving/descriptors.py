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
    share = np.array(Image.fromarray(stored).histogram(), dtype=np.float64) / stored.size
    deep = stored.astype(np.int16)
    mean = float(share @ _LEVELS)
    seen = share[share > 0]
    return Descriptors(
        mean=mean,
        contrast=math.sqrt(max(0.0, float(share @ (_LEVELS - mean) ** 2))),
        entropy=max(0.0, -float(seen @ np.log2(seen))),
        sharpness=_sharpness(deep),
        noise=_noise(deep),
        black=float(share[: BLACK + 1].sum()),
        white=float(share[WHITE:].sum()),
        aspect=picture.width / picture.height,
        width=float(picture.width),
        height=float(picture.height),
    )


def _sharpness(gray: NDArray[np.int16]) -> float:
    laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1]
    laplacian += gray[1:-1, :-2]
    laplacian += gray[1:-1, 2:]
    laplacian -= gray[1:-1, 1:-1] << 2
    # Whole numbers: exact, and no BLAS, which would wake other cores for a vector of this length.
    squares = np.square(laplacian, dtype=np.int32).sum(dtype=np.int64)
    return float(squares) / laplacian.size - (float(laplacian.sum(dtype=np.int64)) / laplacian.size) ** 2


def _noise(gray: NDArray[np.int16]) -> float:
    # Immerkaer's mask is the product of two second differences, one along each axis.
    across = gray[:, :-2] + gray[:, 2:]
    across -= gray[:, 1:-1] << 1
    both = across[:-2] + across[2:]
    both -= across[1:-1] << 1
    return math.sqrt(math.pi / 2) / 6 * float(np.abs(both, out=both).sum(dtype=np.int32)) / both.size
