"""What the prediction log tells of the next drift check: what the last one said, and what came since."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import func, select

from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.model.bundle import BundleInfo
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.tables import checks, predictions


def last_verdict(store: LogStore, model: str) -> Verdict | None:
    """What the newest check of any version said that had images enough.

    Raises:
        SQLAlchemyError: The database is away.
    """
    said = sa.and_(checks.c.model == model, checks.c.verdict != Verdict.TOO_FEW.value)
    query = select(checks.c.verdict).where(said).order_by(checks.c.time.desc()).limit(1)
    with store.engine.connect() as connection:
        found = connection.execute(query).scalar()
    return None if found is None else Verdict(found)


def served_since(store: LogStore, info: BundleInfo, since: datetime | None, *, most: int) -> int:
    """Images that a version answered as champion after a moment, counted up to a number.

    Raises:
        SQLAlchemyError: The database is away.
    """
    table = predictions.c
    where = [table.model == info.name, table.version == info.version, table.lane == "champion"]
    if since is not None:
        where.append(table.time > since)
    with store.engine.connect() as connection:
        few = select(table.id).where(*where).limit(most).subquery()
        return connection.execute(select(func.count()).select_from(few)).scalar_one()
