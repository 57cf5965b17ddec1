"""The tables of the prediction log, for SQLite and PostgreSQL."""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from pneumo.serving.predictions.rows import DESCRIPTORS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UtcTime(TypeDecorator[datetime]):
    """A time as whole microseconds since 1970: exact, and the same in every database."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        """Convert a time for the database."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> datetime | None:
        """Convert a value of the database to a time."""
        return None if value is None else _EPOCH + value * _MICROSECOND


metadata = MetaData()


def _required(**types: TypeEngine[Any] | type[TypeEngine[Any]]) -> list[Column[Any]]:
    return [Column(name, kind, nullable=False) for name, kind in types.items()]


predictions = Table(
    "predictions",
    metadata,
    Column("id", String(32), primary_key=True),
    *_required(time=UtcTime, request_id=String(64), image_index=Integer, model=String(100), version=String(100)),
    *_required(lane=String(20), format=String(20), **dict.fromkeys(DESCRIPTORS, Float), embedding=LargeBinary),
    *_required(label=Text, probability=Float, certain=Boolean, in_distribution=Boolean, outlier_score=Float),
    *_required(latency_ms=Float),
    Column("site", String(100)),
    Index("predictions_by_time", "time"),
    Index("predictions_by_version", "model", "version", "time"),
    Index("predictions_by_request", "request_id", "image_index"),
)
"""One row per image."""

feedback = Table(
    "feedback",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("image_index", Integer, primary_key=True),
    *_required(label=Text, time=UtcTime),
)
"""Ground-truth labels that arrived later: the last one of each image."""

has_feedback = sa.and_(
    feedback.c.request_id == predictions.c.request_id, feedback.c.image_index == predictions.c.image_index
)
"""Join condition of `predictions` and `feedback`."""

checks = Table(
    "checks",
    metadata,
    Column("id", String(32), primary_key=True),
    *_required(time=UtcTime, model=String(100), version=String(100), verdict=String(10), document=Text),
    Column("report", LargeBinary),
    Index("checks_by_time", "time"),
)
"""Drift checks: the verdict as JSON; for the newest ones also Evidently's page, gzipped."""

leases = Table(
    "leases",
    metadata,
    Column("name", String(50), primary_key=True),
    *_required(holder=String(64), until=UtcTime),
)
"""Work that only one replica at a time may do: the replica that holds it, and until when."""


def start_of_interval(time: Column[datetime], length: timedelta) -> sa.ColumnElement[datetime]:
    """Round a time down to a whole multiple of a length since 1970, in the database."""
    # A literal, since PostgreSQL takes two bound parameters in SELECT and GROUP BY for two expressions.
    step = sa.literal_column(str(length // _MICROSECOND), sa.BigInteger)
    return sa.type_coerce(sa.type_coerce(time, sa.BigInteger) // step * step, UtcTime)
