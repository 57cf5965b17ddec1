"""A working folder beside a data set, and the atomic replacement of the data set by what was made there."""

import filecmp
import hashlib
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from pneumo.pipeline.data.manifest import DATASET, DIGESTS, MANIFEST, Dataset
from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.files import open_locked

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


@contextmanager
def lock_staging(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out`, under a lock; remove it at the end.

    What a killed import left there is removed first; a data set that it had moved aside is moved back.

    Raises:
        MachineError: Another import into `out` is running, or the folder cannot be written.
    """
    work = out.parent / f".{out.name}.importing"
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = open_locked(work / "lock")
        if os.fstat(lock.fileno()).st_nlink == 0:  # the import that had the lock has just removed its file
            lock.close()
            raise BlockingIOError
    except BlockingIOError:
        raise MachineError(f"{out}: another import into it is running; wait for it to end") from None
    except OSError as error:
        raise MachineError(
            f"{error.filename or work}: cannot be written: {error.strerror}; choose another --out"
        ) from None
    with lock:
        try:
            _clean(work, out)
            (work / "new").mkdir()
            yield work / "new"
        finally:
            _clean(work, out)
            (work / "lock").unlink(missing_ok=True)
            with suppress(OSError):
                work.rmdir()


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


def publish(new: Path, out: Path) -> None:
    """Move a finished folder to `out`, in place of the data set there."""
    if out.exists():
        out.rename(new.parent / "old")
    new.rename(out)


def _clean(work: Path, out: Path) -> None:
    old = work / "old"
    if old.exists() and not out.exists():
        old.rename(out)  # an import was killed between the two renames of publish()
    for folder in (old, work / "new"):
        if folder.exists():
            shutil.rmtree(folder)
