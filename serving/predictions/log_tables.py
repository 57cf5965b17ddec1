"""The tables of the prediction log, for SQLite and PostgreSQL."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.types import TypeDecorator

from pneumo.serving.predictions.rows import DESCRIPTORS


class UtcTime(TypeDecorator[datetime]):
    """A moment as microseconds since 1970: the same in every database, exact, and quick to compare."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        """To the database."""
        if value is None:
            return None
        since = value.astimezone(UTC) - _EPOCH
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> datetime | None:
        """From the database."""
        return None if value is None else datetime.fromtimestamp(value / 1e6, UTC)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

metadata = MetaData()

predictions = Table(
    "predictions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("image_index", Integer, nullable=False),
    Column("model", String(100), nullable=False),
    Column("version", String(100), nullable=False),
    Column("lane", String(20), nullable=False),
    Column("format", String(20), nullable=False),
    *(Column(name, Float, nullable=False) for name in DESCRIPTORS),
    Column("embedding", LargeBinary, nullable=False),
    Column("label", Text, nullable=False),
    Column("probability", Float, nullable=False),
    Column("certain", Boolean, nullable=False),
    Column("in_distribution", Boolean, nullable=False),
    Column("outlier_score", Float, nullable=False),
    Column("latency_ms", Float, nullable=False),
    Index("predictions_by_time", "time"),
    Index("predictions_by_version", "model", "version", "time"),
    Index("predictions_by_request", "request_id", "image_index"),
)
"""One row an image."""

feedback = Table(
    "feedback",
    metadata,
    Column("request_id", String(64), primary_key=True),
    Column("image_index", Integer, primary_key=True),
    Column("label", Text, nullable=False),
    Column("time", UtcTime, nullable=False),
)
"""True labels that came later; the last word on an image counts."""

checks = Table(
    "checks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("model", String(100), nullable=False),
    Column("version", String(100), nullable=False),
    Column("verdict", String(10), nullable=False),
    Column("document", Text, nullable=False),
    Column("report", LargeBinary, nullable=True),
    Column("snapshot", LargeBinary, nullable=True),
    Index("checks_by_time", "time"),
)
"""Drift checks: the verdict as JSON; of the newest ones Evidently's page and its own record of it, both gzipped."""

leases = Table(
    "leases",
    metadata,
    Column("name", String(50), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", UtcTime, nullable=False),
)
"""Who may do what only one replica at a time shall do, and until when."""
