"""What folder names say: which files of a source are images, of which class and split."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.sources.containers import MAX_BYTES, Container, Skipped

SPLIT_NAMES = {
    "0": Split.TRAIN,
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "1": Split.VALIDATION,
    "val": Split.VALIDATION,
    "valid": Split.VALIDATION,
    "validation": Split.VALIDATION,
    "2": Split.TEST,
    "test": Split.TEST,
    "testing": Split.TEST,
}
"""How a source may name a split, in lower case."""

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
        split: The split the source puts it in, or none.
        patient: Patient as a table states it, or none.
        size: Bytes of the file or array.
        columns: What else a table says of it: value by column, in lower case; no empty values.
    """

    name: str
    label: str
    split: Split | None = None
    patient: str | None = None
    size: int = 0
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Listing:
    """What a source holds: images in the order in which reading them is fast, and what is left out."""

    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    layout: str


def from_folders(container: Container) -> Listing:
    """Read classes, and splits where there are any, from folder names.

    A folder called train, val or test (at any depth) with folders in it makes its folders the classes. Without one, the
    topmost folders that branch are the classes.
    """
    images, skipped = select_images(container)
    parts = {name: PurePosixPath(name).parts for name in images}
    at = {name: _split_position(path) for name, path in parts.items()}
    items: list[Item] = []
    if any(position is not None for position in at.values()):
        layout, reason = "split and class folders", "not in a class folder of a split folder"
        for name in images:
            position = at[name]
            if position is None:
                skipped.append(Skipped(name, reason))
                continue
            split = SPLIT_NAMES[parts[name][position].casefold()]
            items.append(Item(name, parts[name][position + 1], split, size=container.sizes[name]))
    else:
        layout, depth = "class folders", len(_trunk(parts.values()))
        for name in images:
            if len(parts[name]) < depth + 2:
                skipped.append(Skipped(name, "not in a class folder"))
            else:
                items.append(Item(name, parts[name][depth], size=container.sizes[name]))
    return Listing(tuple(items), tuple(skipped), layout)


def select_images(container: Container, but: Iterable[str] = ()) -> tuple[list[str], list[Skipped]]:
    """Tell images from other files, by name.

    Args:
        container: Where the files are.
        but: Names to pass over.

    Returns:
        Names of images, and what else there is: other files are summed up by reason.
    """
    known = set(but)
    images: list[str] = []
    others: Counter[str] = Counter()
    first: dict[str, str] = {}
    skipped = [replace(entry, lost=_suffix(entry.source) in _IMAGE_SUFFIXES) for entry in container.skipped]
    for name, size in container.sizes.items():
        if name in known:
            continue
        suffix = _suffix(name)
        if is_hidden(name):
            reason = "a hidden file"
        elif PurePosixPath(name).name.upper() == "DICOMDIR":
            reason = "a DICOM directory"
        elif suffix and suffix not in _IMAGE_SUFFIXES and not suffix[1:].isdecimal():  # DICOM files are named 1.2.840.9
            reason = f"not an image: {suffix}"
        elif size > MAX_BYTES:
            skipped.append(Skipped(name, too_large(size), lost=True))
            continue
        else:
            images.append(name)
            continue
        others[reason] += 1
        first.setdefault(reason, name)
    return images, skipped + [Skipped(first[reason], reason, count) for reason, count in others.items()]


def too_large(size: int) -> str:
    """Why a file of so many bytes is left out."""
    return f"{size / 2**20:,.0f} MiB is more than {MAX_BYTES // 2**20} MiB"


def is_hidden(name: str) -> bool:
    """Whether a file is no part of the data: dot files, what macOS and Windows leave behind."""
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1].lower() == "thumbs.db"


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _split_position(parts: tuple[str, ...]) -> int | None:
    for position, part in enumerate(parts[:-2]):
        if part.casefold() in SPLIT_NAMES and not part.isdigit():
            return position
    return None


def _trunk(paths: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The folders above the classes: go down as long as there is a single folder to go into."""
    folders = {path[:-1] for path in paths}
    trunk: tuple[str, ...] = ()
    while True:
        depth = len(trunk)
        below = {path[depth] for path in folders if len(path) > depth and path[:depth] == trunk}
        if len(below) != 1:
            return trunk
        trunk = (*trunk, below.pop())
