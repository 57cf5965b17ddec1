"""The site that an image came from: the name of an API key, a request header, or attributes of a DICOM file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pneumo.serving.contracts.errors import InputError

if TYPE_CHECKING:  # settings are read without a web framework
    from starlette.datastructures import Headers

MOST_SITES = 20
"""Most sites that checks, pages and metrics tell apart; further ones count together, as `OTHER_SITES`."""
OTHER_SITES, NO_SITE = "_OTHER", "_NONE"
"""Further sites, and images of no named site; a name never begins with `_`."""

DEVICE = ("Manufacturer", "ManufacturerModelName", "ViewPosition")
"""DICOM attributes that may make up a site."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/+()-]{0,99}")
_SOURCE = re.compile(rf"key|header:[A-Za-z0-9-]{{1,64}}|dicom:({'|'.join(DEVICE)})(,({'|'.join(DEVICE)}))*")
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})


@dataclass(frozen=True)
class SiteSource:
    """Where the site of an image is read from: `key`, `header` with its name, or `dicom` with attributes."""

    kind: str
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "SiteSource":
        """Parse `key`, `header:NAME` or `dicom:ATTRIBUTE,...`, or raise a `ValueError`."""
        kind, _, names = text.partition(":")
        if not _SOURCE.fullmatch(text):
            raise ValueError(f"must be key, header:NAME (such as X-Site), or dicom: and some of {','.join(DEVICE)}")
        if names.lower() in _SECRET_HEADERS:
            raise ValueError("this header holds a secret; name another one")
        return cls(kind, tuple(names.split(",")))

    def read_request(self, key_name: str | None, headers: "Headers") -> str | None:
        """Return the site that a request names, or None; raise an `InputError` if its header holds no valid one."""
        if self.kind != "header":
            return key_name if self.kind == "key" else None
        values = list(filter(None, headers.getlist(self.names[0])))
        if len(values) > 1 or not all(map(_NAME.fullmatch, values)):
            raise InputError(
                f"header {self.names[0]}: must be one name of a site: a letter or digit, then up to 99 "
                "letters, digits, spaces and ._/+()-"
            )
        return values[0] if values else None

    def read_device(self, device: Sequence[str], site: str | None) -> str | None:
        """Return the site that a DICOM file names by its values of `DEVICE`; `site` if it is read from the request."""
        if self.kind != "dicom":
            return site
        values = [value for name, value in zip(DEVICE, device, strict=False) if name in self.names]
        if not any(values):
            return None
        name = re.sub(r"[^A-Za-z0-9 ._/+()-]+", "_", " / ".join(value or "unknown" for value in values))
        return name.lstrip(" ._/+()-")[:100] or None
