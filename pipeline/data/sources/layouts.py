"""Folder layouts: at which level the classes of a source stand."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pneumo.pipeline.data.sources.containers import Container, Skipped
from pneumo.pipeline.data.sources.doubts import Tree, find_doubts
from pneumo.pipeline.data.sources.items import (
    SPLIT_NAMES,
    Item,
    Listing,
    is_hidden,
    list_names,
    parse_split,
    select_images,
)
from pneumo.pipeline.data.sources.masks import find_masks
from pneumo.serving.contracts.errors import InputError

type _Folders = Mapping[str, tuple[str, ...]]
"""Folders of each image, from the top."""
type _Places = dict[str, dict[str, int]]
"""Positions of `class`, `split` and `patient` among the folders of each image that has a class."""

_LAYOUTS = tuple(
    f"{above}{middle}"
    for middle in ("class", "patient/class", "any/class", "class/patient")
    for above in ("", "split/")
)
"""Layouts that are proposed if it is not certain which one a source has."""


def list_folders(container: Container, levels: Sequence[str] = ()) -> Listing:
    """Read classes, splits and patients from folder names; raise an `InputError` if no image fits `levels`.

    Without levels, the folders inside a folder called train, val or test (at any depth) are the classes; without such a
    folder, the topmost folders that branch. What speaks against it is in the listing's `ambiguities`.
    """
    images, skipped = select_images(container)
    everything = {name: tuple(name.split("/")[:-1]) for name in images}
    placed = _apply_levels(everything, levels) if levels else {}
    if levels and images and not placed:
        raise InputError(
            f"--layout {'/'.join(levels)}: no image fits, such as {images[0]!r}; a split is called train, val or test, "
            "any is a folder without meaning"
        )
    masks = find_masks(everything, {name: place["class"] for name, place in placed.items()})
    folders = {name: path for name, path in everything.items() if name not in masks}
    places = {name: place for name, place in placed.items() if name in folders} if levels else _find_levels(folders)
    items = []
    for name, place in places.items():
        values = {level: folders[name][position] for level, position in place.items()}
        split = parse_split(values.get("split", ""))
        items.append(Item(name, values["class"], split, values.get("patient"), container.sizes[name]))
    has_splits = any(item.split is not None for item in items)
    outside = [name for name in folders if name not in places]
    skipped += [Skipped(name, f"not in a class folder{' of a split folder' * has_splits}") for name in outside]
    if masks:
        skipped.append(Skipped(min(masks), "a mask of an image", len(masks)))
    empty = _find_empty_folders(container, folders, {folders[name][: place["class"]] for name, place in places.items()})
    doubts: list[str] = []
    if not levels:
        below = {name: folders[name][place["class"] + 1 :] for name, place in places.items()}
        doubts = list(find_doubts(Tree(items, below, outside, [path for path, files in empty.items() if not files])))
    return Listing(
        tuple(items),
        tuple(skipped),
        "/".join(levels) or ("split/class" if has_splits else "class"),
        "folder names",
        tuple(f"{path!r} is no class: it holds {files or 'no'} files and no image" for path, files in empty.items()),
        tuple(f"{doubt}. Choose {_list_layouts(folders)}, or --table FILE for labels in a table" for doubt in doubts),
    )


def _apply_levels(folders: _Folders, levels: Sequence[str]) -> _Places:
    """Place images by given levels, counted below the folders that hold them all; leave out those that do not fit."""
    deepest = max(map(len, folders.values()), default=0)
    start = max(0, min(_count_trunk(folders.values()), deepest - len(levels)))
    at = {level: position for position, level in enumerate(levels) if level != "any"}
    if "split" in at:
        names = [
            [path[i + at["split"]] for path in folders.values() if len(path) > i + at["split"]]
            for i in range(start + 1)
        ]
        start = max(
            (i for i, some in enumerate(names) if any(parse_split(name) is not None for name in some)), default=0
        )
    places = {}
    for name, path in folders.items():
        place = {level: start + position for level, position in at.items() if start + position < len(path)}
        if "class" in place and (
            "split" not in at or ("split" in place and parse_split(path[place["split"]]) is not None)
        ):
            places[name] = place
    return places


def _list_layouts(folders: _Folders) -> str:
    """Return the layouts that give two classes or more, by these classes."""
    layouts: defaultdict[str, list[str]] = defaultdict(list)
    for layout in _LAYOUTS:
        wanted = set(layout.split("/")) - {"any"}
        places = _apply_levels(folders, layout.split("/"))
        classes = sorted({folders[name][place["class"]] for name, place in places.items()})
        if len(classes) > 1 and any(place.keys() == wanted for place in places.values()):
            layouts[list_names(classes, 2)].append(layout)
    texts = (f"--layout {' or '.join(some)} (classes {classes})" for classes, some in layouts.items())
    return ", ".join(texts) or "--layout class"


def _find_levels(folders: _Folders) -> _Places:
    """Place images by the names of split folders, else by the first level with two folders."""
    splits = {name: _find_split_folder(path) for name, path in folders.items()}
    if any(split is not None for split in splits.values()):
        return {name: {"class": split + 1, "split": split} for name, split in splits.items() if split is not None}
    trunk = _count_trunk(folders.values())
    return {name: {"class": trunk} for name, path in folders.items() if len(path) > trunk}


def _find_split_folder(path: tuple[str, ...]) -> int | None:
    named = (i for i, part in enumerate(path[:-1]) if part.casefold() in SPLIT_NAMES and not part.isdigit())
    return next(named, None)


def _count_trunk(paths: Iterable[tuple[str, ...]]) -> int:
    """Return the number of folders above the classes: go down as long as there is a single folder to go into."""
    folders = set(paths)
    trunk: tuple[str, ...] = ()
    while True:
        depth = len(trunk)
        below = {path[depth] for path in folders if len(path) > depth and path[:depth] == trunk}
        if len(below) != 1:
            return depth
        trunk = (*trunk, below.pop())


def _find_empty_folders(container: Container, folders: _Folders, parents: set[tuple[str, ...]]) -> dict[str, int]:
    """Return folders beside the class folders that hold no image, with the number of their files."""
    full = {path[:i] for path in set(folders.values()) for i in range(1, len(path) + 1)}
    files = Counter(dict.fromkeys(container.folders, 0))
    for parent, count in Counter(name.rpartition("/")[0] for name in container.sizes if not is_hidden(name)).items():
        parts = parent.split("/") if parent else []
        files.update({"/".join(parts[:i]): count for i in range(1, len(parts) + 1)})
    paths = {folder: tuple(folder.split("/")) for folder in sorted(files) if not is_hidden(folder)}
    return {folder: files[folder] for folder, path in paths.items() if path[:-1] in parents and path not in full}
