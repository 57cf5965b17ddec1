"""Images of a source, told from its other files by name."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

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

_SPLIT_WORD = re.compile(r"([a-z]+?)(set|data|images|imgs|files|split)?s?\d*")
_READABLE = ".jpg .jpeg .jpe .jfif .png .bmp .tif .tiff .webp .dcm .dicom"
# These cannot be read, but a person who has such files must see each of them named.
_UNREADABLE = ".jp2 .gif .heic .avif .nii .pgm .ppm"
IMAGE_SUFFIXES = frozenset(f"{_READABLE} {_UNREADABLE}".split())


@dataclass(frozen=True)
class Item:
    """One image of a source.

    Attributes:
        name: Unique name: the path inside the source, or array and position.
        label: Class name.
        split: Its split in the source, None without splits.
        patient: Its patient in a table or folder, None without one.
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
    """The content of a source: images in the order in which reading them is fast, and files that are left out.

    `layout`, `notes` and `ambiguities` are those of its `Interpretation`; `origin` says where labels are read.
    """

    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    layout: str
    origin: str
    notes: tuple[str, ...] = ()
    ambiguities: tuple[str, ...] = ()


def parse_split(text: str) -> Split | None:
    """Return the split that a name such as `train_set` or `Test1` stands for, None for other names."""
    word = _SPLIT_WORD.fullmatch(re.sub(r"[\W_]+", "", text.casefold()))
    return SPLIT_NAMES.get(text.casefold(), SPLIT_NAMES.get(word[1]) if word else None)


def clean_label(text: str) -> str:
    """Return a class name in one Unicode form (NFC) without double or outer white space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def select_images(container: Container, but: Iterable[str] = ()) -> tuple[list[str], list[Skipped]]:
    """Return names of images, and the other files summed up by reason; `but` are names to ignore."""
    ignored = set(but)
    images: list[str] = []
    others: Counter[str] = Counter()
    first: dict[str, str] = {}
    skipped = [replace(entry, lost=suffix_of(entry.source) in IMAGE_SUFFIXES) for entry in container.skipped]
    for name, size in container.sizes.items():
        if name in ignored:
            continue
        suffix = suffix_of(name)
        if is_hidden(name):
            reason = "a hidden file"
        elif name.rpartition("/")[2].upper() == "DICOMDIR":
            reason = "a DICOM directory"
        elif suffix and suffix not in IMAGE_SUFFIXES and not suffix[1:].isdecimal():  # DICOM files are named 1.2.840.9
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
    if name.startswith(".") or "/." in name:
        return True
    return "__MACOSX" in name.split("/") or name.rpartition("/")[2].lower() == "thumbs.db"


def suffix_of(name: str) -> str:
    """Return the ending of a file name, in lower case, with its dot."""
    stem, _, suffix = name.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if stem and suffix else ""


def list_names(names: Iterable[str], most: int = 3) -> str:
    """Return names in quotes: all of them if they are few, else the first ones and how many more there are."""
    ordered = list(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(map(repr, ordered[:most])) + more
