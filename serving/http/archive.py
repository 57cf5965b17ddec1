"""Reading a zip in memory within limits on bytes and files, whatever the zip declares."""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

ENTRIES_PER_IMAGE = 4
"""Entries in the zip per allowed image: macOS adds a hidden file for each, and there are folders."""
_MORE_ENTRIES = 100

_CENTRAL = b"PK\x01\x02"
_CHUNK = 2**16
_ENCRYPTED = 0x1


class ArchiveError(Exception):
    """The zip cannot be read; the message gives the reason, and quotes at most a file name."""


class TooLargeError(ArchiveError):
    """The zip holds more bytes than allowed."""


class TooManyError(ArchiveError):
    """The zip holds more files than allowed."""


@dataclass(frozen=True)
class Member:
    """A file in a zip: its path and its bytes."""

    name: str
    data: bytes


def is_zip(data: bytes | bytearray) -> bool:
    """Return whether bytes begin as a zip does, including an empty one."""
    return data.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def read_members(data: bytes, *, max_bytes: int, max_files: int) -> Iterator[Member]:
    """Yield the files in a zip in order, without folders, hidden files and those that macOS adds.

    Args:
        data: A whole zip.
        max_bytes: Most bytes of all files together, counted while they are inflated.
        max_files: Most files.

    Raises:
        TooLargeError: The files are larger.
        TooManyError: There are more files.
        ArchiveError: Not a zip, damaged, encrypted, or not compressed by deflate.
    """
    # zipfile reads the whole directory, at 500 bytes of memory per entry.
    if data.count(_CENTRAL) > max_files * ENTRIES_PER_IMAGE + _MORE_ENTRIES:
        raise TooManyError(f"the zip holds more than {max_files} files")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        files = [entry for entry in archive.infolist() if not entry.is_dir() and not _is_hidden(entry.filename)]
    except Exception:  # zipfile raises many kinds of errors on damage
        raise ArchiveError("the zip is damaged or cut off") from None
    if len(files) > max_files:
        raise TooManyError(f"the zip holds more than {max_files} files")
    left = max_bytes
    for entry in files:
        content = _inflate(archive, entry, left)
        left -= len(content)
        yield Member(entry.filename, content)


def _inflate(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> bytes:
    """Return the content of a file of at most `limit` bytes."""
    name = f"{entry.filename[-80:]!r} in the zip"
    if entry.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"{name} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"{name} is not compressed by deflate")
    content = bytearray()
    try:
        with archive.open(entry) as file:
            while len(content) <= limit and (chunk := file.read(_CHUNK)):
                content += chunk
    except Exception:
        raise ArchiveError(f"{name} is damaged") from None
    if len(content) > limit:
        raise TooLargeError("the files in the zip are larger than allowed")
    return bytes(content)


def _is_hidden(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1].lower() == "thumbs.db"
