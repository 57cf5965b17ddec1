"""Open a source, whatever it is."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pneumo.pipeline.data.sources.containers import Container, Skipped, UnreadableError, open_container
from pneumo.pipeline.data.sources.layouts import Item, Listing, from_folders
from pneumo.pipeline.data.sources.medmnist import MedMnist
from pneumo.pipeline.data.sources.tables import ListedFiles, find_table, from_table
from pneumo.serving.contracts.errors import InputError


@dataclass(frozen=True)
class Blob:
    """One image as it was read.

    Attributes:
        data: The bytes of an image file.
        sha256: Digest of the original bytes, hexadecimal: of the file, or of the array where the source holds arrays.
    """

    data: bytes
    sha256: str


class Source:
    """An opened source.

    Attributes:
        path: Where it is.
        items: Its images, in the order in which reading them is fast.
        skipped: Files left out before any image was read, with reasons.
        layout: How it was understood: `class folders`, `split and class folders`, `table` or `MedMNIST`.
    """

    def __init__(self, path: Path, listing: Listing, reader: Container | MedMnist) -> None:
        self.path = path
        self.items = listing.items
        self.skipped = listing.skipped
        self.layout = listing.layout
        self._reader = reader

    def read(self, item: Item) -> Blob:
        """Read one image.

        Raises:
            UnreadableError: Its bytes cannot be had; the message is the reason.
        """
        if isinstance(self._reader, MedMnist):
            data, original = self._reader.read(item.name)
        else:
            data = original = self._reader.read(item.name)
        return Blob(data, hashlib.sha256(original).hexdigest())


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a folder, `.csv`, `.npz`, or a `.zip` or `.tar` that holds one of these.

    Raises:
        InputError: Missing, empty, damaged, or not understood.
    """
    if not path.exists():
        raise InputError(
            f"{path}: no such file or folder; give a folder of class folders, a .csv, an .npz, a .zip or a .tar"
        )
    reader, listing = _open(path)
    try:
        if not listing.items:
            raise InputError(f"{path}: no images in class folders{_because(listing.skipped)}")
        yield Source(path, listing, reader)
    finally:
        reader.close()


def _open(path: Path) -> tuple[Container | MedMnist, Listing]:
    if path.is_file() and path.suffix.lower() == ".npz":
        arrays = MedMnist(path.open("rb"), where=str(path), name=path.name)
        return arrays, arrays.listing
    if path.is_file() and path.suffix.lower() == ".csv":
        files = ListedFiles(path)
        return files, from_table(files, files.table, where=str(path))
    container = open_container(path)
    try:
        if table := find_table(container, where=str(path)):
            return container, from_table(container, table, where=f"{path}/{table}")
        listing = from_folders(container)
        names = [name for name in container.sizes if name.lower().endswith(".npz")]
        if not listing.items and len(names) == 1:
            arrays = MedMnist(io.BytesIO(container.read(names[0])), where=f"{path}/{names[0]}", name=names[0])
            container.close()
            return arrays, arrays.listing
    except UnreadableError as error:
        container.close()
        raise InputError(f"{path}: {error}") from None
    except InputError:
        container.close()
        raise
    return container, listing


def _because(skipped: tuple[Skipped, ...]) -> str:
    if not skipped:
        return "; is this the right path?"
    told = ", ".join(f"{entry.source} ({entry.reason})" for entry in skipped[:3])
    more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return f"; left out: {told}{more}. Put each image in a folder named after its class, or list them in a .csv"
