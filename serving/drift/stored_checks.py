"""Drift checks that were made: verdicts for long, Evidently's pages of the newest."""

import contextlib
import gzip
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy import func, select

from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.drift.check import DriftResult
from pneumo.serving.drift.evidently_page import compose_page
from pneumo.serving.drift.verdict import DriftCheck, Verdict
from pneumo.serving.predictions.log_tables import checks
from pneumo.serving.predictions.store import LogStore

PAGES = 60
"""Pages that are kept, each about 1.3 MB and its record 0.15 MB."""
CHECKS = 20_000
"""Verdicts that are kept, each a few kB: more than half a year of one every quarter of an hour."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class StoredCheck:
    """A check as it was stored, and whether its page is still there."""

    id: str
    check: DriftCheck
    has_page: bool


@dataclass(frozen=True)
class DayVerdicts:
    """How often each verdict was given on a day, UTC."""

    day: datetime
    counts: dict[Verdict, int]


def add_check(store: LogStore, check: DriftCheck, page: bytes | None, snapshot: bytes | None = None) -> str:
    """Store a check; the oldest pages beyond `PAGES`, and the oldest checks beyond `CHECKS`, go.

    Args:
        store: The log.
        check: The result.
        page: Evidently's HTML, where it was drawn.
        snapshot: Evidently's own record of it as JSON, for its user interface.

    Returns:
        The check's id.

    Raises:
        SQLAlchemyError: The database is away; nothing was stored.
    """
    row = {
        "id": uuid.uuid4().hex,
        "time": check.time,
        "model": check.model,
        "version": check.version,
        "verdict": check.verdict.value,
        "document": check.model_dump_json(),
        "report": None if page is None else gzip.compress(page, mtime=0),
        "snapshot": None if snapshot is None else gzip.compress(snapshot, mtime=0),
    }
    drawn = checks.c.report.is_not(None)
    with store.engine.begin() as connection:
        connection.execute(checks.insert().values(row))
        edge = connection.execute(_newest(drawn).offset(PAGES).limit(1)).scalar()
        if edge is not None:
            old = sa.and_(drawn, checks.c.time <= edge)
            connection.execute(checks.update().where(old).values(report=None, snapshot=None))
        edge = connection.execute(_newest(sa.true()).offset(CHECKS).limit(1)).scalar()
        if edge is not None:
            connection.execute(checks.delete().where(checks.c.time <= edge))
    return str(row["id"])


def store_result(store: LogStore, checked: DriftResult, *, without_page: bool = False) -> str:
    """Draw and store a check, for `/drift` and for Evidently's own pages.

    Args:
        store: The log.
        checked: The check with what it compared.
        without_page: Whether the verdict alone is kept where Evidently is not installed.

    Returns:
        The check's id.

    Raises:
        MachineError: Evidently is not installed.
        SQLAlchemyError: The database is away; nothing was stored.
    """
    page = record = None
    if checked.check.columns:
        try:
            drawing = compose_page(checked.check, checked.reference, checked.window)
        except MachineError:
            if not without_page:
                raise
        else:
            page, record = drawing.page, drawing.record
    return add_check(store, checked.check, page, record)


def _newest(where: sa.ColumnElement[bool]) -> sa.Select[tuple[datetime]]:
    return select(checks.c.time).where(where).order_by(checks.c.time.desc())


def latest_check(store: LogStore, model: str | None = None, version: str | None = None) -> StoredCheck | None:
    """The newest check, of any model or of one.

    Raises:
        SQLAlchemyError: The database is away.
    """
    found = list_checks(store, model, version, most=1)
    return found[0] if found else None


def list_checks(
    store: LogStore,
    model: str | None = None,
    version: str | None = None,
    *,
    first: datetime | None = None,
    until: datetime | None = None,
    most: int = PAGES,
) -> list[StoredCheck]:
    """The newest checks, the last one first.

    Args:
        store: The log.
        model: Of one model alone.
        version: Of one version of it alone.
        first: Made at this moment or after it.
        until: Made before this moment.
        most: How many at most.

    Raises:
        SQLAlchemyError: The database is away.
    """
    query = (
        select(checks.c.id, checks.c.document, checks.c.report.is_not(None))
        .where(_made(model, version, first, until))
        .order_by(checks.c.time.desc())
        .limit(most)
    )
    found = []
    with store.engine.connect() as connection:
        for key, document, has_page in connection.execute(query):
            with contextlib.suppress(ValidationError):  # of another release
                found.append(StoredCheck(key, DriftCheck.model_validate_json(document), bool(has_page)))
    return found


def find_last_verdict(store: LogStore, model: str) -> Verdict | None:
    """Find the verdict of the newest check, of any version, that had enough images.

    Raises:
        SQLAlchemyError: The database is away.
    """
    said = sa.and_(checks.c.model == model, checks.c.verdict != Verdict.TOO_FEW.value)
    query = select(checks.c.verdict).where(said).order_by(checks.c.time.desc()).limit(1)
    with store.engine.connect() as connection:
        found = connection.execute(query).scalar()
    return None if found is None else Verdict(found)


def count_verdicts_by_day(
    store: LogStore, model: str, version: str, first: datetime, until: datetime
) -> list[DayVerdicts]:
    """Count how often each verdict was given, for each day with a check, oldest first.

    Raises:
        SQLAlchemyError: The database is away.
    """
    length = _DAY // timedelta(microseconds=1)
    day = sa.type_coerce(checks.c.time, sa.BigInteger).op("/")(sa.literal_column(str(length)))  # of whole numbers
    query = (
        select(day, checks.c.verdict, func.count())
        .where(_made(model, version, first, until))
        .group_by(day, checks.c.verdict)
        .order_by(day)
    )
    found: dict[int, dict[Verdict, int]] = {}
    with store.engine.connect() as connection:
        for number, verdict, count in connection.execute(query):
            found.setdefault(int(number), {})[Verdict(verdict)] = int(count)
    return [DayVerdicts(_EPOCH + number * _DAY, counts) for number, counts in found.items()]


def read_page(store: LogStore, key: str) -> bytes | None:
    """Evidently's page of a check, gzipped; None where there is no such check, or its page is gone.

    Raises:
        SQLAlchemyError: The database is away.
    """
    return _read(store, checks.c.report, key)


def read_snapshot(store: LogStore, key: str) -> bytes | None:
    """Evidently's record of a check as JSON; None where there is none.

    Raises:
        SQLAlchemyError: The database is away.
    """
    found = _read(store, checks.c.snapshot, key)
    return None if found is None else gzip.decompress(found)


def _read(store: LogStore, column: sa.Column[bytes], key: str) -> bytes | None:
    with store.engine.connect() as connection:
        found = connection.execute(select(column).where(checks.c.id == key)).scalar()
    return None if found is None else bytes(found)


def _made(
    model: str | None, version: str | None, first: datetime | None, until: datetime | None
) -> sa.ColumnElement[bool]:
    conditions: list[sa.ColumnElement[bool]] = []
    if model is not None:
        conditions.append(checks.c.model == model)
    if version is not None:
        conditions.append(checks.c.version == version)
    if first is not None:
        conditions.append(checks.c.time >= first)
    if until is not None:
        conditions.append(checks.c.time < until)
    return sa.and_(sa.true(), *conditions)
