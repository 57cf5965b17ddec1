"""An image of a request: as sent, and decoded to what the network sees."""

import time
from dataclasses import dataclass

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.setting_types import MAX_PIXELS
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.preparation import Preparation, to_input
from pneumo.serving.images.types import Picture


@dataclass(frozen=True)
class Upload:
    """One image as sent.

    Attributes:
        filename: As the client named it, or its path in a zip, or None.
        data: The bytes.
    """

    filename: str | None
    data: bytes


@dataclass(frozen=True)
class DecodedImage:
    """One image, ready for the network.

    Attributes:
        image: The network's input, float32 [C, H, W].
        picture: What it is made of: gray levels at the stored size, and what is known of the original.
        began: When decoding began, as `time.perf_counter()`.
        took_s: Seconds that it took.
    """

    image: Float32
    picture: Picture
    began: float
    took_s: float


def decode_image(data: bytes, preparation: Preparation, *, max_pixels: int = MAX_PIXELS) -> DecodedImage:
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
    return DecodedImage(image, picture, began, time.perf_counter() - began)
