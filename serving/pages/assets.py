"""Files of the pages: templates, and static files."""

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
"""Media types of the static files, by suffix."""


@dataclass(frozen=True)
class Asset:
    """A static file: its bytes, its media type, and its strong entity tag in quotes (RFC 9110)."""

    content: bytes
    media_type: str
    tag: str


@functools.cache
def read_assets() -> dict[str, Asset]:
    """Read all static files by name, once; no other file is served."""
    contents = {path: path.read_bytes() for path in sorted(WEB.iterdir()) if path.suffix in MEDIA_TYPES}
    return {
        path.name: Asset(content, MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
        for path, content in contents.items()
    }


@functools.cache
def read_template(name: str) -> Template:
    """Read the template of a page, once."""
    return Template((WEB / name).read_text(encoding="utf-8"))


def render_head(title: str, root: str = "") -> str:
    """Render what all pages begin with; `root` begins the links."""
    return read_template("head.html").substitute(title=title, root=root).rstrip()
