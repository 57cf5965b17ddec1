"""Heat maps on the image that was sent: projection, colours, PNG."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from pneumo.serving.contracts.arrays import Float32, Float64
from pneumo.serving.images.preparation import Preparation, resize
from pneumo.serving.images.types import Fit, Gray

LONGEST = 1024
"""Longest side of a displayed film, in pixels."""

OPACITY = 0.6
"""Opacity of the heat map over the strongest evidence."""

_COLOURS = np.array(list(bytes.fromhex("0d0887 4c02a1 7e03a8 a92395 cb4778 e66c5c f89441 fdc328 f0f921"))).reshape(9, 3)
"""Matplotlib's `plasma` (Smith and van der Walt, 2015, CC0) at nine places; between them within 6 levels of it.

It is perceptually uniform, readable with each kind of colour blindness, and contains no gray.
"""


def scale_film(gray: Gray) -> Gray:
    """Scale a film for display: uint8 [h, w], the longest side at most `LONGEST`, never enlarged."""
    shrink = min(1.0, LONGEST / max(gray.shape))
    return resize(gray, max(1, round(gray.shape[0] * shrink)), max(1, round(gray.shape[1] * shrink)))


def project_on_film(
    values: Float32, preparation: Preparation, original: tuple[int, int], film: tuple[int, int]
) -> Float32:
    """Project values over a model's input onto the film that the input was made from, bilinearly.

    Args:
        values: float32 [h, w]: equal cells of the input.
        preparation: How the film became the input.
        original: Height and width of the film as it was sent.
        film: Height and width of the result, the same film at any scale.

    Returns:
        float32 of shape `film`; NaN outside the input, for what `crop` leaves out.
    """
    down, across = _locate_input(preparation, *original)
    rows, columns = _interpolation(values.shape[0], film[0], down), _interpolation(values.shape[1], film[1], across)
    return (rows @ values.astype(np.float64) @ columns.T).astype(np.float32)


class _Span(NamedTuple):
    """Place of the input along one side of the film, in parts of that side: padding begins before it and is longer."""

    begin: float
    length: float


def _locate_input(preparation: Preparation, height: int, width: int) -> tuple[_Span, _Span]:
    """Return the place of the input on a film, down and across, by the arithmetic of `images.preparation.fit`."""
    whole = _Span(0.0, 1.0)
    longest, shortest = max(height, width), min(height, width)
    if preparation.fit is Fit.SQUASH or longest == shortest:
        return whole, whole
    if preparation.fit is Fit.CROP:
        part = shortest / longest
        other = _Span((1 - part) / 2, part)
        return (other, whole) if height > width else (whole, other)
    size = preparation.size
    pixels = max(1, round(shortest / longest * size))
    other = _Span(-round((size - pixels) * 0.5) / pixels, size / pixels)
    return (other, whole) if height < width else (whole, other)


def _interpolation(cells: int, pixels: int, span: _Span) -> Float64:
    """Return weights [pixels, cells] of a bilinear interpolation from cells over a span of a line; NaN beyond it."""
    place = ((np.arange(pixels) + 0.5) / pixels - span.begin) / span.length
    nearest = np.clip(place * cells - 0.5, 0, cells - 1)
    weights: Float64 = np.clip(1 - np.abs(nearest[:, None] - np.arange(cells)), 0, None)
    weights[(place < 0) | (place > 1)] = np.nan
    return weights


def encode_heat(heat: Float32) -> bytes:
    """Encode a heat map as a PNG to lay over the film: transparent without evidence, opaque over the strongest.

    Args:
        heat: float32 [h, w], clipped to 0 (no colour) to 1 (the strongest); NaN counts as 0.
    """
    buffer = io.BytesIO()
    image, alphas = _colour(heat, 1.0)
    image.save(buffer, format="PNG", transparency=alphas, compress_level=2)
    return buffer.getvalue()


def encode_overlay(film: Gray, heat: Float32, opacity: float = OPACITY) -> bytes:
    """Encode a film under its heat map as an RGB PNG.

    Args:
        film: uint8 [h, w].
        heat: As for `encode_heat`.
        opacity: Opacity over the strongest evidence, in [0, 1].
    """
    image, alphas = _colour(heat, opacity)
    image.info["transparency"] = alphas
    below = Image.fromarray(film).convert("RGBA")
    buffer = io.BytesIO()
    Image.alpha_composite(below, image.convert("RGBA")).convert("RGB").save(buffer, format="PNG", compress_level=2)
    return buffer.getvalue()


def _colour(heat: Float32, opacity: float) -> tuple[Image.Image, bytes]:
    """Return a heat map in 256 colours, and the opacity of each, which grows linearly from 0."""
    image = Image.fromarray(np.rint(np.clip(np.nan_to_num(heat), 0, 1) * 255).astype(np.uint8))
    steps = np.linspace(0, 1, 256)
    places = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(steps, places, channel) for channel in _COLOURS.T], axis=1)
    image.putpalette(np.rint(colours).astype(np.uint8).tobytes())
    return image, np.rint(steps * opacity * 255).astype(np.uint8).tobytes()
