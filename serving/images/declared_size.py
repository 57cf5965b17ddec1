"""The size that an image file declares, read before a decoder takes time or memory for its pixels."""

import io
import math
import struct

from PIL import Image

from pneumo.serving.images import jpeg, tiff
from pneumo.serving.images.decode import FORMATS
from pneumo.serving.images.dicom_header import is_dicom
from pneumo.serving.images.library_warnings import silence_libraries
from pneumo.serving.images.size_limits import MAX_STEPS, find_excess


def is_quick(data: bytes) -> bool:
    """Return whether `count_pixels` takes microseconds: a short PNG or JPEG, which no library has to open."""
    return len(data) < 2**18 and data.startswith((b"\xff\xd8", b"\x89PNG")) and not is_dicom(data)


def count_pixels(data: bytes) -> int:
    """Return width times height as the header of an image file declares them; 0 if a decoder reads no size either."""
    return max(_count_dicom(data) if is_dicom(data) else 0, _count_picture(data))


def _count_dicom(data: bytes) -> int:
    from pneumo.serving.images.dicom import count_dicom_pixels  # pydicom takes a third of a second to import

    try:
        return count_dicom_pixels(data)
    except Exception:  # pydicom raises errors of many kinds on damage
        return 0


def _count_picture(data: bytes) -> int:
    try:
        if data.startswith(b"\xff\xd8"):
            return math.prod(jpeg.read_size(data, MAX_STEPS) or (0, 0))
        if data[12:16] == b"IHDR" and data.count(b"IHDR") == 1:  # of several Pillow would believe the last one
            width, height = struct.unpack_from(">II", data, 16)
            return int(width * height)
        if data.startswith(tiff.SIGNATURES):
            width, height = tiff.read_page(data).size
            return width * height
        if find_excess(data):
            return 0
        silence_libraries()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # so do Pillow's parsers
        return 0
