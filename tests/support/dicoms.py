"""Make DICOM files."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CR = "1.2.840.10008.5.1.4.1.1.1"


def make_dicom(
    pixels: NDArray[Any],
    *,
    frame: bytes | None = None,
    syntax: str = ExplicitVRLittleEndian,
    implicit: bool = False,
    little: bool = True,
    **attributes: Any,
) -> bytes:
    """A radiograph of the pixels [h, w] or [h, w, 3]; `frame` is what they are compressed to.

    An attribute that is None is left out.
    """
    dataset = Dataset()
    meta: Any = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = CR
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["pneumo"])
    dataset.file_meta = meta
    bits = pixels.itemsize * 8
    given = {
        "SOPClassUID": CR,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "CR",
        "SamplesPerPixel": 1 if pixels.ndim == 2 else 3,
        "PhotometricInterpretation": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
        "PlanarConfiguration": None if pixels.ndim == 2 else 0,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": int(np.issubdtype(pixels.dtype, np.signedinteger)),
    }
    with disable_value_validation():
        for name, value in (given | attributes).items():
            if value is not None:
                setattr(dataset, name, value)
    if "HighBit" not in dataset and "BitsStored" in dataset:
        dataset.HighBit = dataset.BitsStored - 1
    raw = pixels.astype(pixels.dtype.newbyteorder("<" if little else ">")).tobytes()
    dataset.PixelData = encapsulate([frame]) if frame is not None else raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB" if frame is not None or bits == 8 else "OW"
    buffer = io.BytesIO()
    with disable_value_validation():
        dataset.save_as(buffer, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return buffer.getvalue()


def lookup_table(data: list[int], *, first: int = 0, bits: int = 16) -> Dataset:
    """An item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.LUTDescriptor = [len(data) % 2**16, first, bits]
    item["LUTDescriptor"].VR = "US"
    item.add_new(0x00283006, "OW", np.asarray(data, dtype="<u2").tobytes())
    return item
