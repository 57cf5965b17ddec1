"""Simulated changes of a radiograph at another hospital: exposure, detector, geometry, software.

Every function takes and returns uint8 [H, W] of the same shape. Lengths are shares of the image's width or height, or
pixels of an image of 224 pixels that scale with the size, so that a strength is the same at any size.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.images.types import Gray

REFERENCE_SIDE = 224
"""Side of the image that lengths in pixels refer to."""

_ABSORPTION = 3.0
"""Natural logarithm of the ratio of radiation at the detector between black and white: about 20 to 1."""

_LEVELS = np.arange(256, dtype=np.float64) / 255

Random = np.random.Generator
Change = Callable[[Gray, Random, float], Gray]
"""Changes an image by a strength."""


@dataclass(frozen=True)
class Shift:
    """One kind of change, such as `blur`, at one strength with its unit, such as `sigma 2 px`."""

    name: str
    strength: str
    change: Callable[[Gray, Random], Gray]

    @classmethod
    def of(cls, name: str, unit: str, function: Change, strength: float) -> "Shift":
        """Return a kind of change at one strength, whose words are `unit` with the number in it."""
        return cls(name, unit.format(strength), lambda gray, random: function(gray, random, strength))

    @property
    def title(self) -> str:
        """Kind and strength, such as `blur, sigma 2 px`."""
        return f"{self.name}, {self.strength}"

    def apply(self, gray: Gray, key: str) -> Gray:
        """Change an image, uint8 [H, W]; random parts depend on the shift and the key alone."""
        return self.change(gray, np.random.default_rng(zlib.crc32(f"{self.title}\n{key}".encode())))


def list_shifts() -> tuple[Shift, ...]:
    """Return the fixed set of changes of a stress test, each kind at two strengths."""
    return tuple(Shift.of(name, unit, function, each) for name, unit, function, many in _CHANGES for each in many)


def gamma(gray: Gray, exponent: float) -> Gray:
    """Raise brightness in [0, 1] to a power; above 1 darkens."""
    return _look_up(gray, _LEVELS**exponent)


def contrast(gray: Gray, factor: float) -> Gray:
    """Multiply the distance of each pixel from the image's mean."""
    mean = float(gray.mean()) / 255
    return _look_up(gray, mean + (_LEVELS - mean) * factor)


def brightness(gray: Gray, levels: float) -> Gray:
    """Add gray levels of 255, clipped to the range."""
    return _look_up(gray, _LEVELS + levels / 255)


def tone(gray: Gray, slope: float) -> Gray:
    """Bend the tone curve around mid-gray: slope x^s / (x^s + (1 - x)^s), an S above 1, its inverse below."""
    up, down = _LEVELS**slope, (1 - _LEVELS) ** slope
    return _look_up(gray, up / (up + down))


def blur(gray: Gray, sigma: float) -> Gray:
    """Blur with a Gaussian; sigma in pixels of an image of 224 pixels."""
    radius = sigma * max(gray.shape) / REFERENCE_SIDE
    return np.asarray(Image.fromarray(gray).filter(ImageFilter.GaussianBlur(radius)), dtype=np.uint8)


def coarsen(gray: Gray, factor: float) -> Gray:
    """Reduce to 1/factor of the image's side and enlarge again, both bilinear."""
    height, width = gray.shape
    small = Image.fromarray(gray).resize((max(1, round(width / factor)), max(1, round(height / factor))), _BILINEAR)
    return np.asarray(small.resize((width, height), _BILINEAR), dtype=np.uint8)


def sharpen(gray: Gray, amount: float) -> Gray:
    """Add `amount` times the difference from a blur of 2 pixels (of 224): unsharp masking, as consoles do."""
    soft = blur(gray, 2.0).astype(np.float64)
    return _to_gray((gray + amount * (gray - soft)) / 255)


def quantum_noise(gray: Gray, random: Random, photons: float) -> Gray:
    """Draw the radiation of an image again as Poisson counts: least radiation gives most noise.

    The gray level is taken as the negative logarithm of the radiation. A black pixel of an image of 224 pixels gets a
    mean count of `photons`, a white one about a twentieth.
    """
    area = (REFERENCE_SIDE**2) / gray.size  # a pixel of a smaller image gathers more
    mean = photons * area * np.exp(-_ABSORPTION * _LEVELS)[gray]
    counts = np.maximum(random.poisson(mean), 1)
    return _to_gray(-np.log(counts / (photons * area)) / _ABSORPTION)


def heel_effect(gray: Gray, random: Random, share: float) -> Gray:
    """Darken one edge of the image and brighten the opposite one by a share, as the anode's shadow does."""
    height, width = gray.shape
    angle = random.uniform(0, 2 * np.pi)
    across, down = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    reach = abs(np.cos(angle)) + abs(np.sin(angle))
    field = (across * np.cos(angle) + down * np.sin(angle)) / reach
    return _to_gray(gray / 255 * (1 + share * field))


