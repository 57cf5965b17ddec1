"""Make a data set aside and put it in place whole, so that an interrupted import never looks complete."""

import fcntl
import filecmp
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import DATASET, DIGESTS, MANIFEST, Dataset
from pneumo.serving.contracts.errors import InputError, MachineError

IMAGES = "images"
_OURS = (IMAGES, DATASET, DIGESTS, MANIFEST, ".DS_Store", "Thumbs.db")
_CACHE_PREFIX = f"{Path(MANIFEST).stem}."
"""Ludwig leaves `manifest.training.hdf5` and the like beside the manifest; they are stale once it is replaced."""


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Give an empty folder beside `out` to make a data set in.

    It is removed in the end; what a killed import left is removed, or put back, at once.

    Raises:
        MachineError: Another import into `out` is running, or the folder cannot be written.
    """
    work = out.parent / f".{out.name}.importing"
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("w")
    except OSError as error:
        raise MachineError(
            f"{error.filename or work}: cannot be written: {error.strerror}; choose another --out"
        ) from None
    with lock:
        if not _lock(lock.fileno()):
            raise MachineError(f"{out}: another import into it is running; wait for it to end")
        try:
            _clean(work, out)
            (work / "new").mkdir()
            yield work / "new"
        finally:
            _clean(work, out)
            (work / "lock").unlink(missing_ok=True)
            with suppress(OSError):
                work.rmdir()


def find_existing(out: Path) -> Dataset | None:
    """The data set that is at `out`, none where nothing is.

    Raises:
        InputError: Something is there that `pneumo data import` did not make, or a data set that cannot be read.
    """
    refuse_foreign(out)
    if not out.exists() or not any(out.iterdir()):
        return None
    try:
        return manifest.read_dataset(out)
    except InputError as error:
        raise InputError(f"{error}; --force replaces it") from None


def refuse_foreign(out: Path) -> None:
    """Refuse a folder that holds anything `pneumo data import` did not make: it is never deleted.

    Raises:
        InputError: Names what is there.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out}: a file is there; choose another --out")
    entries = sorted(entry.name for entry in out.iterdir())
    foreign = [name for name in entries if name not in _OURS and not name.startswith(_CACHE_PREFIX)]
    if not foreign and entries and not {MANIFEST, DATASET} <= set(entries):
        foreign = entries
    if foreign:
        raise InputError(
            f"{out}: holds {foreign[0]!r}, which is no part of a pneumo data set; move it away or choose another --out"
        )


def is_same_dataset(old: Dataset, new: Dataset) -> bool:
    """Whether two data sets are the same, byte for byte."""
    names = [MANIFEST, DATASET, DIGESTS, *(row.image for row in new.rows)]
    _, different, missing = filecmp.cmpfiles(old.folder, new.folder, names, shallow=False)
    return old.info.fingerprint == new.info.fingerprint and not different and not missing


def publish(new: Path, out: Path) -> None:
    """Put a finished folder at `out`, in place of the data set that is there."""
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


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0  # the one that held it has removed the file
