"""Queries for windows of the prediction log.

Every function raises `SQLAlchemyError` if the database cannot be reached or holds no log.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from pneumo.serving.predictions.log_tables import feedback, has_feedback, predictions
from pneumo.serving.predictions.rows import DESCRIPTORS, Columns
from pneumo.serving.predictions.store import LogStore

_ANSWER = ("probability", "outlier_score", "label", "certain", "in_distribution", "embedding", "site")
JUDGED = ("time", *DESCRIPTORS, *_ANSWER)
"""Columns that a drift check reads."""

MOST = 50_000
"""Maximum rows of a window."""

CHUNK = 2000


@dataclass(frozen=True)
class Window:
    """A selection of rows, from `since` to before `until`, at most the `last` newest ones; None takes every value."""

    model: str | None = None
    version: str | None = None
    lane: str | None = "champion"
    since: datetime | None = None
    last: int = MOST
    until: datetime | None = None
    site: str | None = None

    def match(self, table: sa.Table = predictions) -> sa.ColumnElement[bool]:
        """Return the condition on rows of a table that has columns of these names."""
        given = {"model": self.model, "version": self.version, "lane": self.lane, "site": self.site}
        conditions = [table.c[name] == value for name, value in given.items() if value is not None]
        if self.since is not None:
            conditions.append(table.c.time >= self.since)
        if self.until is not None:
            conditions.append(table.c.time < self.until)
        return sa.and_(sa.true(), *conditions)


def read_window(store: LogStore, window: Window) -> list[Columns]:
    """Read the `JUDGED` columns of a window, oldest row first."""
    query = (
        sa.select(*(predictions.c[name] for name in JUDGED))
        .where(window.match())
        .order_by(predictions.c.time.desc(), predictions.c.id)
        .limit(window.last)
    )
    with store.engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()][::-1]


def count_rows(store: LogStore, window: Window, *, most: int | None = None) -> int:
    """Count the rows of a window without regard to its `last`, up to `most` of them."""
    rows = sa.select(predictions.c.id).where(window.match()).limit(most).subquery()
    with store.engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(rows)).scalar_one()


def read_labelled(store: LogStore, window: Window) -> Iterator[list[Columns]]:
    """Yield all columns of a window in chunks, oldest first, the ground truth or None as `true_label`; no `last`."""
    query = (
        sa.select(predictions, feedback.c.label.label("true_label"))
        .select_from(predictions.outerjoin(feedback, has_feedback))
        .where(window.match())
        .order_by(predictions.c.time, predictions.c.id)
    )
    with store.engine.connect().execution_options(yield_per=CHUNK) as connection:
        for chunk in connection.execute(query).mappings().partitions():
            yield [dict(row) for row in chunk]
