"""An uploaded image, as bytes and decoded to the network's input."""

import time
from dataclasses import dataclass
from functools import cached_property

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.setting_types import MAX_PIXELS
from pneumo.serving.images.declared_size import count_pixels
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.preparation import Preparation, to_input
from pneumo.serving.images.types import Picture

_PIXELS, _PIXELS_JPEG = 200_000, 1_000_000
"""Pixels that take as long to decode as a small network takes for an image (measured: 18 ms per megapixel of a PNG,
28 of a WebP, 2 of a JPEG, and 3 ms)."""


@dataclass(frozen=True)
class Upload:
    """One uploaded image.

    Attributes:
        filename: The client's name for it, its path in a zip, or None.
        data: The bytes.
    """

    filename: str | None
    data: bytes

    @cached_property
    def pixels(self) -> int:
        """Width times height as the file's header declares them; 0 if it cannot be read."""
        return count_pixels(self.data)

    @cached_property
    def work(self) -> float:
        """Time that the service takes, in small images; a JPEG is decoded at a fraction of its size."""
        return 1 + self.pixels / (_PIXELS_JPEG if self.data.startswith(b"\xff\xd8") else _PIXELS)


@dataclass(frozen=True)
class DecodedImage:
    """One image, ready for the network.

    Attributes:
        image: The network's input, float32 [C, H, W].
        picture: Gray levels at the stored size, and properties of the original.
        began: Start of decoding, as `time.perf_counter()`.
        took_s: Seconds of decoding.
    """

    image: Float32
    picture: Picture
    began: float
    took_s: float


def decode_image(data: bytes, preparation: Preparation, *, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode an image file of at most `max_pixels` (width times height); raise an `ImageError` if that fails."""
    began = time.perf_counter()
    picture = read_stored(data, preparation, max_pixels=max_pixels)
    image = to_input(picture.gray, preparation)
    return DecodedImage(image, picture, began, time.perf_counter() - began)
