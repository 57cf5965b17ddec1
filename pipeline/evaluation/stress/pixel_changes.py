"""Changes of a radiograph by another department, as arithmetic on its pixels: exposure, film, processing, patients.

Every function takes and returns uint8 [H, W] of the same shape. Lengths are shares of the image's width or height, or
pixels of an image of 224 pixels that scale with the size, so that a strength is the same at any size.
"""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pneumo.serving.contracts.arrays import Float32, Float64
from pneumo.serving.images.types import Gray

REFERENCE_SIDE = 224
"""Side of the image that lengths in pixels refer to."""
Random = np.random.Generator
_ABSORPTION = 3.0
"""Natural logarithm of the ratio of radiation at the detector between black and white: about 20 to 1."""

_LEVELS = np.arange(256, dtype=np.float64) / 255
_BILINEAR = Image.Resampling.BILINEAR
_SCALES = 5
_MARKERS = ("L", "R", "AP", "PA", "L PA", "AP SUPINE")
_HEART = (0.54, 0.6)
"""Place of the heart in a frontal film, as shares of width and height."""


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


def sharpen(gray: Gray, amount: float, sigma: float = 2.0) -> Gray:
    """Add `amount` times the difference from a blur (sigma in pixels of 224): unsharp masking, as consoles do."""
    soft = blur(gray, sigma).astype(np.float64)
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


def cut_film(gray: Gray, random: Random, share: float) -> Gray:
    """Cut a share of the height off, unevenly above and below, and stretch the rest: a wide film made square."""
    scale, above = 1 / (1 - share), random.uniform(0.2, 0.8)
    return warp(gray, scale=(1.0, scale), move=(0.0, scale * share * (0.5 - above)))


def collimate(gray: Gray, random: Random, share: float) -> Gray:
    """Blacken what lies outside an exposed field: edges up to a share of the side wide, tilted up to 3 degrees."""
    left, right, above, below = random.uniform(0.4, 1, 4) * share
    field = warp(
        np.full_like(gray, 255),
        scale=(1 - left - right, 1 - above - below),
        degrees=random.uniform(-3, 3),
        move=((left - right) / 2, (above - below) / 2),
    )
    return np.where(field > 127, gray, 0).astype(np.uint8)


def add_marker(gray: Gray, random: Random, share: float) -> Gray:
    """Draw a lead marker of a height in a random upper corner."""
    height, width = gray.shape
    font = ImageFont.load_default(size=max(6.0, share * height))
    text = _MARKERS[random.integers(len(_MARKERS))]
    x, anchor = ((0.06, "lt"), (0.94, "rt"))[random.integers(2)]
    picture, place = Image.fromarray(gray), (x * width, random.uniform(0.03, 0.15) * height)
    ImageDraw.Draw(picture).text(place, text, fill=int(random.integers(200, 256)), font=font, anchor=anchor)
    return np.asarray(picture, dtype=np.uint8)


def enhance(gray: Gray, power: float) -> Gray:
    """Raise faint contrast at all scales with a Laplacian pyramid, as multi-scale processing of consoles does.

    A difference d of at most M becomes M (|d| / M)^power with its sign (Vuylsteke and Schoeters, Multiscale image
    contrast amplification, 1994). A power of 1 changes nothing.
    """

    def amplify(image: Float32, level: int) -> Float32:
        height, width = image.shape
        if level == 0 or min(height, width) < 4:
            return image
        small = _resize(image, (width // 2, height // 2))
        band = image - _resize(small, (width, height))
        most = max(float(np.abs(band).max()), 1e-6)
        louder = np.sign(band) * most * (np.abs(band) / most) ** power
        return np.asarray(_resize(amplify(small, level - 1), (width, height)) + louder, dtype=np.float32)

    return _to_gray(amplify(gray.astype(np.float32), _SCALES).astype(np.float64) / 255)


def scatter(gray: Gray, share: float) -> Gray:
    """Add scattered radiation, a share of the direct one, as without a grid at the bedside: veil over dense parts."""
    direct = np.exp(-_ABSORPTION * _LEVELS)[gray]
    height, width = gray.shape
    spread = _resize(_resize(direct.astype(np.float32), (4, 4)), (width, height))
    veiled = (direct + share * spread) / (1 + share)
    return _to_gray(-np.log(np.clip(veiled, 1e-6, 1)) / _ABSORPTION)


def add_lines(gray: Gray, random: Random, levels: float) -> Gray:
    """Add a random offset to each row, as an uneven readout of a plate does; deviation in gray levels."""
    return _to_gray((gray + random.normal(0, levels, (len(gray), 1))) / 255)


def grow_chest(gray: Gray, share: float) -> Gray:
    """Make the heart narrower by a share and the thorax longer by a third of it, as in older children."""
    from scipy.ndimage import map_coordinates

    height, width = gray.shape
    y, x = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
    across, down = x - _HEART[0], (y - 0.5) / (1 + share / 3)
    weight = np.exp(-((across / 0.3) ** 2) - ((y - _HEART[1]) / 0.3) ** 2)
    source = (0.5 + down) * height - 0.5, (_HEART[0] + across * (1 + share / (1 - share) * weight)) * width - 0.5
    return _to_gray(map_coordinates(gray / 255, source, order=1, mode="nearest"))


def _look_up(gray: Gray, table: Float64) -> Gray:
    return _to_gray(table)[gray]


def _to_gray(values: Float64) -> Gray:
    levels: Gray = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    return levels


def _resize(image: Float32, size: tuple[int, int]) -> Float32:
    return np.asarray(Image.fromarray(image).resize(size, _BILINEAR), dtype=np.float32)
