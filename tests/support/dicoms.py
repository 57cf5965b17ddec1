"""Make DICOM files."""

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
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
    words: bool = False,
    **attributes: Any,
) -> bytes:
    """A radiograph of the pixels [h, w] or [h, w, 3]; `frame` is what they are compressed to.

    Bytes are written as OB, or as OW with `words`. An attribute that is None is left out.
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
    raw += b"\0" * (len(raw) % 2)
    if words and not little:
        raw = np.frombuffer(raw, dtype="u2").byteswap().tobytes()
    dataset.PixelData = encapsulate([frame]) if frame is not None else raw
    dataset["PixelData"].VR = "OB" if frame is not None or (bits == 8 and not words) else "OW"
    buffer = io.BytesIO()
    with disable_value_validation():
        dataset.save_as(buffer, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return buffer.getvalue()


def lookup_table(data: list[int], *, first: int = 0, bits: int = 16, vr: str = "US") -> Dataset:
    """An item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.LUTDescriptor = [len(data) % 2**16, first, bits]
    item["LUTDescriptor"].VR = vr
    item.add_new(0x00283006, "OW", np.asarray(data, dtype="<u2").tobytes())
    return item


def without_start(data: bytes, start: str) -> bytes:
    """A file without its preamble, its transfer syntax, or all that stands before the data set."""
    if start == "preamble":
        return data[132:]
    if start == "syntax":
        at = data.index(b"\x02\0\x10\0UI")
        length = 8 + int.from_bytes(data[at + 6 : at + 8], "little")
        total = int.from_bytes(data[140:144], "little") - length
        return data[:140] + total.to_bytes(4, "little") + data[144:at] + data[at + length :]
    marks = (data.find(mark, 132) for mark in (b"\x08\0\x16\0", b"\0\x08\0\x16"))
    return data[min(mark for mark in marks if mark > 0) :]


def render_with_dcmtk(data: bytes, folder: Path, *options: str) -> NDArray[np.int64]:
    """Gray pixels [h, w] as dcmtk shows a file; skips the test where dcmtk is not installed."""
    command = shutil.which("dcmj2pnm")
    if command is None:
        pytest.skip("dcmtk is not installed (Debian: apt-get install dcmtk)")
    source, target = folder / "film.dcm", folder / "film.pgm"
    source.write_bytes(data)
    subprocess.run([command, "+op", *options, str(source), str(target)], check=True, capture_output=True)
    with Image.open(target) as image:
        return np.asarray(image).astype(np.int64)
