"""Gray pixels to the square that a data set stores, and to the input of a model.

One path for import, training, the export check and a request, so that all of them see the same pixels::

    bytes --decode.read_stored--> stored gray uint8 [S, S] --to_input--> float32 [C, H, W] in [0, 1]

`read_stored` decodes a file (DICOM by `images.dicom`, all else by Pillow), and fits it to the square with `fit`. An
image of the stored size is not changed, so a prepared PNG and its original give the same input.
"""

import io
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.images.types import DECODING_RULES, Decode, Fit, Gray, Size


class Storage(FrozenModel):
    """How an image file becomes the gray square that a data set stores.

    Attributes:
        size: Side of the square, in pixels.
        fit: How a rectangle becomes the square.
        decode: How JPEGs are decoded; `full` in data sets and bundles that do not say.
        rules: Version of the decoding rules (`types.DECODING_RULES`); 1 in data sets and bundles that do not say.
    """

    size: int = Field(ge=8, le=4096)
    fit: Fit = Fit.SQUASH
    decode: Decode = Decode.FULL
    rules: int = Field(default=1, ge=1)

    def settings(self) -> dict[str, Any]:
        """Return the values of these fields alone, for a model that has them among others."""
        return {name: getattr(self, name) for name in Storage.model_fields}

    @field_validator("rules")
    @classmethod
    def _check_rules(cls, rules: int) -> int:
        if rules > DECODING_RULES:
            raise ValueError(f"made under decoding rules {rules}, this pneumo knows {DECODING_RULES}; upgrade pneumo")
        return rules


class Preparation(Storage):
    """Preparation of a model's input: the storage of its data set, and the shape of the network's input.

    Attributes:
        height: Height of the model's input, in pixels; the stored image is resized to it.
        width: Width of the model's input, in pixels.
        channels: 1, or 3 for the gray image three times.
    """

    height: int = Field(ge=8, le=4096)
    width: int = Field(ge=8, le=4096)
    channels: Literal[1, 3] = 1


def fit(gray: Gray, size: int, how: Fit) -> Gray:
    """Fit a gray image, uint8 [h, w], to uint8 [size, size]; an image of this size is returned unchanged."""
    if gray.shape == (size, size):
        return gray
    height, width = gray.shape
    return np.asarray(fit_image(Image.fromarray(gray), size, how, (width, height)), dtype=np.uint8)


def resize(gray: Gray, height: int, width: int) -> Gray:
    """Resize uint8 [h, w] to uint8 [height, width], bilinear with antialias."""
    if gray.shape == (height, width):
        return gray
    return np.asarray(Image.fromarray(gray).resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)


def to_input(stored: Gray, preparation: Preparation) -> Float32:
    """Turn a stored image, uint8 [size, size], into a model's input, float32 [channels, height, width] in [0, 1]."""
    prepared = np.empty((preparation.channels, preparation.height, preparation.width), dtype=np.float32)
    return np.divide(resize(stored, preparation.height, preparation.width), np.float32(255), out=prepared)


def encode_png(gray: Gray) -> bytes:
    """Encode uint8 [h, w] as an 8-bit gray PNG."""
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, format="PNG", compress_level=2)
    return buffer.getvalue()


def fit_image(
    image: Image.Image, size: int, how: Fit, part: tuple[float, float], turn: Image.Transpose | None = None
) -> Image.Image:
    """Fit the top left part of a gray image to a square, and turn it upright.

    Args:
        image: Gray, at least as large as the part.
        size: Side of the square in pixels.
        how: As for `fit`.
        part: Width and height of the part; it may end within a pixel.
        turn: Transposition that turns the image upright, or None.
    """
    width, height = part
    square = inner = (size, size)
    left = top = 0.0
    if how is Fit.CROP:
        side = min(part)
        left, top = (width - side) / 2, (height - side) / 2
    elif how is Fit.PAD:
        inner = inner_size(size, width, height)
        if min(inner) == 0:
            return Image.new("L", square)
    box = (left, top, width - left, height - top)
    if image.size != inner or box != (0, 0, *inner):
        image = image.resize(inner, Image.Resampling.BILINEAR, box=box)
    if turn is not None:
        image = image.transpose(turn)
    if image.size == square:
        return image
    canvas = Image.new("L", square)
    canvas.paste(image, (round((size - image.width) / 2), round((size - image.height) / 2)))
    return canvas


def inner_size(size: int, width: float, height: float) -> Size:
    """Return width and height of a padded image inside its square; 0 for a side of less than half a pixel."""
    longest = max(width, height)
    return round(width / longest * size), round(height / longest * size)
