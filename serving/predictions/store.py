"""The database of the prediction log: SQLite in a file, or PostgreSQL for replicas that share it."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pneumo.serving.contracts.errors import InputError, MachineError
from pneumo.serving.contracts.install_hints import missing_module
from pneumo.serving.predictions.log_tables import feedback, metadata, predictions

_TIMEOUT_S = 5
"""Seconds to wait for a connection, and in SQLite for another writer."""

_POSTGRES = ("postgresql", "postgres")


class LogStore:
    """Reads and writes the prediction log; threads and processes may share the database."""

    def __init__(self, url: str) -> None:
        """Name the database; nothing is opened yet.

        Args:
            url: `sqlite:///predictions.sqlite3`, or `postgresql://user:password@host/name`.

        Raises:
            InputError: Another kind of address.
            MachineError: The driver is not installed.
        """
        self.engine = _engine(url)
        self.shown = self.engine.url.render_as_string(hide_password=True)

    def prepare(self) -> None:
        """Make what is missing of the tables; several replicas may do so at once.

        Raises:
            SQLAlchemyError: The database cannot be reached or written.
        """
        if self.engine.dialect.name == "sqlite":
            Path(self.engine.url.database or "").parent.mkdir(parents=True, exist_ok=True)
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(20261124)"))
            metadata.create_all(connection)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows, each the columns of `predictions`; those that are there already stay as they are.

        Raises:
            SQLAlchemyError: They were not written, none of them.
        """
        if not rows:
            return
        with self.engine.begin() as connection:
            connection.execute(self._insert(predictions).on_conflict_do_nothing(), list(rows))

    def add_feedback(self, labels: Sequence[tuple[str, int, str]], now: datetime) -> None:
        """Write true labels: request id, place of the image in it, label. A later word on the same image replaces it.

        Raises:
            SQLAlchemyError: They were not written, none of them.
        """
        if not labels:
            return
        insert = self._insert(feedback)
        insert = insert.on_conflict_do_update(
            index_elements=["request_id", "image_index"],
            set_={"label": insert.excluded.label, "time": insert.excluded.time},
        )
        rows = [
            {"request_id": request_id, "image_index": index, "label": label, "time": now}
            for request_id, index, label in labels
        ]
        with self.engine.begin() as connection:
            connection.execute(insert, rows)

    def trim(self, *, before: datetime | None = None, most: int | None = None) -> int:
        """Delete old rows: those before a moment, and the oldest beyond a number.

        Returns:
            How many rows went.
        """
        gone = 0
        with self.engine.begin() as connection:
            if before is not None:
                gone += connection.execute(predictions.delete().where(predictions.c.time < before)).rowcount
            if most is not None:
                edge = connection.execute(
                    sa.select(predictions.c.time).order_by(predictions.c.time.desc()).offset(most).limit(1)
                ).scalar()
                if edge is not None:
                    gone += connection.execute(predictions.delete().where(predictions.c.time <= edge)).rowcount
            if gone:
                known = sa.select(predictions.c.request_id)
                connection.execute(feedback.delete().where(feedback.c.request_id.not_in(known)))
        return gone

    def _insert(self, table: sa.Table) -> Any:
        return (postgresql if self.engine.dialect.name == "postgresql" else sqlite).insert(table)


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InputError("the log's address is no URL; give sqlite:///FILE or postgresql://USER@HOST/NAME") from None
    kind = parsed.drivername.partition("+")[0]
    if kind == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise InputError("the log's address names no file; give sqlite:///predictions.sqlite3")
        engine = sa.create_engine(parsed, connect_args={"timeout": _TIMEOUT_S})
        event.listen(engine, "connect", _set_up_sqlite)
        return engine
    if kind not in _POSTGRES:
        raise InputError(f"the log's address begins with {kind}; give sqlite:///FILE or postgresql://USER@HOST/NAME")
    try:
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            connect_args={"connect_timeout": _TIMEOUT_S},
        )
    except ModuleNotFoundError as error:
        raise MachineError(missing_module(error)) from None


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute(
        "PRAGMA synchronous=NORMAL"
    )  # with WAL a crash of the machine may cost the last rows, never the file
    cursor.close()


def describe_error(error: SQLAlchemyError | OSError) -> str:
    """Say what is wrong with the database, without statement or values, which SQLAlchemy quotes."""
    cause = getattr(error, "orig", None) or error
    lines = str(cause).strip().splitlines() if isinstance(cause, Exception) else []
    return f"{type(cause).__name__}: {lines[0][:200]}" if lines else type(error).__name__
