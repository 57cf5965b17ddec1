"""Writes the prediction log off the path of requests."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from pneumo.serving.predictions.rows import LogRow
from pneumo.serving.predictions.spool import Spool
from pneumo.serving.predictions.store import LogStore, describe_error

BATCH = 500
"""Rows written in one transaction at most."""
WAITING = 20_000
"""Rows in memory at most, about 20 MB: far more than come while a batch is written or spooled."""
UNMADE = 1000
"""Rows in memory up to which one may come that is still to be made, with an image of up to 50 KB that it is made of."""
GATHER_S = 0.25
"""Seconds that rows gather before they are written: a transaction costs about as much as a hundred rows."""
RETRY_S = 2.0
"""Seconds between two attempts to reach a database that is away."""
TRIM_S = 600.0

MakeRow = Callable[[], LogRow]

_log = logging.getLogger("pneumo.log")


class LogWriter:
    """Takes rows at once and writes them from a thread: to the database, or to disk while that is away.

    A row that `put` took is lost only with the process, and then at most those of the last `GATHER_S`, or where neither
    database nor disk can be written.
    """

    def __init__(
        self,
        store: LogStore,
        spool: Spool,
        *,
        keep_days: float | None = None,
        keep_rows: int | None = None,
        dropped: Callable[[int], object] | None = None,
        written: Callable[[int], object] | None = None,
    ) -> None:
        """Start the thread.

        Args:
            store: Where rows belong.
            spool: Where they wait while the store is away.
            keep_days: Older rows are deleted.
            keep_rows: The oldest rows beyond are deleted.
            dropped: Told how many rows were lost.
            written: Told how many rows the database took.
        """
        self._store = store
        self._spool = spool
        self._keep_days = keep_days
        self._keep_rows = keep_rows
        self._dropped = dropped or (lambda count: None)
        self._written = written or (lambda count: None)
        self._rows: queue.SimpleQueue[LogRow | MakeRow | None] = queue.SimpleQueue()
        self._ends = threading.Event()
        self._away_until = 0.0
        self._away = False
        self._prepared = False
        self._trimmed = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that are neither in the database nor on disk yet."""
        return self._rows.qsize()

    @property
    def is_away(self) -> bool:
        """Whether the database could not be reached at the last attempt."""
        return self._away

    def put(self, row: LogRow | MakeRow) -> bool:
        """Take a row, or what makes it in the writer's thread; never waits for the database.

        Returns:
            Whether it was taken: not where `WAITING` others are.
        """
        waiting = self._rows.qsize()
        if waiting >= WAITING:
            self._dropped(1)
            return False
        self._rows.put(row() if callable(row) and waiting >= UNMADE else row)
        return True

    def close(self) -> None:
        """Write what was taken, and end."""
        self._rows.put(None)
        self._ends.set()
        self._thread.join()
        self._store.engine.dispose()

    def _work(self) -> None:
        ends = False
        while not ends:
            rows, ends = self._gather()
            if rows:
                self._write(rows)
            elif self._spool_waits():
                self._reach()
            self._trim()

    def _gather(self) -> tuple[list[LogRow], bool]:
        """What came within `GATHER_S` of a first row, and whether that was the last."""
        rows: list[LogRow] = []
        try:
            first = self._rows.get(timeout=RETRY_S)
        except queue.Empty:
            return rows, False
        if first is not None and self._rows.qsize() < BATCH:
            self._ends.wait(GATHER_S)  # a thread that woke for every row would take the interpreter from who answers
        row: LogRow | MakeRow | None = first
        while row is not None:
            if made := self._made(row):
                rows.append(made)
            if len(rows) == BATCH:
                return rows, False
            try:
                row = self._rows.get_nowait()
            except queue.Empty:
                return rows, False
        return rows, True

    def _made(self, row: LogRow | MakeRow) -> LogRow | None:
        if isinstance(row, LogRow):
            return row
        try:
            return row()
        except Exception as error:  # one image must not end the log; what it says could quote the image
            _log.error("a row of the prediction log is lost: %s", type(error).__name__)
            self._dropped(1)
            return None

    def _write(self, rows: list[LogRow]) -> None:
        if self._reach():
            try:
                self._store.add([row.values() for row in rows])
            except SQLAlchemyError as error:
                self._gone(error)
            else:
                self._written(len(rows))
                return
        try:
            self._spool.add(rows)
        except OSError as error:
            _log.error("%d rows of the prediction log are lost: %s", len(rows), describe_error(error))
            self._dropped(len(rows))

    def _reach(self) -> bool:
        """Whether the database can be written; brings it what waits on disk."""
        if time.monotonic() < self._away_until:
            return False
        try:
            if not self._prepared:
                self._store.prepare()
                self._prepared = True
            if self._spool_waits():
                self._spool.drain(self._store.add, BATCH)
        except (SQLAlchemyError, OSError) as error:
            self._gone(error)
            return False
        if self._away:
            _log.warning("the prediction log's database %s is back", self._store.shown)
            self._away = False
        return True

    def _gone(self, error: SQLAlchemyError | OSError) -> None:
        if not self._away:
            _log.error(
                "the prediction log's database %s is away (%s); rows wait in %s",
                self._store.shown,
                describe_error(error),
                self._spool.folder,
            )
        self._away, self._away_until = True, time.monotonic() + RETRY_S

    def _spool_waits(self) -> bool:
        try:
            return self._spool.waiting()
        except OSError:
            return False

    def _trim(self) -> None:
        if (self._keep_days is None and self._keep_rows is None) or time.monotonic() - self._trimmed < TRIM_S:
            return
        self._trimmed = time.monotonic()
        before = None if self._keep_days is None else datetime.now(UTC) - timedelta(days=self._keep_days)
        try:
            self._store.trim(before=before, most=self._keep_rows)
        except SQLAlchemyError as error:
            self._gone(error)
