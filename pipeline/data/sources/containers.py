"""Folders and archives as named files that can be read. Nothing is ever extracted to disk."""

import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pneumo.serving.contracts.errors import InputError, PneumoError, first_line

MAX_BYTES = 256 * 2**20
"""Most bytes of one image file; a larger one is left out rather than read into memory."""

_DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,  # also NotImplementedError: a compression that Python lacks
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
_END_OF_TAR = bytes(512)


class UnreadableError(PneumoError):
    """One file of a source cannot be read: the message is the reason."""


@dataclass(frozen=True)
class Blob:
    """The bytes of an image file, with the hexadecimal digest of the original file, or of the array it came from."""

    data: bytes
    sha256: str


@dataclass(frozen=True)
class Skipped:
    """Files that were left out.

    Attributes:
        source: Name in the source; the first one of several files with one reason.
        reason: Why.
        count: Number of files.
        lost: It should be an image, so this is a defect of the source.
    """

    source: str
    reason: str
    count: int = 1
    lost: bool = False

    def to_dict(self) -> dict[str, str]:
        """Return the entry for `dataset.json`."""
        return {"source": self.source, "reason": self.reason} | ({"count": str(self.count)} if self.count > 1 else {})


@dataclass
class Container:
    """Files under relative names with forward slashes, in the order in which reading them is fast.

    Attributes:
        problem: What an error says of a file that cannot be read.
        sizes: Size in bytes by name.
        skipped: Members that are no readable files.
        folders: Names of folders; those of an archive if it lists them.
    """

    problem: str = "cannot be read"
    sizes: dict[str, int] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    _readers: dict[str, Callable[[], bytes]] = field(default_factory=dict)

    def add(self, name: str, size: int, read: Callable[[], bytes]) -> None:
        """Add a file; a later one of the same name replaces an earlier one."""
        if self.sizes.pop(name, None) is not None:
            self.skipped.append(Skipped(name, "duplicate name; the last file of this name is used"))
        self.sizes[name] = size
        self._readers[name] = read

    def skip(self, name: str, reason: str) -> None:
        """Note a member that is left out."""
        self.skipped.append(Skipped(name, reason))

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            UnreadableError: The file is damaged or cannot be opened.
        """
        try:
            return self._readers[name]()
        except _DAMAGE as error:
            raise UnreadableError(f"{self.problem}: {getattr(error, 'strerror', None) or first_line(error)}") from None

    def read_blob(self, name: str) -> Blob:
        """Return the bytes of a file with their digest; raises as `read` does."""
        data = self.read(name)
        return Blob(data, hashlib.sha256(data).hexdigest())


def open_container(path: Path, stack: ExitStack) -> Container:
    """Open a folder, a `.zip` or a `.tar` (plain, gzip, bzip2, xz); `stack` closes it.

    Raises:
        InputError: It is none of these, or it is damaged.
    """
    if path.is_dir():
        return walk_folder(path)
    try:
        with path.open("rb") as file:
            # zipfile.is_zipfile() also accepts a tar whose last member is a zip.
            is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
        if is_zip:
            return _list_zip(stack.enter_context(zipfile.ZipFile(path)))
        return _list_tar(stack.enter_context(tarfile.open(path)))
    except _DAMAGE as error:
        if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"):
            raise InputError(f"{path}: a damaged archive ({first_line(error)}); get it again") from None
        raise InputError(f"{path}: not a source of images; give a folder, a .csv, an .npz, a .zip or a .tar") from None


def walk_folder(root: Path) -> Container:
    """List a folder on disk; links to folders are followed, each real folder once."""
    container = Container()

    def name_of(path: str | Path) -> str:
        return clean_name(Path(path).relative_to(root).as_posix())

    def note(error: OSError) -> None:
        container.skip(name_of(error.filename), f"cannot list the folder: {error.strerror}")

    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=note):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            container.skip(name_of(folder), "a link to a folder that was read already")
            continue
        seen.add(real)
        folders.sort()
        container.folders.update(name_of(Path(folder) / name) for name in folders)
        for path in (Path(folder) / file for file in sorted(files)):
            name = name_of(path)
            if not path.is_file():
                container.skip(name, "a broken link" if path.is_symlink() else "not a plain file")
            elif name in container.sizes:
                container.skip(name, "duplicate name once control characters are replaced; rename the file")
            else:
                container.add(name, path.stat().st_size, path.read_bytes)
    return container


def _list_zip(archive: zipfile.ZipFile) -> Container:
    container = Container("damaged in the archive")
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        name = clean_name(info.filename)
        if info.is_dir():
            container.folders.add(name)
        elif info.flag_bits & 0x1:
            container.skip(name, "encrypted; unpack the archive with its password and import the folder")
        else:
            container.add(name, info.file_size, partial(archive.read, info))
    return container


def _list_tar(archive: tarfile.TarFile) -> Container:
    container = Container("damaged in the archive")

    def read(info: tarfile.TarInfo) -> bytes:
        file = archive.extractfile(info)
        return file.read() if file else b""

    for info in archive:
        if info.isreg():
            container.add(clean_name(info.name), info.size, partial(read, info))
        elif info.isdir():
            container.folders.add(clean_name(info.name))
        else:
            container.skip(clean_name(info.name), "a link or a device in the archive")
    # tarfile accepts an archive that ends between two members, or in a broken header, as a complete one.
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(len(_END_OF_TAR)) != _END_OF_TAR:
        raise tarfile.ReadError("it ends before its end mark")
    return container


def clean_name(name: str) -> str:
    """Return a harmless relative name: no drive, root or `..`; forward slashes; printable, valid Unicode."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    name = "".join(f"%{ord(char):02X}" if ord(char) < 32 or ord(char) == 127 else char for char in name)
    kept = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if kept and len(kept[0]) == 2 and kept[0][1] == ":":
        kept = kept[1:]
    return "/".join(kept) or "unnamed"
