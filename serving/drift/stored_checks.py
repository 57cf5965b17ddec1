"""Drift checks in the database: verdicts for months, Evidently's pages for the newest checks.

Every function raises `SQLAlchemyError` if the database cannot be reached; nothing is stored then.
"""

import contextlib
import gzip
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError
from sqlalchemy import func, select

from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.drift.check import DriftResult
from pneumo.serving.drift.evidently_page import compose_page
from pneumo.serving.drift.verdict import DriftCheck, Verdict
from pneumo.serving.predictions.log_tables import checks, start_of_interval
from pneumo.serving.predictions.store import LogStore, find_edge
from pneumo.serving.predictions.windows import Window

PAGES = 60
"""Maximum stored pages, each about 1.3 MB."""
CHECKS = 20_000
"""Maximum stored verdicts, each a few kB: half a year of one every quarter of an hour."""


@dataclass(frozen=True)
class StoredCheck:
    """A check with its key in the database; `has_page` tells if its page is still stored."""

    id: str
    check: DriftCheck
    has_page: bool


@dataclass(frozen=True)
class DayVerdicts:
    """Number of checks by verdict on one day, UTC."""

    day: datetime
    counts: dict[Verdict, int]


def add_check(store: LogStore, check: DriftCheck, page: bytes | None) -> str:
    """Store a check with Evidently's HTML page, and return its id.

    The oldest pages beyond `PAGES` and the oldest checks beyond `CHECKS` are deleted.
    """
    key = uuid.uuid4().hex
    row = {
        "id": key,
        "time": check.time,
        "model": check.model,
        "version": check.version,
        "verdict": check.verdict.value,
        "document": check.model_dump_json(),
        "report": None if page is None else gzip.compress(page, mtime=0),
    }
    time, has_page = checks.c.time, checks.c.report.is_not(None)
    with store.engine.begin() as connection:
        connection.execute(checks.insert().values(row))
        if (edge := find_edge(connection, time, PAGES, has_page)) is not None:
            connection.execute(checks.update().where(has_page, time <= edge).values(report=None))
        if (edge := find_edge(connection, time, CHECKS)) is not None:
            connection.execute(checks.delete().where(time <= edge))
    return key


def store_result(store: LogStore, checked: DriftResult) -> str:
    """Store a check, with Evidently's page if Evidently is installed, for `/drift`; return its id."""
    page = None
    if checked.check.columns:
        with contextlib.suppress(MachineError):
            page = compose_page(checked.check, checked.reference, checked.window)
    return add_check(store, checked.check, page)


def latest_check(store: LogStore, model: str | None = None, version: str | None = None) -> StoredCheck | None:
    """Return the newest check, of any model or of one."""
    return next(iter(list_checks(store, Window(model, version, lane=None), most=1)), None)


def list_checks(store: LogStore, window: Window | None = None, *, most: int = PAGES) -> list[StoredCheck]:
    """List the newest checks, newest first, of a window's model, version and times (without a lane), or of all."""
    query = (
        select(checks.c.id, checks.c.document, checks.c.report.is_not(None))
        .where((window or Window(lane=None)).match(checks))
        .order_by(checks.c.time.desc())
        .limit(most)
    )
    stored = []
    with store.engine.connect() as connection:
        for key, document, has_page in connection.execute(query):
            with contextlib.suppress(ValidationError):  # of another release
                stored.append(StoredCheck(key, DriftCheck.model_validate_json(document), bool(has_page)))
    return stored


def find_last_verdict(store: LogStore, model: str) -> Verdict | None:
    """Find the verdict of the newest check, of any version, that had enough images."""
    enough = checks.c.verdict != Verdict.TOO_FEW.value
    query = select(checks.c.verdict).where(checks.c.model == model, enough).order_by(checks.c.time.desc()).limit(1)
    with store.engine.connect() as connection:
        verdict = connection.execute(query).scalar()
    return None if verdict is None else Verdict(verdict)


def count_verdicts_by_day(store: LogStore, window: Window) -> list[DayVerdicts]:
    """Count the checks of each verdict for each day with a check, oldest first; the window has no lane."""
    day = start_of_interval(checks.c.time, timedelta(days=1))
    query = (
        select(day, checks.c.verdict, func.count())
        .where(window.match(checks))
        .group_by(day, checks.c.verdict)
        .order_by(day)
    )
    counts: dict[datetime, dict[Verdict, int]] = {}
    with store.engine.connect() as connection:
        for start, verdict, count in connection.execute(query):
            counts.setdefault(start, {})[Verdict(verdict)] = count
    return [DayVerdicts(*each) for each in counts.items()]


def read_page(store: LogStore, key: str) -> bytes | None:
    """Read Evidently's page of a check, gzipped; None without such a check, or if its page was deleted."""
    with store.engine.connect() as connection:
        return connection.execute(select(checks.c.report).where(checks.c.id == key)).scalar()
