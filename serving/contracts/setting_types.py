"""Values that settings hold: request rates, places of a registry, the size limit of images."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

MAX_PIXELS = 40_000_000
"""Pixels an image may have, width times height: a full-size film has about 15 million."""

Root = Path | str
"""Where a registry lies: a folder, or an address with `://` in it."""

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE = re.compile(r"([1-9][0-9]{0,8})/([a-z]+)")


@dataclass(frozen=True)
class Rate:
    """So many requests in so many seconds; an idle client may send all of them at once."""

    count: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """Read a rate such as `600/minute`.

        Raises:
            ValueError: Not a positive whole number, a slash and `second`, `minute`, `hour` or `day`.
        """
        found = _RATE.fullmatch(text)
        if not found or found[2] not in _SECONDS:
            raise ValueError(f"must be a whole number and one of {', '.join(_SECONDS)}, such as 600/minute")
        return cls(int(found[1]), _SECONDS[found[2]])


def is_address(root: object) -> TypeGuard[str]:
    """Return whether a root is an address, not a folder."""
    return isinstance(root, str) and "://" in root


def parse_root(given: object) -> Any:
    """Return an address without a slash at its end, and any other text as a folder."""
    if is_address(given):
        return given.rstrip("/")
    return Path(given) if isinstance(given, str) else given
