"""An image of a request, decoded: what the network sees, and what it was made of."""

import time
from dataclasses import dataclass

from pneumo.serving.images.preparation import MAX_PIXELS, Picture, Preparation, read_stored, to_input
from pneumo.serving.model.predictor import Input


@dataclass(frozen=True)
class Decoded:
    """One image.

    Attributes:
        image: The network's input, float32 [C, H, W].
        picture: What it is made of: gray levels at the stored size, and what is known of the original.
        began: When decoding began, as `time.perf_counter()`.
        took_s: Seconds that it took.
    """

    image: Input
    picture: Picture
    began: float
    took_s: float


def decode(data: bytes, preparation: Preparation, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image file.

    Args:
        data: The file.
        preparation: How the model takes images.
        max_pixels: Largest width times height that is decoded.

    Raises:
        ImageError: The bytes cannot become an image.
    """
    began = time.perf_counter()
    picture = read_stored(
        data, size=preparation.size, how=preparation.fit, decode=preparation.decode, max_pixels=max_pixels
    )
    image = to_input(picture.gray, preparation)
    return Decoded(image, picture, began, time.perf_counter() - began)
