"""DICOM's stored pixel values to gray: the grayscale pipeline of PS3.3 C.11 as one lookup table of all codes.

A radiograph has at most 2**16 different codes, so each step runs over these and never over millions of pixels.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64, Mask
from pneumo.serving.images.types import Gray

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_BAND = 2**20
"""Pixels that are converted at once: an index of NumPy takes 8 bytes each."""
_TAILS = (0.005, 0.995)
"""Percentiles of the pixels between which gray is spread if a file has no window."""


def render_gray(codes: NDArray[np.integer], header: "Dataset") -> Gray:
    """Turn stored codes into gray as a viewer would show it, uint8 of the same shape; padding is black.

    The modality LUT or rescale comes first, then the VOI LUT, else the first window, else the span between two
    percentiles; MONOCHROME1 is inverted.

    Args:
        codes: 8- or 16-bit whole numbers [h, w]; bits above the stored ones are ignored.
        header: The file's attributes.

    Raises:
        ValueError: Impossible attributes.
    """
    unsigned: NDArray[np.unsignedinteger] = codes.astype(codes.dtype.newbyteorder("="), copy=False).view(
        f"u{codes.itemsize}"
    )
    stored = _list_stored_values(unsigned.itemsize * 8, header)
    padding = _find_padding(stored, header)
    with np.errstate(all="ignore"):  # an overflow is refused below
        values = _apply_modality(stored, header)
        shown = _apply_window(values, header)
        if shown is None:
            shown = _spread(values, np.where(padding, 0, _count_codes(unsigned)))
    if not np.isfinite(values + shown).all():
        raise ValueError("a rescale or window beyond all numbers")
    gray = np.rint(255 * np.clip(shown, 0, 1))
    if header.PhotometricInterpretation == "MONOCHROME1":
        gray = 255 - gray
    table = np.where(padding, 0, gray).astype(np.uint8)
    result = np.empty(unsigned.shape, dtype=np.uint8)
    for rows in _bands(unsigned):
        table.take(unsigned[rows], out=result[rows])
    return result


def _list_stored_values(bits: int, header: "Dataset") -> NDArray[np.int32]:
    """Return the stored value of each code of `bits` bits."""
    stored = int(header.BitsStored)
    values = np.arange(1 << bits, dtype=np.int32) & ((1 << stored) - 1)
    if _read_number(header, "PixelRepresentation", 0) == 1:  # signed
        values -= (values & (1 << (stored - 1))) << 1
    return values


def _find_padding(stored: NDArray[np.int32], header: "Dataset") -> Mask:
    first = _read_number(header, "PixelPaddingValue", np.nan)
    low, high = sorted((first, _read_number(header, "PixelPaddingRangeLimit", first)))
    return np.asarray((stored >= low) & (stored <= high))


def _apply_modality(stored: NDArray[np.int32], header: "Dataset") -> Float64:
    values = stored.astype(np.float64)
    if header.get("ModalityLUTSequence"):
        return _look_up(values, header.ModalityLUTSequence[0])[0]
    return values * _read_number(header, "RescaleSlope", 1.0) + _read_number(header, "RescaleIntercept", 0.0)


def _apply_window(values: Float64, header: "Dataset") -> Float64 | None:
    """Return brightness from 0 to 1 by the VOI LUT or the window; None if there is neither."""
    if header.get("VOILUTSequence"):
        looked_up, white = _look_up(values, header.VOILUTSequence[0])
        return looked_up / white
    centre, width = (_read_number(header, name, np.nan) for name in ("WindowCenter", "WindowWidth"))
    if not np.isfinite([centre, width]).all() or width <= 0:
        return None
    # PS3.3 C.11.2.1.2 and C.11.2.1.3
    function = header.get("VOILUTFunction")
    if function == "SIGMOID":
        sigmoid: Float64 = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
        return sigmoid
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if width <= 1:
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _look_up(values: Float64, table: "Dataset") -> tuple[Float64, float]:
    """Look values up in a LUT of a sequence; return the results and the LUT's white."""
    entries, first, bits = (int(value) for value in table.LUTDescriptor)
    entries = entries or 2**16
    data = table.LUTData
    if isinstance(data, bytes):
        wide = "<u2" if table.original_encoding[1] else ">u2"
        data = np.frombuffer(data, dtype=wide if len(data) >= 2 * entries else np.uint8)
    lut = np.asarray(data, dtype=np.float64).ravel()[:entries]
    if not 1 <= bits <= 16 or not len(lut):
        raise ValueError("impossible lookup table")
    at = np.clip(np.rint(values) - first, 0, len(lut) - 1).astype(np.intp)
    return lut[at], 2.0**bits - 1


def _spread(values: Float64, counts: NDArray[np.int64]) -> Float64:
    """Return brightness from 0 to 1 between two percentiles of the pixels, of which `counts` have each value."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(counts[order])
    low, high = (float(values[order][np.searchsorted(reached, share * reached[-1])]) for share in _TAILS)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _count_codes(codes: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    counts = np.zeros(1 << (codes.itemsize * 8), dtype=np.int64)
    for rows in _bands(codes):
        counts += np.bincount(codes[rows].ravel(), minlength=len(counts))
    return counts


def _bands(codes: NDArray[np.unsignedinteger]) -> Iterator[slice]:
    rows = max(1, _BAND // codes.shape[1])
    return (slice(top, top + rows) for top in range(0, codes.shape[0], rows))


def _read_number(header: "Dataset", keyword: str, default: float) -> float:
    """Return an attribute's number, the first of several; the default if it is missing or empty."""
    value = header.get(keyword)
    if not isinstance(value, int | float | str | None):
        value = value[0] if len(value) else None
    return default if value is None or value == "" else float(value)
