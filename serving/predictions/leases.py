"""Who may do what only one of many processes shall do: a lease in the database that they share."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pneumo.serving.predictions.log_tables import leases
from pneumo.serving.predictions.store import LogStore

Clock = Callable[[], datetime]


class Lease:
    """Held by one process at a time, which must take it again before it ends; one that died loses it by time."""

    def __init__(
        self, store: LogStore, name: str, holder: str, *, lasts: timedelta, clock: Clock | None = None
    ) -> None:
        """Take nothing yet.

        Args:
            store: The database, with its tables made.
            name: What it is about, at most 50 characters.
            holder: Who asks, at most 64 characters: another word for every process.
            lasts: How long it is held after it was taken.
            clock: Tells the time. By default that of the database's machine, since clocks of replicas differ.
        """
        self.name = name
        self.holder = holder
        self._engine = store.engine
        self._lasts = lasts
        self._clock = clock

    def take(self) -> bool:
        """Take the lease, or hold it longer where it is held already.

        Returns:
            Whether it is held now.

        Raises:
            SQLAlchemyError: The database is away; what was held may be lost.
        """
        with self._engine.begin() as connection:
            now = self._now(connection)
            dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
            insert = dialect.insert(leases).values(name=self.name, holder=self.holder, until=now + self._lasts)
            taken = insert.on_conflict_do_update(
                index_elements=["name"],
                set_={"holder": insert.excluded.holder, "until": insert.excluded.until},
                where=sa.or_(leases.c.holder == self.holder, leases.c.until <= now),
            ).returning(leases.c.name)
            return connection.execute(taken).first() is not None

    def release(self) -> None:
        """Let another have it at once; nothing where it is not held.

        Raises:
            SQLAlchemyError: The database is away; it ends by time.
        """
        mine = sa.and_(leases.c.name == self.name, leases.c.holder == self.holder)
        with self._engine.begin() as connection:
            connection.execute(leases.delete().where(mine))

    def _now(self, connection: sa.Connection) -> datetime:
        if self._clock:
            return self._clock()
        if self._engine.dialect.name != "postgresql":
            return datetime.now(UTC)  # the file is on this machine
        found: datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        return found.astimezone(UTC)
