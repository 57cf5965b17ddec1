"""Open any kind of source."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pneumo.pipeline.data.sources.containers import Blob, Skipped, UnreadableError, open_container
from pneumo.pipeline.data.sources.layouts import Item, Listing, list_folders
from pneumo.pipeline.data.sources.medmnist import MedMnist
from pneumo.pipeline.data.sources.tables import find_table, list_table, open_table
from pneumo.serving.contracts.errors import InputError

Reader = Callable[[str], Blob]


@dataclass(frozen=True)
class Source:
    """An opened source.

    Attributes:
        path: Its path.
        items: Its images, in the order in which reading them is fast.
        skipped: Files left out before any image was read, with reasons.
        reader: Reads an image by name.
    """

    path: Path
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    reader: Reader

    def read(self, item: Item) -> Blob:
        """Read one image.

        Raises:
            UnreadableError: The image is damaged or cannot be opened; the message is the reason.
        """
        return self.reader(item.name)


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a folder, `.csv`, `.npz`, or a `.zip` or `.tar` that holds one of these.

    Raises:
        InputError: It is missing, empty, damaged, or of another kind.
    """
    if not path.exists():
        raise InputError(
            f"{path}: no such file or folder; give a folder of class folders, a .csv, an .npz, a .zip or a .tar"
        )
    with ExitStack() as stack:
        try:
            reader, listing = _open_reader(path, stack)
        except UnreadableError as error:
            raise InputError(f"{path}: {error}; get the source again") from None
        if not listing.items:
            raise InputError(f"{path}: no images in class folders{_list_reasons(listing.skipped)}")
        yield Source(path, listing.items, listing.skipped, reader)


def _open_reader(path: Path, stack: ExitStack) -> tuple[Reader, Listing]:
    suffix = path.suffix.lower() if path.is_file() else ""
    if suffix == ".npz":
        arrays = MedMnist(path.open("rb"), stack, where=str(path), name=path.name)
        return arrays.read, arrays.listing
    if suffix == ".csv":
        container, listing = open_table(path)
        return container.read_blob, listing
    container = open_container(path, stack)
    if table := find_table(container, where=str(path)):
        return container.read_blob, list_table(container, table, where=f"{path}/{table}")
    listing = list_folders(container)
    names = [name for name in container.sizes if name.lower().endswith(".npz")]
    if not listing.items and len(names) == 1:
        file = io.BytesIO(container.read(names[0]))
        arrays = MedMnist(file, stack, where=f"{path}/{names[0]}", name=names[0])
        return arrays.read, arrays.listing
    return container.read_blob, listing


def _list_reasons(skipped: tuple[Skipped, ...]) -> str:
    if not skipped:
        return "; the folder is empty, so check the path"
    reasons = ", ".join(f"{entry.source} ({entry.reason})" for entry in skipped[:3])
    more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return f"; left out: {reasons}{more}. Put each image in a folder named after its class, or list them in a .csv"
