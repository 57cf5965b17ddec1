"""Open any kind of source."""

import io
import posixpath
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pneumo.pipeline.data.manifest import DATASET
from pneumo.pipeline.data.sources.containers import Blob, Container, Skipped, UnreadableError, open_container
from pneumo.pipeline.data.sources.items import Item, Listing
from pneumo.pipeline.data.sources.labels import settle_labels
from pneumo.pipeline.data.sources.layouts import list_folders
from pneumo.pipeline.data.sources.medmnist import MedMnist
from pneumo.pipeline.data.sources.source_options import SourceOptions
from pneumo.pipeline.data.sources.table_listing import (
    TABLE_SUFFIXES,
    find_tables,
    list_inner_table,
    list_table,
    open_table,
    read_file,
)
from pneumo.pipeline.data.sources.tables import parse_table
from pneumo.serving.contracts.errors import InputError

Reader = Callable[[str], Blob]


@dataclass(frozen=True, kw_only=True)
class Source(Listing):
    """An opened source; `reader` reads an image by name."""

    path: Path
    reader: Reader = field(repr=False)

    def read(self, item: Item) -> Blob:
        """Read one image; raise an `UnreadableError` with the reason if it is damaged or cannot be opened."""
        return self.reader(item.name)

    def refuse_ambiguities(self) -> None:
        """Raise `InputError` if it is not certain what the source means."""
        if self.ambiguities:
            raise InputError(f"{self.path}: {self.ambiguities[0]}")


@contextmanager
def open_source(
    path: Path, options: SourceOptions | None = None, *, allow_ambiguities: bool = False
) -> Iterator[Source]:
    """Open a folder, table, `.npz`, or a `.zip` or `.tar` that holds one of these.

    Raises:
        InputError: It is missing, empty, damaged, ambiguous, or of another kind.
    """
    options = options or SourceOptions()
    if not path.exists():
        raise InputError(
            f"{path}: no such file or folder; give a folder of class folders, a .csv, an .npz, a .zip or a .tar"
        )
    with ExitStack() as stack:
        try:
            reader, listing = _open_reader(path, stack, options)
        except UnreadableError as error:
            raise InputError(f"{path}: {error}; get the source again") from None
        if not listing.items:
            nothing = "no row of the table is an image" if listing.layout == "table" else "no images in class folders"
            raise InputError(f"{path}: {nothing}{_list_reasons(listing.skipped)}")
        source = Source(**vars(settle_labels(listing, options.renames)), path=path, reader=reader)
        if not allow_ambiguities:
            source.refuse_ambiguities()
        yield source


def _open_reader(path: Path, stack: ExitStack, options: SourceOptions) -> tuple[Reader, Listing]:
    suffix = path.suffix.lower() if path.is_file() else ""
    if suffix in TABLE_SUFFIXES:
        if options.layout or options.table:
            raise InputError(
                f"{path}: is the table itself; leave out --layout and --table, or give the folder around it"
            )
        container, listing = open_table(path, options)
        return container.read_blob, listing
    if suffix == ".npz":
        return _open_arrays(path.open("rb"), stack, options, where=str(path))
    container = open_container(path, stack)
    arrays = [name for name in container.sizes if name.lower().endswith(".npz")]
    listing = _list_container(container, path, options)
    if not listing.items and len(arrays) == 1:
        file = io.BytesIO(container.read(arrays[0]))
        return _open_arrays(file, stack, options, where=f"{path}/{arrays[0]}")
    return container.read_blob, listing


def _open_arrays(
    file: io.BufferedIOBase, stack: ExitStack, options: SourceOptions, *, where: str
) -> tuple[Reader, Listing]:
    if given := options.tabular or ["--layout"] * bool(options.layout):
        raise InputError(f"{where}: arrays hold their own labels; leave out {given[0]}")
    arrays = MedMnist(file, stack, where=where, name=posixpath.basename(where))
    return arrays.read, arrays.listing


def _list_container(container: Container, path: Path, options: SourceOptions) -> Listing:
    """List the images by a table or by folders; doubt the folders if there is a table too and nobody chose."""
    if options.table is not None:
        return _list_chosen_table(container, path, options, options.table)
    folders = list_folders(container, options.levels)
    tables = [] if options.layout else find_tables(container, options)
    if not tables and options.tabular:
        raise InputError(
            f"{path}: {options.tabular[0]} is given, but no table here lists the images; give --table FILE"
        )
    own = [table for table in tables if posixpath.join(posixpath.dirname(table), DATASET) in container.sizes]
    if own or (tables and (options.tabular or len({item.label for item in folders.items}) < 2)):
        if len(tables) > 1 and len(own) != 1:
            raise InputError(
                f"{path}: {tables[0]} and {tables[1]} both list images; join them, or choose: --table {tables[0]}"
            )
        table = (own or tables)[0]
        return list_inner_table(container, table, options, where=f"{path}/{table}")
    if not tables:
        return folders
    why = (
        f"{tables[0]} lists images that lie in class folders, so that there are two sources of labels: "
        f"--table {tables[0]} takes the table, --layout {folders.layout} the folders"
    )
    return replace(folders, ambiguities=(why, *folders.ambiguities))


def _list_chosen_table(container: Container, path: Path, options: SourceOptions, chosen: str) -> Listing:
    file = Path(chosen)
    name = chosen.replace("\\", "/").removeprefix("./")
    if name not in container.sizes and file.is_file():
        if not file.resolve().is_relative_to(path.resolve()):
            table = parse_table(read_file(file), where=chosen)
            return list_table(container, table, options, locate=posixpath.normpath, own=chosen)
        name = file.resolve().relative_to(path.resolve()).as_posix()
    if name not in container.sizes:
        tables = find_tables(container, options)
        raise InputError(f"--table {chosen}: no such file{f'; {path} holds ' + ', '.join(tables) if tables else ''}")
    return list_inner_table(container, name, options, where=f"{path}/{name}")


def _list_reasons(skipped: tuple[Skipped, ...]) -> str:
    if not skipped:
        return "; the folder is empty, so check the path"
    reasons = ", ".join(f"{entry.source} ({entry.reason})" for entry in skipped[:3])
    more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    fix = "Put each image in a folder named after its class, or list them with their paths in a .csv"
    return f"; left out: {reasons}{more}. {fix}"
