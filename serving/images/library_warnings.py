"""Silence the libraries that read images: their warnings and logs quote the content of a file."""

import logging
import re
import warnings

_FILTER = ("ignore", None, Warning, re.compile(r"(PIL|pydicom|pneumo\.serving\.images)(\.|$)"), 0)


def silence_libraries() -> None:
    """Silence Pillow's and pydicom's warnings and logs in this process, at every call.

    Not `warnings.catch_warnings`: it changes the whole process and puts back what another thread still needs.
    """
    logging.getLogger("PIL").setLevel(logging.ERROR)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    if _FILTER not in warnings.filters:
        warnings.filterwarnings("ignore", module=_FILTER[3].pattern)
