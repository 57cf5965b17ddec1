"""Silence the libraries that read images: their warnings and logs quote the content of a file."""

import ctypes
import logging
import re
import warnings
from functools import cache

from PIL import _imaging

_LIBRARIES = ("PIL", "pydicom", "pylibjpeg", "openjpeg", "libjpeg")
_FILTER = ("ignore", None, Warning, re.compile(rf"({'|'.join(_LIBRARIES)}|pneumo\.serving\.images)(\.|$)"), 0)


def silence_libraries() -> None:
    """Silence the libraries' warnings and logs in this process, at every call, and libtiff's errors.

    Not `warnings.catch_warnings`: it changes the whole process and puts back what another thread still needs.
    """
    _load_libtiff()
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if _FILTER not in warnings.filters:
        warnings.filterwarnings("ignore", module=_FILTER[3].pattern)


def has_codec(compression: int) -> bool:
    """Return whether Pillow's libtiff knows a compression of TIFF; true if it cannot be asked."""
    library = _load_libtiff()
    return library is None or bool(library.TIFFIsCODECConfigured(compression))


@cache
def _load_libtiff() -> ctypes.CDLL | None:
    """Return Pillow's own libtiff, told to write no errors to file descriptor 2; None if Pillow hides its functions."""
    library = ctypes.CDLL(_imaging.__file__)
    try:
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
    except AttributeError:  # linked statically
        return None
    return library
