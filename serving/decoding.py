"""An image of a request, decoded: what the network sees, and what the prediction log keeps of it."""

import time
from dataclasses import dataclass

from serving.descriptors import Descriptors, describe
from serving.image import MAX_PIXELS, Preparation, read_stored, to_input
from serving.predictor import Input


@dataclass(frozen=True)
class Decoded:
    """One image.

    Attributes:
        image: The network's input, float32 [C, H, W].
        format: Container format of the file.
        descriptors: See `serving.descriptors`; None where nobody keeps them.
        began: When decoding began, as `time.perf_counter()`.
        took_s: Seconds that it took, without the descriptors.
    """

    image: Input
    format: str
    descriptors: Descriptors | None
    began: float
    took_s: float


def decode(data: bytes, preparation: Preparation, *, describing: bool, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image file.

    Args:
        data: The file.
        preparation: How the model takes images.
        describing: Whether descriptors are wanted.
        max_pixels: Largest width times height that is decoded.

    Raises:
        ImageError: The bytes cannot become an image.
    """
    began = time.perf_counter()
    picture = read_stored(
        data, size=preparation.size, how=preparation.fit, decode=preparation.decode, max_pixels=max_pixels
    )
    image = to_input(picture.gray, preparation)
    took_s = time.perf_counter() - began
    descriptors = describe(picture, picture.gray) if describing else None
    return Decoded(image, picture.format, descriptors, began, took_s)
