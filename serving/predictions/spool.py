"""The spool: files of rows that wait while the database cannot be reached."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import batched
from pathlib import Path
from typing import IO

from pneumo.serving.contracts.files import open_locked
from pneumo.serving.predictions.rows import Columns, LogRow, parse_row

_SUFFIX = ".jsonl"


class Spool:
    """A folder of JSON Lines files, one row per line; each process writes a file of its own.

    A line that was cut off by a kill is skipped. Rows have ids, so reading a file twice does no harm.
    """

    def __init__(self, folder: Path) -> None:
        """Name the folder; the first row creates it."""
        self.folder = folder
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()

    def add(self, rows: Sequence[LogRow]) -> None:
        """Append rows to this process's file and sync it to disk.

        Raises:
            OSError: The disk is full or not writable.
        """
        with self._lock:
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._file = open_locked(self.folder / f"{rows[0].id}{_SUFFIX}", wait=True)
            self._file.write("".join(row.to_json() + "\n" for row in rows).encode("ascii"))
            self._file.flush()
            os.fsync(self._file.fileno())

    def has_rows(self) -> bool:
        """Return True if rows wait on disk."""
        try:
            return any(self.folder.glob(f"*{_SUFFIX}"))
        except OSError:
            return False

    def drain(self, take: Callable[[list[Columns]], None], size: int) -> None:
        """Pass all rows to `take`, `size` at a time, and delete each file when its rows were taken.

        A file that another process still writes is left alone. An error of `take` keeps the file.
        """
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            with contextlib.suppress(BlockingIOError, FileNotFoundError), open_locked(path) as file:
                file.seek(0)
                for rows in batched(_read_rows(file), size):
                    take(list(rows))
                path.unlink(missing_ok=True)


def _read_rows(file: IO[bytes]) -> Iterator[Columns]:
    for line in file:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut off
            yield parse_row(line)
