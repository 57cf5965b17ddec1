"""DICOM radiographs to gray pixels.

`images.dicom_header` reads the attributes, `images.dicom_pixels` decodes what is stored, and `images.dicom_grayscale`
shows it as a viewer would.
"""

import re
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.contracts.install_hints import install_hint
from pneumo.serving.images.dicom_grayscale import render_gray
from pneumo.serving.images.dicom_header import check_header, read_age, read_device, read_header
from pneumo.serving.images.dicom_pixels import decode_pixels
from pneumo.serving.images.grayscale import to_gray
from pneumo.serving.images.library_warnings import silence_libraries
from pneumo.serving.images.types import Picture

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_RADIOGRAPHS = frozenset({"CR", "DX", "DR", "RG"})
_OTHERS = re.compile("BMD|CT|ES|FID|HC|IO|IVUS|MG|MR|NM|OCT|OP|OT|PT|PX|RF|RTDOSE|RTIMAGE|SC|SEG|SM|TG|US|XA|XC")
"""Other modalities that a message may quote; any other value could be personal data."""


def read_dicom(data: bytes, *, max_pixels: int) -> Picture:
    """Decode a DICOM radiograph to 8-bit gray as a viewer would show it (see `pneumo.serving.images.dicom_grayscale`).

    Args:
        data: A whole file, of which `is_dicom` is true.
        max_pixels: Largest rows times columns.

    Raises:
        ImageError: Not a single image of 8 or 16 bits, damaged, too large, or compressed in a way that no installed
            plugin reads.
    """
    try:
        import pydicom  # noqa: F401 - to learn whether it is installed
    except ImportError:
        raise ImageError("unreadable", f"the service needs pydicom to read DICOM; {install_hint('serve')}") from None
    silence_libraries()  # after the import, which sets the level of the log
    damage = "damaged DICOM header"
    try:
        header, place = read_header(data)
        if place >= len(data):
            kind = "an encapsulated document" if "MIMETypeOfEncapsulatedDocument" in header else "such as a report"
            raise ImageError("not-an-image", f"a DICOM file without an image, {kind}")
        rows, columns = check_header(header, max_pixels)
        notes = dict.fromkeys(_list_remarks(header), 1)
        damage = "damaged or truncated DICOM data"
        pixels = decode_pixels(data, place, header, (columns, rows), notes)
        if pixels.ndim == 3:
            gray = to_gray(Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)))
        else:
            gray = render_gray(pixels, header, notes)
        device = read_device(header)
        mode, age = str(header.PhotometricInterpretation), read_age(header)
    except ImageError:
        raise
    except Exception:  # pydicom's messages quote values
        raise ImageError("unreadable", damage) from None
    remarks, rules = tuple(remark for remark in notes if remark), max(notes.values(), default=1)
    return Picture(gray, "DICOM", mode, columns, rows, remarks, rules, age, device)


def count_dicom_pixels(data: bytes) -> int:
    """Return rows times columns as a DICOM file declares them; raise whatever pydicom does on damage."""
    header, _ = read_header(data)
    return int(header.Rows) * int(header.Columns)


def _list_remarks(header: "Dataset") -> list[str]:
    """Return remarks on the kind of image: not a radiograph, or not meant to be shown."""
    remarks = []
    modality = str(header.get("Modality") or "")
    if modality not in _RADIOGRAPHS:
        named = (
            f"modality {modality}" if _OTHERS.fullmatch(modality) else f"{'an unknown' if modality else 'no'} modality"
        )
        remarks.append(f"{named}; a radiograph has modality CR or DX")
    if header.get("PresentationIntentType") == "FOR PROCESSING":
        remarks.append("FOR PROCESSING: raw values of the detector; a viewer shows the image FOR PRESENTATION")
    return remarks
