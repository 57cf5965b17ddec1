"""Files of the pages: templates, and what is served as it is."""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from string import Template

WEB = Path(__file__).parent / "web"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
"""Of the files that are served as they are."""


@dataclass(frozen=True)
class Asset:
    """A static file.

    Attributes:
        content: Its bytes.
        media_type: As sent.
        tag: Strong entity tag, in quotes (RFC 9110).
    """

    content: bytes
    media_type: str
    tag: str


@functools.cache
def read_assets() -> dict[str, Asset]:
    """Read the static files by name, once: nothing else can be asked for."""
    found = {}
    for path in sorted(WEB.iterdir()):
        media_type = MEDIA_TYPES.get(path.suffix)
        if media_type:
            content = path.read_bytes()
            found[path.name] = Asset(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


@functools.cache
def read_template(name: str) -> Template:
    """Read a template of a page, once."""
    return Template((WEB / name).read_text(encoding="utf-8"))
