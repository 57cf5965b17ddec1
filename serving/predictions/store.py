"""The database of the prediction log: SQLite in a file, or PostgreSQL for replicas that share it."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DisconnectionError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateColumn

from pneumo.serving.contracts.errors import InputError, MachineError, first_line
from pneumo.serving.contracts.install_hints import missing_module
from pneumo.serving.predictions.log_tables import feedback, metadata, predictions
from pneumo.serving.predictions.rows import Columns

_TIMEOUT_S = 5
"""Seconds to wait for a connection, and in SQLite for another writer."""
_DAMAGED = ("XX001", "XX002")
"""PostgreSQL's codes of damaged tables and indexes."""
_EXPECTED = "give sqlite:///FILE or postgresql://USER@HOST/NAME"


class LogStore:
    """Reads and writes the prediction log; threads and processes may share the database.

    Methods raise `SQLAlchemyError` if the database cannot be reached or written; nothing is written then.
    """

    def __init__(self, url: str) -> None:
        """Name the database without connecting to it.

        Args:
            url: `sqlite:///predictions.sqlite3`, or `postgresql://user:password@host/name`.

        Raises:
            InputError: The URL is of another kind.
            MachineError: The driver is not installed.
        """
        self.engine = _create_engine(url)
        self.shown = self.engine.url.render_as_string(hide_password=True)
        self._prepared = False

    def prepare(self) -> None:
        """Create missing tables, and in a log of an older version missing columns and indexes; do it once.

        Several replicas may do so at once.
        """
        if self._prepared:
            return
        if is_sqlite := self.engine.dialect.name == "sqlite":
            Path(self.engine.url.database or "").parent.mkdir(parents=True, exist_ok=True)
        with self.engine.begin() as connection:
            connection.execute(sa.text("BEGIN IMMEDIATE" if is_sqlite else "SELECT pg_advisory_xact_lock(20261124)"))
            metadata.create_all(connection)
            for table in metadata.sorted_tables:
                present = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
                for column in (column for column in table.columns if column.name not in present):
                    definition = CreateColumn(column).compile(connection)
                    connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
                for index in table.indexes:
                    index.create(connection, checkfirst=True)
        self._prepared = True

    def reconnect(self) -> None:
        """Begin anew after an error: the database may be another one when it is reached again."""
        self._prepared = False
        self.engine.dispose()

    def add(self, rows: Sequence[Columns]) -> None:
        """Insert rows of `predictions` in one transaction; rows that exist stay as they are."""
        if rows:
            with self.engine.begin() as connection:
                connection.execute(self.insert(predictions).on_conflict_do_nothing(), rows)

    def add_feedback(self, labels: Sequence[tuple[str, int, str]], now: datetime) -> None:
        """Insert ground truth as request id, image index and label; replace the earlier label of an image."""
        if not labels:
            return
        insert = self.insert(feedback)
        insert = insert.on_conflict_do_update(
            index_elements=["request_id", "image_index"],
            set_={"label": insert.excluded.label, "time": insert.excluded.time},
        )
        rows = [dict(zip(feedback.c.keys(), (*label, now), strict=True)) for label in labels]
        with self.engine.begin() as connection:
            connection.execute(insert, rows)

    def trim(self, *, before: datetime | None = None, most: int | None = None) -> int:
        """Delete rows older than a time, then the oldest rows beyond a number; return how many."""
        deleted = 0
        with self.engine.begin() as connection:
            if before is not None:
                deleted += connection.execute(predictions.delete().where(predictions.c.time < before)).rowcount
            edge = None if most is None else find_edge(connection, predictions.c.time, most)
            if edge is not None:
                deleted += connection.execute(predictions.delete().where(predictions.c.time <= edge)).rowcount
            if deleted:
                kept = sa.select(predictions.c.request_id)
                connection.execute(feedback.delete().where(feedback.c.request_id.not_in(kept)))
        return deleted

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise a database error in the block as a `MachineError` of one line."""
        try:
            yield
        except SQLAlchemyError as error:
            raise MachineError(f"{self.shown}: {describe_error(error)}") from None

    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """Return an INSERT that knows ON CONFLICT, which SQLAlchemy has for each database apart."""
        is_postgresql = self.engine.dialect.name == "postgresql"
        return postgresql.insert(table) if is_postgresql else sqlite.insert(table)


def find_edge(
    connection: sa.Connection, time: sa.Column[datetime], most: int, *where: sa.ColumnElement[bool]
) -> datetime | None:
    """Return the time of the newest row beyond the newest `most` rows; None if there are no more."""
    return connection.execute(sa.select(time).where(*where).order_by(time.desc()).offset(most).limit(1)).scalar()


def _create_engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InputError(f"the log's address is no URL; {_EXPECTED}") from None
    kind = parsed.drivername.partition("+")[0]
    if kind == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise InputError("the log's address names no file; give sqlite:///predictions.sqlite3")
        engine = sa.create_engine(parsed, connect_args={"timeout": _TIMEOUT_S})
        event.listen(engine, "connect", _set_up_sqlite)
        file = Path(parsed.database)
        event.listen(engine, "connect", lambda _, record: record.info.update(file=_identify_file(file)))
        event.listen(engine, "checkout", partial(_check_file, file))
        return engine
    if kind not in ("postgresql", "postgres"):
        raise InputError(f"the log's address begins with {kind}; {_EXPECTED}")
    try:
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            connect_args={"connect_timeout": _TIMEOUT_S},
        )
    except ModuleNotFoundError as error:
        raise MachineError(missing_module(error)) from None


def _set_up_sqlite(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")  # with WAL a power cut may cost the last rows, never the file
    cursor.close()


def _identify_file(file: Path) -> tuple[int, int] | None:
    """Return device and inode of a file; None if there is none."""
    with suppress(OSError):
        status = file.stat()
        return status.st_dev, status.st_ino
    return None


def _check_file(file: Path, _connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Refuse a pooled connection whose file was moved away, so that a new one is opened: its rows would be lost."""
    if record.info["file"] != _identify_file(file):
        raise DisconnectionError


def is_damage(error: SQLAlchemyError | OSError) -> bool:
    """Return whether an error says that the database's files are damaged."""
    cause = getattr(error, "orig", None)
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or getattr(cause, "sqlstate", "") in _DAMAGED


def describe_error(error: SQLAlchemyError | OSError) -> str:
    """Describe a database error without the statement and values that SQLAlchemy quotes."""
    cause = getattr(error, "orig", None) or error
    name, line = type(cause).__name__, first_line(cause)
    return name if line == name else f"{name}: {line}"
