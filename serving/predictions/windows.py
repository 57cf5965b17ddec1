"""Reads windows of the prediction log."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pneumo.serving.predictions.log_tables import feedback, predictions
from pneumo.serving.predictions.rows import DESCRIPTORS
from pneumo.serving.predictions.store import LogStore

JUDGED = (
    "time",
    *DESCRIPTORS,
    "probability",
    "outlier_score",
    "label",
    "certain",
    "in_distribution",
    "embedding",
)
"""Columns that a drift check takes."""

MOST = 50_000
"""Rows of a window at most, the newest."""

CHUNK = 2000


@dataclass(frozen=True)
class Window:
    """Which rows of the log.

    Attributes:
        model: Of one model alone, by name.
        version: Of one version of it alone.
        lane: What the model was there for; None takes every lane.
        since: Not before this moment.
        last: The newest of them, so many at most.
    """

    model: str | None = None
    version: str | None = None
    lane: str | None = "champion"
    since: datetime | None = None
    last: int = MOST

    @property
    def where(self) -> list[sa.ColumnElement[bool]]:
        """As conditions on rows of `predictions`."""
        table = predictions.c
        given = ((table.model, self.model), (table.version, self.version), (table.lane, self.lane))
        found: list[sa.ColumnElement[bool]] = [column == value for column, value in given if value is not None]
        return found if self.since is None else [*found, table.time >= self.since]


def read_window(store: LogStore, window: Window, columns: Sequence[str] = JUDGED) -> list[dict[str, Any]]:
    """Rows of a window, oldest first.

    Args:
        store: The log.
        window: Which rows.
        columns: Which columns of `predictions`.

    Raises:
        SQLAlchemyError: The database is away, or holds no log.
    """
    query = (
        sa.select(*(predictions.c[name] for name in columns))
        .where(*window.where)
        .order_by(predictions.c.time.desc(), predictions.c.id)
        .limit(window.last)
    )
    with store.engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()][::-1]


def count_rows(store: LogStore, window: Window) -> int:
    """How many rows a window has, whatever its `last`.

    Raises:
        SQLAlchemyError: As for `read_window`.
    """
    query = sa.select(sa.func.count()).select_from(predictions).where(*window.where)
    with store.engine.connect() as connection:
        return connection.execute(query).scalar_one()


def read_labelled(store: LogStore, window: Window) -> Iterator[list[dict[str, Any]]]:
    """All columns of a window, whatever its `last`, oldest first, with the true label where one came.

    Returns:
        Rows in chunks, each with `true_label` besides the columns of `predictions`.

    Raises:
        SQLAlchemyError: As for `read_window`.
    """
    table = predictions.c
    joined = predictions.outerjoin(
        feedback, sa.and_(feedback.c.request_id == table.request_id, feedback.c.image_index == table.image_index)
    )
    query = (
        sa.select(predictions, feedback.c.label.label("true_label"))
        .select_from(joined)
        .where(*window.where)
        .order_by(table.time, table.id)
    )
    with store.engine.connect().execution_options(yield_per=CHUNK) as connection:
        for chunk in connection.execute(query).mappings().partitions():
            yield [dict(row) for row in chunk]
