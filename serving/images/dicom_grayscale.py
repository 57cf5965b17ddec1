"""DICOM's stored pixel values to gray: the grayscale pipeline of PS3.3 C.11 as one lookup table of all codes.

A radiograph has at most 2**16 different codes, so each step runs over these and never over millions of pixels.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64, Mask
from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.dicom_header import UNREMARKABLE, Notes, read_number, read_numbers
from pneumo.serving.images.types import Gray

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_BAND = 2**20
"""Pixels that are converted at once: an index of NumPy takes 8 bytes each."""
_TAILS = (0.005, 0.995)
"""Percentiles of the pixels between which gray is spread if a file has no window."""
_SAMPLE = 2**16
"""About how many pixels are looked at to learn what a window shows."""
_MOST = 0.9
"""Share of pixels; more of them black or white is more than the borders and the background of a film."""


def render_gray(codes: NDArray[np.integer], header: "Dataset", notes: Notes) -> Gray:
    """Turn stored codes into gray as a viewer would show it, uint8 of the same shape; padding is black.

    The modality LUT or rescale comes first, then the VOI LUT, else the window, else the span between two percentiles;
    then what the presentation LUT shape inverts, which without a shape is MONOCHROME1.

    Args:
        codes: 8- or 16-bit whole numbers [h, w]; bits above the stored ones are ignored.
        header: The file's attributes.
        notes: Gets remarks on what is odd.

    Raises:
        ImageError: Values that are not numbers.
    """
    if codes.dtype == np.int8 and header.BitsStored > 8:  # a compressed stream may hold fewer bits
        codes, notes[UNREMARKABLE] = codes.astype(np.int16), 2
    unsigned: NDArray[np.unsignedinteger] = codes.astype(codes.dtype.newbyteorder("="), copy=False).view(
        f"u{codes.itemsize}"
    )
    stored = _list_stored_values(unsigned.itemsize * 8, header)
    padding = _find_padding(unsigned, stored, header, notes)
    with np.errstate(all="ignore"):  # an overflow is refused below
        values = _apply_modality(stored, header, notes)
        shown = _apply_window(values, header, notes)
        if shown is None:
            notes["no usable window; gray is spread between two percentiles of the pixels"] = 1
            shown = _spread(values, np.where(padding, 0, _count_codes(unsigned)))
        elif _is_clipped(shown, unsigned, padding):
            notes["the window leaves more than 90% of the pixels black or white"] = 1
    if not np.isfinite(values + shown).all():
        raise ImageError("unreadable", "unsupported: a rescale or lookup table that gives no numbers")
    gray = np.rint(255 * np.clip(shown, 0, 1))
    if _is_inverse(header, notes):
        gray = 255 - gray
    table = np.where(padding, 0, gray).astype(np.uint8)
    result = np.empty(unsigned.shape, dtype=np.uint8)
    for rows in _bands(unsigned):
        table.take(unsigned[rows], out=result[rows])
    return result


def _list_stored_values(bits: int, header: "Dataset") -> NDArray[np.int32]:
    """Return the stored value of each code of `bits` bits."""
    stored = int(header.BitsStored)
    low = -(1 << (stored - 1)) if header.PixelRepresentation == 1 else 0  # signed
    return (np.arange(1 << bits, dtype=np.int32) - low) % (1 << stored) + low


def _find_padding(
    codes: NDArray[np.unsignedinteger], stored: NDArray[np.int32], header: "Dataset", notes: Notes
) -> Mask:
    """Return which codes are padding (PS3.3 C.7.5.1.1.2).

    A value that no pixel can have was written with the other of US and SS: it is compared modulo the stored bits.
    """
    first = read_number(header, "PixelPaddingValue", np.nan)
    ends = sorted((first, read_number(header, "PixelPaddingRangeLimit", first)))
    literal = np.asarray((stored >= ends[0]) & (stored <= ends[1]))
    if not np.isfinite(ends).all() or (stored.min() <= ends[0] and ends[1] <= stored.max()):
        return literal
    turn = 1 << int(header.BitsStored)
    low, span = int(ends[0]), int(ends[1] - ends[0]) % turn
    if span > turn // 2:  # the ends are in the other order in the sign of the pixels
        low, span = int(ends[1]), turn - span
    padding = np.asarray((stored - low) % turn <= span)
    if (padding != literal)[codes].any():
        notes[UNREMARKABLE] = 2
    return padding


def _apply_modality(stored: NDArray[np.int32], header: "Dataset", notes: Notes) -> Float64:
    values = stored.astype(np.float64)
    looked_up = _look_up(values, header, "ModalityLUTSequence", notes)
    if looked_up is not None:
        return looked_up[0]
    slope = read_number(header, "RescaleSlope", 1.0)
    if slope == 0:
        notes["RescaleSlope 0 is passed over"] = 2
        return values
    return values * slope + read_number(header, "RescaleIntercept", 0.0)


def _apply_window(values: Float64, header: "Dataset", notes: Notes) -> Float64 | None:
    """Return brightness from 0 to 1 by the VOI LUT or the window; None if there is neither."""
    looked_up = _look_up(values, header, "VOILUTSequence", notes)
    if looked_up is not None:
        return looked_up[0] / looked_up[1]
    centres, widths = read_numbers(header, "WindowCenter"), read_numbers(header, "WindowWidth")
    windows = list(zip(centres, widths, strict=False))
    usable = [window for window in windows if np.isfinite(window).all() and window[1] > 0]
    if not usable:
        return None
    if len(windows) > 1:
        notes["several windows; the first usable one is applied"] = 1 if usable[0] == windows[0] else 2
    centre, width = usable[0]
    # PS3.3 C.11.2.1.2 and C.11.2.1.3
    function = header.get("VOILUTFunction")
    if function == "SIGMOID":
        sigmoid: Float64 = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
        return sigmoid
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if function not in (None, "", "LINEAR"):
        notes["an unknown VOI LUT function; read as LINEAR"] = 1
    # LINEAR is for whole numbers: it takes half a value off each side, and a width of 1 is a threshold.
    if width < 1 or (width == 1 and (values % 1).any()):
        notes["a window too narrow for LINEAR; read as LINEAR_EXACT"] = 2
        return (values - centre) / width + 0.5
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _is_inverse(header: "Dataset", notes: Notes) -> bool:
    """Return whether the lowest values are white: by the presentation LUT shape (PS3.3 C.11.6), as dcmtk has it."""
    if header.get("PresentationLUTSequence"):
        notes["a presentation lookup table is not applied"] = 1
    inverse = header.PhotometricInterpretation == "MONOCHROME1"
    shape = header.get("PresentationLUTShape")
    if shape == ("IDENTITY" if inverse else "INVERSE"):
        notes["PresentationLUTShape contradicts the photometric interpretation; the shape decides"] = 2
        return not inverse
    return bool(inverse)


def _look_up(values: Float64, header: "Dataset", keyword: str, notes: Notes) -> tuple[Float64, float] | None:
    """Return values looked up in the first usable LUT of a sequence, and the LUT's white; None without a LUT."""
    tables = header.get(keyword) or ()
    if len(tables) > 1:
        notes["several lookup tables; the first usable one is applied"] = 1
    for table in tables:
        try:
            lut, first, white = _read_table(table)
        except (AttributeError, TypeError, ValueError, OverflowError):
            notes["a lookup table that cannot be used is passed over"] = 1
            continue
        # Written with the other of US and SS, a first value lies beyond all that is looked up.
        low, high = values.min() - len(lut), values.max()
        turn = next((turn for turn in (0, -(2**16), 2**16) if low < first + turn <= high), 0)
        if turn:
            notes[UNREMARKABLE] = 2
        at = np.clip(np.rint(values) - first - turn, 0, len(lut) - 1).astype(np.intp)
        return lut[at], white
    return None


def _read_table(table: "Dataset") -> tuple[Float64, int, float]:
    """Return the values of a LUT, the first input that they are for, and white; raise an error if it is impossible."""
    entries, first, bits = (int(value) for value in table.LUTDescriptor)
    entries = entries % 2**16 or 2**16
    data = table.LUTData
    if isinstance(data, bytes):
        wide = "<u2" if table.original_encoding[1] else ">u2"
        data = np.frombuffer(data, dtype=wide if len(data) >= 2 * entries else np.uint8)
    lut = np.asarray(data, dtype=np.float64).ravel()[:entries]
    if not 1 <= bits <= 16 or not len(lut) or not np.isfinite(lut).all():
        raise ValueError("impossible lookup table")
    return lut, first, 2.0**bits - 1


def _is_clipped(shown: Float64, codes: NDArray[np.unsignedinteger], padding: Mask) -> bool:
    """Return whether most pixels of a sample, padding aside, are black or white."""
    step = max(1, int((codes.size / _SAMPLE) ** 0.5))
    sample = codes[::step, ::step]
    levels = shown[sample[~padding[sample]]]
    return bool(((levels <= 0) | (levels >= 1)).sum() > _MOST * levels.size)


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
