"""Take the images out of a zip in memory, never more bytes than allowed, whatever the zip says of itself."""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

ENTRIES_AN_IMAGE = 4
"""Entries that a zip may hold for each image allowed: macOS puts a hidden file beside each, and there are folders."""
_MORE_ENTRIES = 100

_CENTRAL = b"PK\x01\x02"
_CHUNK = 2**16
_ENCRYPTED = 0x1


class ArchiveError(Exception):
    """A zip that cannot be taken apart; the message says why, and quotes no more than a name in it."""


class TooLargeError(ArchiveError):
    """The zip holds more bytes than allowed."""


class TooManyError(ArchiveError):
    """The zip holds more files than allowed."""


@dataclass(frozen=True)
class Member:
    """A file in a zip: its path there, and its bytes."""

    name: str
    data: bytes


def is_zip(data: bytes | bytearray) -> bool:
    """Whether bytes begin as a zip does, an empty one included."""
    return data.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def read_members(data: bytes, *, max_bytes: int, max_files: int) -> Iterator[Member]:
    """Read the files in a zip, in its order, without folders, hidden files and what macOS adds.

    Args:
        data: A whole zip.
        max_bytes: Most bytes of all files together, counted while they are inflated.
        max_files: Most files.

    Raises:
        TooLargeError: They are more bytes.
        TooManyError: They are more files.
        ArchiveError: No zip, damaged, encrypted, or compressed otherwise than by deflate.
    """
    # The directory is read whole, at 500 bytes of memory an entry.
    if data.count(_CENTRAL) > max_files * ENTRIES_AN_IMAGE + _MORE_ENTRIES:
        raise TooManyError(f"the zip holds more than {max_files} files")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        wanted = [entry for entry in archive.infolist() if not entry.is_dir() and not _is_hidden(entry.filename)]
    except Exception:  # zipfile raises many kinds on damage
        raise ArchiveError("the zip is damaged or cut off") from None
    if len(wanted) > max_files:
        raise TooManyError(f"the zip holds more than {max_files} files")
    left = max_bytes
    for entry in wanted:
        content = _inflate(archive, entry, left)
        left -= len(content)
        yield Member(entry.filename, content)


def _inflate(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> bytes:
    """The bytes of a file, at most `limit`."""
    if entry.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"{_short(entry.filename)!r} in the zip is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"{_short(entry.filename)!r} in the zip is compressed otherwise than by deflate")
    content = bytearray()
    try:
        with archive.open(entry) as file:
            while len(content) <= limit and (chunk := file.read(_CHUNK)):
                content += chunk
    except Exception:
        raise ArchiveError(f"{_short(entry.filename)!r} in the zip is damaged") from None
    if len(content) > limit:
        raise TooLargeError("the files in the zip are more bytes than allowed")
    return bytes(content)


def _is_hidden(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1].lower() == "thumbs.db"


def _short(name: str) -> str:
    return name[-80:]
