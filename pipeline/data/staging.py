"""The files of a data set's folder: their names, what else lies there, and if two data sets are the same."""

import filecmp
import hashlib
import re
import unicodedata
from pathlib import Path, PurePosixPath

from pneumo.pipeline.data.manifest import DATASET, DIGESTS, MANIFEST, Dataset
from pneumo.serving.contracts.errors import InputError

IMAGES = "images"
_OURS = (IMAGES, DATASET, DIGESTS, MANIFEST, ".DS_Store", "Thumbs.db")
_CACHE_PREFIX = f"{Path(MANIFEST).stem}."
"""Ludwig leaves `manifest.training.hdf5` and the like beside the manifest; they are stale once it is replaced."""


def name_prepared(name: str, label: str) -> tuple[str, str]:
    """Return the path of an image's file below its split, and one that no other image of its class can have."""
    plain = "/".join(
        re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text)).strip(".")[:80] or "_"
        for text in (label, PurePosixPath(name).stem)
    )
    return f"{plain}.png", f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:16]}.png"


def refuse_foreign(out: Path) -> None:
    """Refuse a folder that holds anything `pneumo data import` did not make; such files are never deleted.

    Raises:
        InputError: Names the first such file.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out}: is a file, not a folder; choose another --out")
    entries = sorted(entry.name for entry in out.iterdir())
    foreign = [name for name in entries if name not in _OURS and not name.startswith(_CACHE_PREFIX)]
    if not foreign and not {MANIFEST, DATASET} <= set(entries):
        foreign = entries
    if foreign:
        raise InputError(
            f"{out}: holds {foreign[0]!r}, which is no part of a pneumo data set; move it away or choose another --out"
        )


def is_same_dataset(old: Dataset, new: Dataset) -> bool:
    """Return True if two data sets are the same, byte for byte."""
    names = [MANIFEST, DATASET, DIGESTS, *(row.image for row in new.rows)]
    _, different, missing = filecmp.cmpfiles(old.folder, new.folder, names, shallow=False)
    return old.info.fingerprint == new.info.fingerprint and not different and not missing
