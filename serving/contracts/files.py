"""Atomic writes of files and folders, and file locks."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


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
def replace_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; when the block ends without an error it replaces the folder there."""
    partial = target.with_name(f".{target.name}-{os.getpid()}-{secrets.token_hex(2)}")
    partial.mkdir(parents=True)
    try:
        yield partial
        if target.exists():
            target.rename(old := target.with_name(f"{partial.name}-old"))
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
