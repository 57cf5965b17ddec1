"""Signs that the class folders that were found are none."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pneumo.pipeline.data.sources.items import Item, clean_label, list_names, parse_split
from pneumo.pipeline.data.sources.masks import is_image_folder, is_mask_name

_PATIENT_LIKE = re.compile(r"(patient|pat|pt|subject|sub|person|case)s?[\W_]*\d+")
_FOLD_LIKE = re.compile(r"(fold|cv|split|holdout|dev)[\W_]*\d*")
_MANY_CLASSES, _SMALL_CLASS = 10, 3


@dataclass(frozen=True)
class Tree:
    """Images in the class folders that were found.

    Attributes:
        below: Folders below the class of each image, by its name.
        outside: Images that lie in no class folder.
        empty: Folders beside the class folders that hold no file.
    """

    items: Sequence[Item]
    below: Mapping[str, tuple[str, ...]]
    outside: Sequence[str]
    empty: Sequence[str]


def find_doubts(tree: Tree) -> Iterator[str]:
    """Find what speaks against the classes: their names, folders below them, and images or folders beside them."""
    classes = sorted({item.label for item in tree.items})
    if named := [name for name in classes if _is_split_name(name) or _FOLD_LIKE.fullmatch(name.casefold())]:
        yield f"the folders {list_names(named)} would be classes, but are named like splits"
    elif named := [name for name in classes if _PATIENT_LIKE.fullmatch(name.casefold())]:
        yield f"the folders {list_names(named)} would be classes, but are named like patients"
    elif len(classes) > _MANY_CLASSES and len(tree.items) < _SMALL_CLASS * len(classes):
        yield f"{len(classes)} folders such as {list_names(classes, 2)}, with few images each, may be patients"
    elif names := _find_divisions(tree):
        yield f"the folders {list_names(names)} stand below {list_names(classes)}, and may be classes or patients"
    masks = [name for name in classes if is_mask_name(name)]
    if masks and len(masks) < len(classes):
        yield f"the folder {masks[0]!r} would be a class, but is named like masks: move it away if it holds masks"
    names = [clean_label(name).casefold() for name in classes]
    if bare := [path for path in tree.empty if clean_label(path.rpartition("/")[2]).casefold() not in names]:
        yield f"the class folder {bare[0]!r} is empty, so that the class would be left out: fill it"
    yield from _find_doubtful_splits(tree)
    if len(tree.outside) >= max(len(tree.items), 1):
        total = len(tree.items) + len(tree.outside)
        yield f"{len(tree.outside)} of {total} images, such as {tree.outside[0]!r}, lie in no class folder"


def _find_doubtful_splits(tree: Tree) -> Iterator[str]:
    splits: defaultdict[str, set[object]] = defaultdict(set)
    for item in tree.items:
        splits[clean_label(item.label).casefold()].add(item.split)
    whole = {item.split for item in tree.items}
    if len(splits) > 1 and len(whole) > 1 and all(len(own) == 1 for own in splits.values()):
        yield "no class is in two of the split folders, so that these may be the classes"
    others = {part for name in tree.outside for part in name.split("/")[:-1] if _is_split_name(part)}
    if others and None not in whole:
        yield f"the folders {list_names(sorted(others))} are named like splits too"


def _is_split_name(folder: str) -> bool:
    return parse_split(folder) is not None and not folder.isdigit()


def _find_divisions(tree: Tree) -> list[str]:
    """Return the names of folders below the classes that are the same under several, or that group images."""
    parents: defaultdict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    for item in tree.items:
        for depth, part in enumerate(tree.below[item.name]):
            parents[depth, "images" if is_image_folder(part) else part][item.label] += 1
    levels = Counter(depth for depth, _ in parents)
    for depth, count in sorted(levels.items()):
        names = {name: labels for (level, name), labels in parents.items() if level == depth}
        if count > 1 and any(len(labels) > 1 or labels.total() > 1 for labels in names.values()):
            return sorted(names)
    return []
