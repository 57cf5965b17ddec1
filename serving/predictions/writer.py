"""Writes the prediction log from a thread of its own, so that requests do not wait for the database."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from pneumo.serving.predictions.rows import LogRow
from pneumo.serving.predictions.spool import Spool
from pneumo.serving.predictions.store import LogStore, describe_error, is_damage

BATCH = 500
"""Maximum rows of one transaction."""
WAITING = 20_000
"""Maximum rows in memory, about 20 MB: far more than arrive while a batch is written or spooled."""
UNMADE = 1000
"""Maximum rows in memory for a row to be added unbuilt, with an image of up to 50 KB that it is built from."""
GATHER_S = 0.25
"""Seconds to gather rows before they are written: a transaction costs about as much as a hundred rows."""
RETRY_S = 2.0
"""Seconds between two attempts to reach the database."""
TRIM_S = 600.0

_AWAY = "cannot be reached (%s); rows are spooled to %s"
_DAMAGED = (
    "is damaged (%s); rows are spooled to %s. Move it away, for SQLite with its -wal and -shm files, or restore a "
    "backup in its place: a new one is made, and the spooled rows are written into it; no restart is needed"
)

MakeRow = Callable[[], LogRow]

_log = logging.getLogger("pneumo.log")


class LogWriter:
    """Takes rows at once and writes them from a thread: to the database, or to the spool while that is away.

    A row that `put` took is lost only if the process dies within `GATHER_S`, or if neither database nor disk can be
    written.
    """

    def __init__(
        self,
        store: LogStore,
        spool: Spool,
        *,
        keep_days: float | None = None,
        keep_rows: int | None = None,
        dropped: Callable[[int], object] = lambda count: None,
        written: Callable[[int], object] = lambda count: None,
        away: Callable[[bool], object] = lambda away: None,
    ) -> None:
        """Start the thread.

        `dropped` and `written` are called with numbers of rows that were lost or stored, `away` with whether the
        database cannot be written: at the start, and whenever that changes.
        """
        self._store = store
        self._spool = spool
        self._keep_days = keep_days
        self._keep_rows = keep_rows
        self._dropped = dropped
        self._written = written
        self._tell_away = away
        away(False)
        self._rows: queue.SimpleQueue[LogRow | MakeRow | None] = queue.SimpleQueue()
        self._ends = threading.Event()
        self._away_until = 0.0
        self._away = False
        self._trimmed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of rows in memory, neither in the database nor in the spool."""
        return self._rows.qsize()

    @property
    def is_away(self) -> bool:
        """True if the last attempt to reach the database failed."""
        return self._away

    def put(self, row: LogRow | MakeRow) -> bool:
        """Queue a row, or a function that builds it in the writer's thread, without waiting for the database.

        Returns False if the row was dropped, because `WAITING` rows are queued.
        """
        waiting = self._rows.qsize()
        if waiting >= WAITING:
            self._dropped(1)
            return False
        self._rows.put(row() if callable(row) and waiting >= UNMADE else row)
        return True

    def close(self) -> None:
        """Write the queued rows and end the thread."""
        self._rows.put(None)
        self._ends.set()
        self._thread.join()
        self._store.engine.dispose()

    def _run(self) -> None:
        ends = False
        while not ends:
            rows, ends = self._gather_rows()
            if rows:
                self._write(rows)
            elif self._spool.has_rows():
                self._reach_database()
            self._trim()

    def _gather_rows(self) -> tuple[list[LogRow], bool]:
        """Return the rows that arrive within `GATHER_S` of the first one, and True if `close` was called."""
        rows: list[LogRow] = []
        try:
            row = self._rows.get(timeout=RETRY_S)
            if row is not None and self._rows.qsize() < BATCH:
                self._ends.wait(GATHER_S)  # waking for each row would take the interpreter from request threads
            while row is not None:
                if built := self._build(row):
                    rows.append(built)
                if len(rows) == BATCH:
                    return rows, False
                row = self._rows.get_nowait()
        except queue.Empty:
            return rows, False
        return rows, True

    def _build(self, row: LogRow | MakeRow) -> LogRow | None:
        if isinstance(row, LogRow):
            return row
        try:
            return row()
        except Exception as error:  # one image must not end the log; the message could quote the image
            _log.error("a row of the prediction log is lost: %s", type(error).__name__)
            self._dropped(1)
            return None

    def _write(self, rows: list[LogRow]) -> None:
        if self._reach_database():
            try:
                self._store.add([row.values() for row in rows])
                self._written(len(rows))
                return
            except SQLAlchemyError as error:
                self._report_away(error)
        try:
            self._spool.add(rows)
        except OSError as error:
            _log.error("%d rows of the prediction log are lost: %s", len(rows), describe_error(error))
            self._dropped(len(rows))

    def _reach_database(self) -> bool:
        """Return True if the database can be written; drain the spool into it first."""
        if time.monotonic() < self._away_until:
            return False
        try:
            self._store.prepare()
            if self._spool.has_rows():
                self._spool.drain(self._store.add, BATCH)
        except (SQLAlchemyError, OSError) as error:
            self._report_away(error)
            return False
        if self._away:
            _log.warning("the prediction log's database %s is back", self._store.shown)
            self._away = False
            self._tell_away(False)
        return True

    def _report_away(self, error: SQLAlchemyError | OSError) -> None:
        self._store.reconnect()
        if not self._away:
            words = (self._store.shown, describe_error(error), self._spool.folder)
            _log.error(f"the prediction log's database %s {_DAMAGED if is_damage(error) else _AWAY}", *words)
            self._tell_away(True)
        self._away, self._away_until = True, time.monotonic() + RETRY_S

    def _trim(self) -> None:
        if (self._keep_days is None and self._keep_rows is None) or time.monotonic() - self._trimmed < TRIM_S:
            return
        self._trimmed = time.monotonic()
        before = None if self._keep_days is None else datetime.now(UTC) - timedelta(days=self._keep_days)
        try:
            self._store.trim(before=before, most=self._keep_rows)
        except SQLAlchemyError as error:
            self._report_away(error)
