"""Atomic writes of files and folders, and file locks."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pneumo.serving.contracts.errors import MachineError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a new path beside `path`; move what was written there to `path` when the block ends without an error.

    A reader sees the old content or the new one, never half of it. After an error the new file is removed.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(2)}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def stage_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`, under a lock; remove it at the end unless it was published.

    What a killed process left there is removed first; a folder that it had moved aside is moved back. Git ignores all
    of it, since it may hold images of patients.

    Raises:
        MachineError: Another process is writing the target, or its place cannot be written.
    """
    work = target.parent / f".{target.name}.writing"
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = open_locked(work / "lock")
        if os.fstat(lock.fileno()).st_nlink == 0:  # the process that had the lock has just removed its file
            lock.close()
            raise BlockingIOError
    except BlockingIOError:
        raise MachineError(f"{target}: another process is writing it; wait for it to end") from None
    except OSError as error:
        raise MachineError(
            f"{error.filename or work}: cannot be written: {error.strerror}; choose another --out"
        ) from None
    with lock:
        try:
            _clean(work, target)
            (work / ".gitignore").write_text("*\n", encoding="utf-8")
            (work / "new").mkdir()
            yield work / "new"
        finally:
            _clean(work, target)
            for name in (".gitignore", "lock"):
                (work / name).unlink(missing_ok=True)
            with suppress(OSError):  # another process may have taken the lock meanwhile
                work.rmdir()


def publish_folder(new: Path, target: Path) -> None:
    """Move a finished folder of `stage_folder` to its target, in place of the folder there."""
    if target.exists():
        target.rename(new.parent / "old")
    new.rename(target)


def _clean(work: Path, target: Path) -> None:
    old = work / "old"
    if old.exists() and not target.exists():
        old.rename(target)  # a process was killed between the two renames of publish_folder()
    for folder in (old, work / "new"):
        if folder.exists():
            shutil.rmtree(folder)


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder, as `stage_folder` does; it replaces `target` when the block ends without an error."""
    with stage_folder(target) as new:
        yield new
        publish_folder(new, target)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def open_locked(path: Path, *, wait: bool = False, mode: int = 0o644) -> IO[bytes]:
    """Open a file for reading and appending under an exclusive lock; closing it frees the lock.

    The system frees the lock when the process ends, also after a crash.

    Args:
        path: The file; it is created if it is missing.
        wait: Wait for another holder to release the lock.
        mode: Permissions of a new file.

    Raises:
        BlockingIOError: Another process holds the lock, and `wait` is false.
        OSError: The file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
    file = os.fdopen(descriptor, "ab+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        file.close()
        raise
    return file
