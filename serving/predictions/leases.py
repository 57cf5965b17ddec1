"""Leases: a lock in the shared database, for work that only one of many processes may do."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from pneumo.serving.predictions.log_tables import leases
from pneumo.serving.predictions.store import LogStore


class Lease:
    """A lock that one process holds at a time and must renew; a process that died loses it when it expires.

    Methods raise `SQLAlchemyError` if the database cannot be reached; a lease that was held may then be lost.
    """

    def __init__(
        self, store: LogStore, name: str, holder: str, *, lasts: timedelta, clock: Callable[[], datetime] | None = None
    ) -> None:
        """Describe the lease of a named work (50 characters) for a unique `holder` (64), without taking it.

        The clock is by default that of the database's machine, since clocks of replicas differ.
        """
        self.name = name
        self.holder = holder
        self._store = store
        self._lasts = lasts
        self._clock = clock

    def take(self) -> bool:
        """Take or renew the lease; return True if it is held now."""
        with self._store.engine.begin() as connection:
            now = self._read_clock(connection)
            insert = self._store.insert(leases).values(name=self.name, holder=self.holder, until=now + self._lasts)
            taken = insert.on_conflict_do_update(
                index_elements=["name"],
                set_={"holder": insert.excluded.holder, "until": insert.excluded.until},
                where=sa.or_(leases.c.holder == self.holder, leases.c.until <= now),
            ).returning(leases.c.name)
            return connection.execute(taken).first() is not None

    def release(self) -> None:
        """Give the lease up if it is held."""
        with self._store.engine.begin() as connection:
            connection.execute(leases.delete().where(leases.c.name == self.name, leases.c.holder == self.holder))

    def _read_clock(self, connection: sa.Connection) -> datetime:
        if self._clock:
            return self._clock()
        if connection.dialect.name != "postgresql":
            return datetime.now(UTC)  # the file is on this machine
        now: datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        return now
