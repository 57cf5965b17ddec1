"""Folders and archives as one thing: named files that can be read. Nothing is ever extracted to disk."""

import lzma
import os
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from pneumo.serving.contracts.errors import InputError, PneumoError

MAX_BYTES = 256 * 2**20
"""Bytes one image file may have; a member that claims more is left out rather than read into memory."""

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
class Skipped:
    """Files that were left out.

    Attributes:
        source: Name in the source; of several files with one reason, the first.
        reason: Why.
        count: How many files this stands for.
        lost: Whether an image should be here, so that this is a defect of the source.
    """

    source: str
    reason: str
    count: int = 1
    lost: bool = False

    def to_dict(self) -> dict[str, str]:
        """As `dataset.json` keeps it."""
        return {"source": self.source, "reason": self.reason} | ({"count": str(self.count)} if self.count > 1 else {})


class Container(Protocol):
    """Files under relative names with forward slashes, in the order in which reading them is fast.

    Attributes:
        sizes: Size in bytes by name.
        skipped: Members that are no readable files.
    """

    sizes: dict[str, int]
    skipped: list[Skipped]

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            UnreadableError: They cannot be had.
        """
        ...

    def close(self) -> None:
        """Let go of open files."""
        ...


class Folder:
    """A folder on disk, walked once; links to folders are followed, each real folder once."""

    def __init__(self, root: Path) -> None:
        self.sizes: dict[str, int] = {}
        self.skipped: list[Skipped] = []
        self._paths: dict[str, Path] = {}
        self._root = root
        seen: set[str] = set()
        for folder, folders, files in os.walk(root, followlinks=True, onerror=self._on_error):
            real = os.path.realpath(folder)
            if real in seen:
                folders.clear()
                self.skipped.append(Skipped(self._name(Path(folder)), "a link to a folder that was read already"))
                continue
            seen.add(real)
            folders.sort()
            for file in sorted(files):
                self._add(Path(folder) / file)

    def _add(self, path: Path) -> None:
        name = self._name(path)
        if not path.is_file():
            self.skipped.append(Skipped(name, "a broken link" if path.is_symlink() else "not a plain file"))
            return
        if name in self._paths:
            self.skipped.append(Skipped(name, "another file has this name once odd characters are written out"))
            return
        self.sizes[name] = path.stat().st_size
        self._paths[name] = path

    def _name(self, path: Path) -> str:
        return clean_name(path.relative_to(self._root).as_posix())

    def _on_error(self, error: OSError) -> None:
        self.skipped.append(Skipped(self._name(Path(error.filename)), f"cannot list the folder: {error.strerror}"))

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        try:
            return self._paths[name].read_bytes()
        except OSError as error:
            raise UnreadableError(f"cannot be read: {error.strerror}") from None

    def close(self) -> None:
        """Nothing stays open."""


class ZipArchive:
    """A zip file, read member by member."""

    def __init__(self, path: Path) -> None:
        self.sizes: dict[str, int] = {}
        self.skipped: list[Skipped] = []
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._zip = zipfile.ZipFile(path)
        for info in sorted(self._zip.infolist(), key=lambda info: info.header_offset):
            if info.is_dir():
                continue
            name = clean_name(info.filename)
            if info.flag_bits & 0x1:
                self.skipped.append(
                    Skipped(name, "encrypted; unpack the archive with its password and import the folder")
                )
                continue
            if name in self._members:
                self.skipped.append(Skipped(name, "stands twice in the archive; the later one counts"))
            self._members[name] = info
            self.sizes[name] = info.file_size

    def read(self, name: str) -> bytes:
        """The bytes of a member."""
        try:
            return self._zip.read(self._members[name])
        except _DAMAGE as error:
            raise UnreadableError(f"damaged in the archive: {shorten_name(error)}") from None

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()


class TarArchive:
    """A tar file, plain or compressed, read member by member."""

    def __init__(self, path: Path) -> None:
        self.sizes: dict[str, int] = {}
        self.skipped: list[Skipped] = []
        self._members: dict[str, tarfile.TarInfo] = {}
        self._tar = tarfile.open(path)  # noqa: SIM115 - closed by close()
        for info in self._tar:
            if info.isdir():
                continue
            name = clean_name(info.name)
            if not info.isreg():
                self.skipped.append(Skipped(name, "a link or a device in the archive"))
                continue
            if name in self._members:
                self.skipped.append(Skipped(name, "stands twice in the archive; the later one counts"))
                del self._members[name], self.sizes[name]  # keep the order of positions
            self._members[name] = info
            self.sizes[name] = info.size
        self._refuse_a_cut_off_end()

    def _refuse_a_cut_off_end(self) -> None:
        # tarfile takes an archive that ends between two members, or in a broken header, for a complete one.
        file = self._tar.fileobj
        assert file is not None
        file.seek(self._tar.offset)
        if file.read(len(_END_OF_TAR)) != _END_OF_TAR:
            raise tarfile.ReadError("it ends before its end mark")

    def read(self, name: str) -> bytes:
        """The bytes of a member."""
        try:
            file = self._tar.extractfile(self._members[name])
            return file.read() if file else b""
        except _DAMAGE as error:
            raise UnreadableError(f"damaged in the archive: {shorten_name(error)}") from None

    def close(self) -> None:
        """Close the archive."""
        self._tar.close()


def open_container(path: Path) -> Container:
    """Open a folder, a `.zip` or a `.tar` (plain, gzip, bzip2, xz).

    Raises:
        InputError: None of these, or damaged.
    """
    if path.is_dir():
        return Folder(path)
    try:
        with path.open("rb") as file:
            # zipfile.is_zipfile() also says yes to a tar whose last member is a zip.
            zipped = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
        return ZipArchive(path) if zipped else TarArchive(path)
    except _DAMAGE as error:
        if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"):
            raise InputError(f"{path}: a damaged archive ({shorten_name(error)}); get it again") from None
        raise InputError(f"{path}: not a source of images; give a folder, a .csv, an .npz, a .zip or a .tar") from None


def clean_name(name: str) -> str:
    """Make a harmless relative name: no drive, no root, no `..`, forward slashes, printable, valid Unicode."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    name = "".join(f"%{ord(char):02X}" if ord(char) < 32 or ord(char) == 127 else char for char in name)
    parts = PurePosixPath(name.replace("\\", "/")).parts
    kept = [part for part in parts if part not in ("/", "//", ".", "..")]
    if kept and len(kept[0]) == 2 and kept[0][1] == ":":
        kept = kept[1:]
    return "/".join(kept) or "unnamed"


def shorten_name(error: Exception) -> str:
    """The first line of an error's text, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
