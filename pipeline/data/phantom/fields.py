"""Arithmetic on pixel fields that gives the same bits on every machine.

Only operations that IEEE 754 rounds exactly are used (+, -, *, /, square root, comparisons), one ufunc at a time: sine,
exponential, power, sums over an axis and matrix products differ in the last bit between CPUs and NumPy builds. Random
numbers come from `Generator.random` and `Generator.bytes` alone, whose streams have never changed.
"""

import math

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]  # float32 throughout: the stubs widen it at a Python number, NumPy does not


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return one uniform number in [low, high)."""
    return low + (high - low) * float(rng.random())


def chance(rng: np.random.Generator, probability: float) -> bool:
    """Return True with the given probability."""
    return float(rng.random()) < probability


def lattice(rng: np.random.Generator, rows: int, columns: int) -> Field:
    """Return random lattice values (rows, columns), uniform in [-1, 1), for `sample`."""
    return (rng.random((rows, columns)) * 2.0 - 1.0).astype(np.float32)


def sample(values: Field, u: Field, v: Field) -> Field:
    """Interpolate lattice values smoothly.

    Args:
        values: Lattice (R, C).
        u: Horizontal place of each pixel (H, W); [0, 1] spans the columns, and the edge continues outside.
        v: Vertical place of each pixel (H, W); [0, 1] spans the rows.

    Returns:
        Field (H, W) within the range of the values.
    """
    rows, columns = values.shape
    x, y = np.clip(u, 0.0, 0.9999) * (columns - 1), np.clip(v, 0.0, 0.9999) * (rows - 1)
    i, j = np.floor(x), np.floor(y)
    fx, fy = ease(x - i), ease(y - j)
    j *= columns
    j += i
    corner = j.astype(np.intp)
    flat = values.ravel()
    top: Field = flat.take(corner)
    bottom: Field = flat[columns:].take(corner)
    top += (flat[1:].take(corner) - top) * fx
    bottom += (flat[columns + 1 :].take(corner) - bottom) * fx
    bottom -= top
    bottom *= fy
    bottom += top
    return bottom


def stretch(values: Field, size: int) -> Field:
    """Interpolate lattice values (R, C) smoothly over a square (size, size)."""
    rows, columns = values.shape
    axis = ((np.arange(size) + 0.5) * (1.0 / size)).astype(np.float32)
    x, y = axis * (columns - 1), axis * (rows - 1)
    i, j = x.astype(np.intp), y.astype(np.intp)
    fx, fy = ease(x - np.floor(x)), ease(y - np.floor(y))[:, None]
    wide = values[:, i] + (values[:, i + 1] - values[:, i]) * fx
    result: Field = wide[j] + (wide[j + 1] - wide[j]) * fy
    return result


def ease(t: Field) -> Field:
    """Return the smooth step 3t² - 2t³ of values in [0, 1]."""
    result = t * -2.0
    result += 3.0
    result *= t
    result *= t
    return result


def step(distance: Field, width: float) -> Field:
    """Return a smooth step from 0 at distance <= -width to 1 at distance >= width."""
    t = distance * (0.5 / width)
    t += 0.5
    np.maximum(t, 0.0, out=t)
    np.minimum(t, 1.0, out=t)
    return ease(t)


def bump(squared: Field) -> Field:
    """Return (1 - squared)² for a squared radius below 1, else 0: a bell without an exponential."""
    inside = 1.0 - squared
    np.maximum(inside, 0.0, out=inside)
    inside *= inside
    return inside


def blur(image: Field, sigma: float) -> Field:
    """Blur with a polynomial bell of the given standard deviation.

    Args:
        image: Field (H, W); its edge pixels are repeated outwards.
        sigma: Standard deviation in pixels; below 0.2 nothing changes.
    """
    if sigma < 0.2:
        return image
    reach = sigma * math.sqrt(11.0)  # (1 - x²)⁴ on [-1, 1] has variance 1/11
    radius = max(1, math.ceil(reach) - 1)
    bells = [max(0.0, 1.0 - (k / reach) * (k / reach)) for k in range(-radius, radius + 1)]
    weights = [bell * bell * bell * bell for bell in bells]
    total = math.fsum(weights)
    for _ in range(2):  # rows, then columns of the transpose
        padded = np.pad(image, ((radius, radius), (0, 0)), mode="edge")
        height = image.shape[0]
        result = np.zeros_like(image)
        for k, weight in enumerate(weights):
            result += padded[k : k + height] * np.float32(weight / total)
        image = np.ascontiguousarray(result.T)
    return image


def grain(rng: np.random.Generator, size: int) -> Field:
    """Return white noise (size, size) of mean 0 and standard deviation 1: near Gaussian, from whole numbers."""
    parts = np.frombuffer(rng.bytes(4 * size * size), dtype=np.uint8).reshape(4, size, size)
    total = parts[0].astype(np.int32)
    for part in parts[1:]:
        total += part
    result: Field = (total.astype(np.float32) - 510.0) * np.float32(1 / 147.80)  # four bytes: mean 510, sd 147.80
    return result
