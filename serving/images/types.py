"""Types shared by all steps from an image file to a model's input."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]
Size = tuple[int, int]
"""Width and height in pixels."""

DECODING_RULES = 2
"""Version of the rules that turn a file into gray pixels; it grows when they give other pixels for any kind of file.

Version 2 (December 2026): the declared depth of deep images, white-is-zero and palette TIFFs, alpha, DICOM's padding,
big-endian bytes and narrow windows.
"""


class Fit(StrEnum):
    """How a rectangle becomes a square: `squash` ignores the aspect, `pad` adds black, `crop` keeps the centre."""

    SQUASH = "squash"
    PAD = "pad"
    CROP = "crop"


class Decode(StrEnum):
    """How a JPEG is decoded.

    `full` decodes every pixel in colour. `scaled` decodes luma alone, at a half, a quarter or an eighth if that still
    covers the stored size: a few times faster, with pixels that differ by a third of a gray level in the mean
    (benchmarks/decode.py). Files of other formats are the same in both.
    """

    FULL = "full"
    SCALED = "scaled"


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        gray: Pixels, uint8 [h, w], upright: all of them, or the square of `read_stored`.
        format: Container format as Pillow names it, such as `JPEG`, or `DICOM`.
        mode: Pillow's mode of the file, such as `L`, `RGB`, `I;16`, `P`, `CMYK`; DICOM's photometric interpretation.
        width: Width of the original in pixels, after orientation.
        height: Height of the original in pixels, after orientation.
        remarks: Remarks about the file, in words that quote nothing of it.
        rules: First version of the decoding rules that gave these pixels; 1 if all versions agree on this file.
        age: Age of the patient in years, if a DICOM header gives it; it is for a remark and is stored nowhere.
        device: DICOM's values of `contracts.sites.DEVICE`, stored only if a setting says so; empty for other formats.
    """

    gray: Gray
    format: str
    mode: str
    width: int
    height: int
    remarks: tuple[str, ...] = ()
    rules: int = 1
    age: float | None = None
    device: tuple[str, ...] = ()
