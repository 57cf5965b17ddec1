"""Rows on disk for as long as the database is away."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import batched
from pathlib import Path
from typing import Any, TextIO

from pneumo.serving.predictions.rows import LogRow, parse_row

_SUFFIX = ".jsonl"


class Spool:
    """Files of rows, a line a row, that are read back; each process writes its own.

    A line that was cut off when its process was killed is passed over; rows have ids, so that a file that is read
    twice does no harm.
    """

    def __init__(self, folder: Path) -> None:
        """Name the folder; it is made with the first row."""
        self.folder = folder
        self._file: Any = None
        self._lock = threading.Lock()

    def add(self, rows: Sequence[LogRow]) -> None:
        """Write rows to disk, and be sure of it.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        with self._lock:
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._file = (self.folder / f"{rows[0].id}{_SUFFIX}").open("a", encoding="ascii")
                fcntl.flock(self._file, fcntl.LOCK_EX)
            self._file.write("".join(row.to_json() + "\n" for row in rows))
            self._file.flush()
            os.fsync(self._file.fileno())

    def waiting(self) -> bool:
        """Whether there are rows on disk."""
        return bool(self._files())

    def drain(self, take: Callable[[list[dict[str, Any]]], None], size: int) -> None:
        """Hand all rows on, `size` at a time, and delete each file whose rows were taken.

        Args:
            take: Takes the columns of rows; what it raises ends the draining, and the file stays.
            size: Rows at a time.
        """
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
        for path in self._files():
            with (
                contextlib.suppress(FileNotFoundError, BlockingIOError),
                path.open(encoding="ascii", errors="replace") as file,
            ):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not a file that another process still writes
                for rows in batched(_read(file), size):
                    take(list(rows))
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{_SUFFIX}"))


def _read(file: TextIO) -> Iterator[dict[str, Any]]:
    for line in file:
        try:
            yield parse_row(line)
        except (ValueError, KeyError, TypeError):
            continue  # cut off
