"""Draw a heat map on the film that was sent: where it lies there, and in which colours."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pneumo.serving.contracts.arrays import Float32, Float64
from pneumo.serving.images.preparation import Preparation, encode_png, resize
from pneumo.serving.images.types import Fit, Gray

LONGEST = 1024
"""Pixels of the longest side of a film that is shown."""

OPACITY = 0.6
"""How much of the film the strongest evidence hides."""

_COLOURS = np.array(
    [
        (0x0D, 0x08, 0x87),
        (0x4C, 0x02, 0xA1),
        (0x7E, 0x03, 0xA8),
        (0xA9, 0x23, 0x95),
        (0xCB, 0x47, 0x78),
        (0xE6, 0x6C, 0x5C),
        (0xF8, 0x94, 0x41),
        (0xFD, 0xC3, 0x28),
        (0xF0, 0xF9, 0x21),
    ]
)
"""Matplotlib's `plasma` (Smith and van der Walt, 2015, CC0) at nine places; between them within 6 levels of it.

It is perceptually uniform, readable with each kind of colour blindness, and holds no gray that a film could hold.
"""


def scale_film(gray: Gray) -> Gray:
    """Scale a film to be shown: uint8 [h, w], the longest side at most `LONGEST`, never enlarged."""
    shrink = min(1.0, LONGEST / max(gray.shape))
    return resize(gray, max(1, round(gray.shape[0] * shrink)), max(1, round(gray.shape[1] * shrink)))


def project_on_film(
    values: Float32, preparation: Preparation, original: tuple[int, int], film: tuple[int, int]
) -> Float32:
    """Lay what a model says about its input on the film that the input was made from, bilinearly.

    Args:
        values: float32 [h, w]: equal cells of the input.
        preparation: How the film became the input.
        original: Height and width of the film as it was sent.
        film: Height and width of the result, the same film at any scale.

    Returns:
        float32 of shape `film`; NaN where the model did not look, which `crop` leaves out.
    """
    down, across = _spans(preparation, *original)
    rows, columns = _interpolation(values.shape[0], film[0], down), _interpolation(values.shape[1], film[1], across)
    return (rows @ values.astype(np.float64) @ columns.T).astype(np.float32)


@dataclass(frozen=True)
class _Span:
    """Where the input lies on a side of the film, in parts of that side: padding begins before it and is longer."""

    begin: float
    length: float


def _spans(preparation: Preparation, height: int, width: int) -> tuple[_Span, _Span]:
    """Where the input lies on a film, down and across; the arithmetic is that of `images.preparation.fit`."""
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
    """Weights [pixels, cells] of a bilinear interpolation from cells over a span of a line of pixels; NaN beyond it."""
    place = ((np.arange(pixels) + 0.5) / pixels - span.begin) / span.length
    nearest = np.clip(place * cells - 0.5, 0, cells - 1)
    weights: Float64 = np.clip(1 - np.abs(nearest[:, None] - np.arange(cells)), 0, None)
    weights[(place < 0) | (place > 1)] = np.nan
    return weights


def encode_film(film: Gray) -> bytes:
    """Encode a film as a gray PNG."""
    return encode_png(film)


def encode_heat(heat: Float32) -> bytes:
    """Encode a heat map as a PNG to lay on the film: transparent without evidence, opaque where it is strongest.

    Args:
        heat: float32 [h, w]: from 0, no colour, to 1, the strongest; what is less counts as 0, what is more as 1, and
            NaN, where the model did not look, as 0.
    """
    buffer = io.BytesIO()
    image, alphas = _coloured(heat, 1.0)
    image.save(buffer, format="PNG", transparency=alphas, compress_level=2)
    return buffer.getvalue()


def encode_overlay(film: Gray, heat: Float32, opacity: float = OPACITY) -> bytes:
    """Encode a film with its heat map on it as an RGB PNG.

    Args:
        film: uint8 [h, w].
        heat: As for `encode_heat`.
        opacity: How much of the film the strongest evidence hides, in [0, 1].
    """
    image, alphas = _coloured(heat, opacity)
    image.info["transparency"] = alphas
    below = Image.fromarray(film).convert("RGBA")
    buffer = io.BytesIO()
    Image.alpha_composite(below, image.convert("RGBA")).convert("RGB").save(buffer, format="PNG", compress_level=2)
    return buffer.getvalue()


def _coloured(heat: Float32, opacity: float) -> tuple[Image.Image, bytes]:
    """A heat map in 256 colours, and the opacity of each: 0 for none, growing as evenly as the evidence."""
    image = Image.fromarray(np.rint(np.clip(np.nan_to_num(heat), 0, 1) * 255).astype(np.uint8))
    steps = np.linspace(0, 1, 256)
    places = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(steps, places, channel) for channel in _COLOURS.T], axis=1)
    image.putpalette(np.rint(colours).astype(np.uint8).tobytes())
    return image, np.rint(steps * opacity * 255).astype(np.uint8).tobytes()
