"""Image files to gray pixels: DICOM is decoded by `images.dicom`, all other formats by Pillow.

`images.preparation` explains the whole path of a pixel; this is its first half.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImagePalette, UnidentifiedImageError
from PIL.Image import Transpose
from PIL.JpegImagePlugin import JpegImageFile

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.errors import ImageError, first_line
from pneumo.serving.contracts.setting_types import MAX_PIXELS
from pneumo.serving.images import png, tiff
from pneumo.serving.images.dicom_header import is_dicom
from pneumo.serving.images.grayscale import Bands, merge, split
from pneumo.serving.images.jpeg import name_unsupported
from pneumo.serving.images.library_warnings import silence_libraries
from pneumo.serving.images.preparation import Preparation, Storage, fit, fit_image, inner_size, to_input
from pneumo.serving.images.samples import scale_samples
from pneumo.serving.images.size_limits import find_excess
from pneumo.serving.images.types import Decode, Fit, Picture, Size

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""Formats that Pillow may decode."""

_SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|II[*+]\0|MM\0[*+]|RIFF....WEBP", re.DOTALL)
"""First bytes of image files, to tell a damaged image from another file; those of BMP are too short to count."""

_WEBP_COST = 3
"""A pixel of a WebP takes 15 bytes while it is decoded, one of other formats 5: two kilobytes can be 40 megapixels."""

_SWAPPING = (Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90)
"""Transpositions that swap width and height."""

_TURNS = dict(
    enumerate((Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM, *_SWAPPING), start=2)
)
"""Transposition that turns an image upright, by EXIF orientation."""


