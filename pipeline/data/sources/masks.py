"""Masks beside images: drawings of what an image shows, which must not count as images."""

import re
from collections.abc import Mapping
from functools import cache

from pneumo.pipeline.data.sources.items import suffix_of

_MASKS = re.compile(r"(lung|infection|lesion)?(mask|segmentation|annotation|label|seg|contour|groundtruth|gt)s?")
_IMAGES = re.compile(r"(image|img|xray|cxr|radiograph|film|png|jpg|jpeg|dicom|dcm|picture|original|raw)s?")
_MASK_FILE = re.compile(r"(.+[^\W_])[\W_]+(?:mask|seg|segmentation|annotation)s?[\W_]*\d*", re.IGNORECASE)


@cache
def is_mask_name(folder: str) -> bool:
    """Return True for the name of a folder such as `masks` or `Lung_Segmentations`."""
    return _MASKS.fullmatch(_letters(folder)) is not None


@cache
def is_image_folder(folder: str) -> bool:
    """Return True for the name of a folder such as `images` or `PNG`, which says nothing about its images."""
    return _IMAGES.fullmatch(_letters(folder)) is not None


def find_masks(folders: Mapping[str, tuple[str, ...]], classes: Mapping[str, int] | None = None) -> set[str]:
    """Return the files that are masks of images beside them.

    They lie in a folder such as `masks` beside a folder such as `images`, or beside the images themselves, or they are
    named like the image: `a.png` and `a_mask.png`. A class, at a position among a file's folders, is no such folder.
    """
    stems = {name: name[: len(name) - len(suffix_of(name))] for name in folders}
    images = set(stems.values())
    paths = set(folders.values())
    holders = paths | {path[:i] for path in paths for i, folder in enumerate(path) if is_image_folder(folder)}
    places = {
        path: {i for i, folder in enumerate(path) if path[:i] in holders and is_mask_name(folder)} for path in paths
    }
    own = {name: {position} for name, position in (classes or {}).items()}
    return {
        name
        for name, path in folders.items()
        if places[path] - own.get(name, set()) or ((match := _MASK_FILE.fullmatch(stems[name])) and match[1] in images)
    }


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