def rotate(gray: Gray, random: Random, degrees: float) -> Gray:
    """Rotate by an angle to a random side; corners become black."""
    return warp(gray, degrees=degrees * random.choice((-1, 1)))


def translate(gray: Gray, random: Random, share: float) -> Gray:
    """Move by a share of the side in a random direction; uncovered parts become black."""
    angle = random.uniform(0, 2 * np.pi)
    return warp(gray, move=(share * float(np.cos(angle)), share * float(np.sin(angle))))


def warp(
    gray: Gray, *, scale: tuple[float, float] = (1.0, 1.0), degrees: float = 0.0, move: tuple[float, float] = (0.0, 0.0)
) -> Gray:
    """Scale (across, down), rotate and move (shares of width and height) about the centre; outside is black."""
    height, width = gray.shape
    angle = np.deg2rad(degrees)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    # Pillow takes the inverse: the source of each pixel of the result.
    a, b, d, e = cosine / scale[0], sine / scale[0], -sine / scale[1], cosine / scale[1]
    x, y = width / 2 + move[0] * width, height / 2 + move[1] * height
    matrix = (a, b, width / 2 - a * x - b * y, d, e, height / 2 - d * x - e * y)
    moved = Image.fromarray(gray).transform((width, height), Image.Transform.AFFINE, matrix, _BILINEAR)
    return np.asarray(moved, dtype=np.uint8)


def equalise(gray: Gray, share: float) -> Gray:
    """Move each gray level a share of the way to its level if all were equally frequent."""
    counts = np.cumsum(np.bincount(gray.ravel(), minlength=256)).astype(np.float64)
    lowest = counts[gray.min()]
    if lowest == counts[-1]:  # one level only
        return gray
    equal = np.clip((counts - lowest) / (counts[-1] - lowest), 0, 1)
    return _look_up(gray, (1 - share) * _LEVELS + share * equal)


def recompress(gray: Gray, quality: float) -> Gray:
    """Compress as JPEG with a quality of 1 to 95."""
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, "JPEG", quality=int(quality))
    with Image.open(buffer) as image:
        return np.asarray(image, dtype=np.uint8)


_BILINEAR = Image.Resampling.BILINEAR


def _look_up(gray: Gray, table: Float64) -> Gray:
    return _to_gray(table)[gray]


def _to_gray(values: Float64) -> Gray:
    levels: Gray = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    return levels


_CHANGES: tuple[tuple[str, str, Change, tuple[float, float]], ...] = (
    ("gamma, darker", "exponent {:g}", lambda g, _, s: gamma(g, s), (1.5, 2.2)),
    ("gamma, lighter", "exponent {:g}", lambda g, _, s: gamma(g, s), (0.67, 0.45)),
    ("contrast down", "factor {:g}", lambda g, _, s: contrast(g, s), (0.7, 0.45)),
    ("brightness up", "{:+g} levels", lambda g, _, s: brightness(g, s), (30, 60)),
    ("brightness down", "{:+g} levels", lambda g, _, s: brightness(g, s), (-30, -60)),
    ("tone curve, S", "slope {:g}", lambda g, _, s: tone(g, s), (1.6, 2.5)),
    ("tone curve, inverse S", "slope {:g}", lambda g, _, s: tone(g, s), (0.65, 0.4)),
    ("blur", "sigma {:g} px", lambda g, _, s: blur(g, s), (1.0, 2.0)),
    ("low resolution", "1/{:g}", lambda g, _, s: coarsen(g, s), (2, 4)),
    ("sharpening", "amount {:g}", lambda g, _, s: sharpen(g, s), (1.0, 3.0)),
    ("quantum noise", "{:g} photons", quantum_noise, (2000, 400)),
    ("heel effect", "{:.0%}", heel_effect, (0.2, 0.4)),
    ("zoom in", "factor {:g}", lambda g, _, s: warp(g, scale=(s, s)), (1.1, 1.25)),
    ("zoom out", "factor {:g}", lambda g, _, s: warp(g, scale=(s, s)), (0.9, 0.75)),
    ("wider", "factor {:g}", lambda g, _, s: warp(g, scale=(s, 1.0)), (1.15, 1.3)),
    ("taller", "factor {:g}", lambda g, _, s: warp(g, scale=(1.0, s)), (1.15, 1.3)),
    ("rotation", "{:g} degrees", rotate, (5, 12)),
    ("translation", "{:.0%}", translate, (0.05, 0.12)),
    ("histogram equalisation", "{:.0%}", lambda g, _, s: equalise(g, s), (0.5, 1.0)),
    ("JPEG", "quality {:g}", lambda g, _, s: recompress(g, s), (30, 10)),
)
"""Name, unit, function and strengths of each kind of change."""