def read_gray(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode all pixels of an image file to 8-bit gray, upright (see `images.grayscale`, `images.dicom`).

    Args:
        data: A whole image file.
        max_pixels: Largest width times height to decode, for a WebP a third of it; checked in the header, before
            pixels take memory.

    Raises:
        ImageError: Not an image of a known format, damaged, of several frames, or too large.
    """
    if is_dicom(data):
        from pneumo.serving.images.dicom import read_dicom  # pydicom takes a third of a second to import

        return read_dicom(data, max_pixels=max_pixels)
    return _read(data, max_pixels, _decode_fully)


def read_stored(data: bytes, storage: Storage, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode an image file as a data set stores it: gray uint8 [size, size].

    Args:
        data: A whole image file.
        storage: The square, and how the file becomes it.
        max_pixels: As for `read_gray`.

    Raises:
        ImageError: As for `read_gray`, or the decoding rules of the storage read another image in the file.
    """
    if storage.decode is Decode.SCALED and data.startswith(b"\xff\xd8"):
        picture = _read(data, max_pixels, partial(_decode_scaled, size=storage.size, how=storage.fit))
    else:
        picture = read_gray(data, max_pixels=max_pixels)
        picture = replace(picture, gray=fit(picture.gray, storage.size, storage.fit))
    check_rules(picture, storage)
    return picture


def check_rules(picture: Picture, storage: Storage) -> None:
    """Refuse an image that the decoding rules of a data set or model would have read as another one.

    Raises:
        ImageError: It is such an image.
    """
    if picture.rules > storage.rules:
        raise ImageError(
            "unreadable",
            f"decoding rules {storage.rules}, under which the data were imported, read such a file wrongly; save it as "
            "an 8-bit PNG, or import the data again and train a new model",
        )


def prepare(data: bytes, preparation: Preparation, *, max_pixels: int = MAX_PIXELS) -> Float32:
    """Turn the bytes of an image file into a model's input, float32 [C, H, W] in [0, 1], or raise an `ImageError`."""
    return to_input(read_stored(data, preparation, max_pixels=max_pixels).gray, preparation)


def _read(data: bytes, max_pixels: int, decode: Callable[[ImageFile.ImageFile, bytes], Picture]) -> Picture:
    """Open an image, check its header, and decode it; every error becomes an `ImageError`."""
    if not data:
        raise ImageError("unreadable", "the file is empty")
    silence_libraries()
    if excess := find_excess(data):
        raise ImageError("too-large", f"costs more than its pixels: {excess}")
    page = tiff.read_page(data) if data.startswith(tiff.SIGNATURES) else None
    if page is not None:
        page.check_kind()
    is_deep = page is not None and page.is_deep()
    content = data if page is None else page.put_first(as_gray=is_deep)
    with _open(content, max_pixels) as image, _named_errors(data, f"{image.format} data"):
        cost = _WEBP_COST if image.format == "WEBP" else 1
        _check_size(image.size, max_pixels // cost)
        # Not `n_frames`: for a TIFF it reads every directory in the file, in quadratic time.
        if image.format != "TIFF" and getattr(image, "is_animated", False):
            raise ImageError("unreadable", "several frames; send one image per file")
        if page is None:
            return decode(image, content)
        if page.small_palette:
            image.palette = ImagePalette.raw("RGB;L", page.small_palette)
        if is_deep:
            mode = image.mode.removesuffix("B")
            picture = _render(scale_samples(page.read_samples(image)), "TIFF", mode, None)
            return replace(picture, remarks=(*page.remarks, *picture.remarks))
        picture = decode(image, content)
        return replace(picture, remarks=(*page.remarks, *picture.remarks), rules=2 if page.small_palette else 1)


def _open(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Open an image with Pillow; a JPEG as nothing else, since phones embed further pictures behind the first (MPO)."""
    with _named_errors(data, "header"):
        try:
            if data.startswith(b"\xff\xd8\xff"):
                return JpegImageFile(io.BytesIO(data))
            return Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError:
            raise ImageError("too-large", f"more than {max_pixels:,} pixels") from None
        except UnidentifiedImageError:
            if _SIGNATURE.match(data):
                raise ImageError("unreadable", "damaged or truncated header") from None
            raise ImageError("not-an-image", f"not an image of a known format ({', '.join(FORMATS)}, DICOM)") from None


@contextmanager
def _named_errors(data: bytes, part: str) -> Iterator[None]:
    """Turn the many kinds of errors that Pillow raises into an `ImageError` that tells unsupported from damaged."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        text = first_line(error, 120)
        kind = name_unsupported(data) if data.startswith(b"\xff\xd8") else None
        if kind or re.search("unsupported|not supported|cannot handle", text, re.IGNORECASE):
            raise ImageError("unreadable", f"unsupported: {kind or text}; save it as PNG") from None
        raise ImageError("unreadable", f"damaged {part}: {text}") from None


def _check_size(size: Size, limit: int) -> None:
    if size[0] * size[1] > limit:
        raise ImageError("too-large", f"{size[0]} x {size[1]} is more than {limit:,} pixels")


def _decode_fully(image: ImageFile.ImageFile, data: bytes) -> Picture:
    file_format, mode = image.format or "", image.mode
    header = png.read_header(data) if file_format == "PNG" else None
    if header and header.depth == 16:
        bands = scale_samples(png.read_samples(image, header))
    else:
        image.load()
        straight = image.convert("LA") if image.mode == "La" else image
        bands = split(straight)._replace(remarks=header.remarks if header else ())
    return _render(bands, file_format, mode, _find_turn(image))


def _render(bands: Bands, file_format: str, mode: str, turn: Transpose | None) -> Picture:
    gray, remarks = merge(bands)
    if turn is not None:
        gray = np.asarray(Image.fromarray(gray).transpose(turn))
    height, width = gray.shape
    return Picture(gray, file_format, mode, width, height, remarks, bands.rules)


def _decode_scaled(image: ImageFile.ImageFile, data: bytes, size: int, how: Fit) -> Picture:
    """Decode a JPEG at the smallest scale that still covers the square, and turn the square upright."""
    mode, (width, height) = image.mode, image.size
    if mode not in ("L", "RGB"):
        picture = _decode_fully(image, data)
        return replace(picture, gray=fit(picture.gray, size, how))
    inner_width, inner_height = inner_size(size, width, height) if how is Fit.PAD else (size, size)
    drafted = image.draft("L", (max(1, inner_width), max(1, inner_height)))
    # If the scale does not divide the image, the last column and row cover less of it: `box` is what the pixels cover.
    # Without it pixels differ from those of a full decode by 1.1 gray levels in the mean, with it by 0.3.
    box = drafted[1] if drafted else (0, 0, width, height)
    turn = _find_turn(image)
    gray = np.asarray(fit_image(image, size, how, box[2:], turn), dtype=np.uint8)
    if turn in _SWAPPING:
        width, height = height, width
    return Picture(gray, "JPEG", mode, width, height)


def _find_turn(image: Image.Image) -> Transpose | None:
    """Return the transposition that turns an image upright, by its EXIF orientation; None if it is upright."""
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
