"""Folder layouts: which files of a source are images, and of which class and split."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.sources.containers import MAX_BYTES, Container, Skipped

SPLIT_NAMES = {
    name: split
    for split, names in {
        Split.TRAIN: "0 train training",
        Split.VALIDATION: "1 val valid validation",
        Split.TEST: "2 test testing",
    }.items()
    for name in names.split()
}
"""Names of the splits in a source, in lower case."""

_READABLE = ".jpg .jpeg .jpe .jfif .png .bmp .tif .tiff .webp .dcm .dicom"
# These cannot be read, but a person who has such files must see each of them named.
_UNREADABLE = ".jp2 .gif .heic .avif .nii .pgm .ppm"
_IMAGE_SUFFIXES = frozenset(f"{_READABLE} {_UNREADABLE}".split())


@dataclass(frozen=True)
class Item:
    """One image of a source.

    Attributes:
        name: Unique name: the path inside the source, or array and position.
        label: Class name.
        split: Its split in the source, None without splits.
        patient: Its patient in a table, None without one.
        size: Bytes of the file or array.
        columns: Its other columns in a table: value by column, in lower case; no empty values.
    """

    name: str
    label: str
    split: Split | None = None
    patient: str | None = None
    size: int = 0
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Listing:
    """The content of a source: images in the order in which reading them is fast, and files that are left out."""

    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...]


def list_folders(container: Container) -> Listing:
    """Read classes, and splits if there are any, from folder names.

    The folders inside a folder called train, val or test (at any depth) are the classes. Without such a folder, the
    topmost folders that branch are the classes.
    """
    images, skipped = select_images(container)
    parts = {name: PurePosixPath(name).parts for name in images}
    places = {name: _find_split_folder(path) for name, path in parts.items()}
    has_splits = any(place is not None for place in places.values())
    if not has_splits:  # the folder above the classes takes the place of a split folder
        above = _count_trunk(parts.values()) - 1
        places = {name: above if len(path) > above + 2 else None for name, path in parts.items()}
    items: list[Item] = []
    for name, path in parts.items():
        place = places[name]
        if place is None:
            skipped.append(Skipped(name, f"not in a class folder{' of a split folder' if has_splits else ''}"))
            continue
        split = SPLIT_NAMES[path[place].casefold()] if has_splits else None
        items.append(Item(name, path[place + 1], split, size=container.sizes[name]))
    return Listing(tuple(items), tuple(skipped))


def select_images(container: Container, but: Iterable[str] = ()) -> tuple[list[str], list[Skipped]]:
    """Tell images from other files, by name.

    Args:
        container: The files.
        but: Names to ignore.

    Returns:
        Names of images, and the other files, summed up by reason.
    """
    ignored = set(but)
    images: list[str] = []
    others: Counter[str] = Counter()
    first: dict[str, str] = {}
    skipped = [replace(entry, lost=_suffix(entry.source) in _IMAGE_SUFFIXES) for entry in container.skipped]
    for name, size in container.sizes.items():
        if name in ignored:
            continue
        suffix = _suffix(name)
        if is_hidden(name):
            reason = "a hidden file"
        elif PurePosixPath(name).name.upper() == "DICOMDIR":
            reason = "a DICOM directory"
        elif suffix and suffix not in _IMAGE_SUFFIXES and not suffix[1:].isdecimal():  # DICOM files are named 1.2.840.9
            reason = f"not an image: {suffix}"
        elif size > MAX_BYTES:
            skipped.append(Skipped(name, describe_excess(size), lost=True))
            continue
        else:
            images.append(name)
            continue
        others[reason] += 1
        first.setdefault(reason, name)
    return images, skipped + [Skipped(first[reason], reason, count) for reason, count in others.items()]


def describe_excess(size: int) -> str:
    """Return the reason why a file of so many bytes is left out."""
    return f"{size / 2**20:,.0f} MiB is more than {MAX_BYTES // 2**20} MiB"


def is_hidden(name: str) -> bool:
    """Return True for dot files and for the files that macOS and Windows add to folders."""
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1].lower() == "thumbs.db"


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _find_split_folder(parts: tuple[str, ...]) -> int | None:
    named = (i for i, part in enumerate(parts[:-2]) if part.casefold() in SPLIT_NAMES and not part.isdigit())
    return next(named, None)


def _count_trunk(paths: Iterable[tuple[str, ...]]) -> int:
    """Return the number of folders above the classes: go down as long as there is a single folder to go into."""
    folders = {path[:-1] for path in paths}
    trunk: tuple[str, ...] = ()
    while True:
        depth = len(trunk)
        below = {path[depth] for path in folders if len(path) > depth and path[:depth] == trunk}
        if len(below) != 1:
            return depth
        trunk = (*trunk, below.pop())
