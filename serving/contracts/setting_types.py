"""Values that settings hold: rate limits, the registry's root, the size limits of images."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

MAX_PIXELS = 40_000_000
"""Most pixels of an image, width times height: a full-size film has about 15 million."""

MAX_REQUEST_PIXELS = 4 * MAX_PIXELS
"""Most pixels of all images of a request: they take a few seconds, so that others need not wait for long."""

Root = Path | str
"""Root of a registry: a folder, or an address with `://` in it."""

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE = re.compile(r"([1-9][0-9]{0,8})/([a-z]+)")


@dataclass(frozen=True)
class Rate:
    """A rate limit: `count` requests per `seconds`; an idle client may send all of them at once."""

    count: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """Parse a rate such as `600/minute`, or raise a `ValueError`."""
        match = _RATE.fullmatch(text)
        if not match or match[2] not in _SECONDS:
            raise ValueError(f"must be a whole number and one of {', '.join(_SECONDS)}, such as 600/minute")
        return cls(int(match[1]), _SECONDS[match[2]])


def is_address(root: object) -> TypeGuard[str]:
    """Return whether a root is an address, not a folder."""
    return isinstance(root, str) and "://" in root


def parse_root(root: Root) -> Root:
    """Return an address without a trailing slash, and any other text as a folder."""
    if is_address(root):
        return root.rstrip("/")
    return Path(root) if isinstance(root, str) else root
