"""Queries of the dashboard: counts that the database makes, and samples of a few columns.

Every function raises `SQLAlchemyError` if the database cannot be reached.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import sqlalchemy as sa
from sqlalchemy import case, func, select

from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.sites import MOST_SITES, NO_SITE, OTHER_SITES
from pneumo.serving.drift.performance import LabelledAnswers, ProbabilitySums
from pneumo.serving.drift.samples import NUMBERS, hide_unknown
from pneumo.serving.predictions.log_tables import feedback, has_feedback, predictions, start_of_interval
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.windows import Window

SAMPLE = 4000
"""Maximum images of a distribution, about."""
LABELLED = 10_000
"""Maximum labelled images of a metric, about."""

_ID_DIGITS = 8
_MICROSECONDS_PER_DAY = 86_400 * 1_000_000


@dataclass(frozen=True)
class ServedVersion:
    """A model version in the log: number of images, times of the first and the last one."""

    model: str
    version: str
    images: int
    first: datetime
    last: datetime

    @property
    def id(self) -> str:
        """Name and version, `name:version`."""
        return f"{self.model}:{self.version}"


@dataclass(frozen=True)
class Span:
    """Counts of one hour or day, which begins at `start`, UTC; `sums` are those over the probabilities."""

    start: datetime
    images: int
    uncertain: int
    out_of_distribution: int
    sums: ProbabilitySums


@dataclass(frozen=True)
class SiteCounts:
    """Counts of the images of a site, or of `NO_SITE` or `OTHER_SITES`."""

    site: str
    images: int
    uncertain: int


def list_versions(store: LogStore) -> list[ServedVersion]:
    """List the model versions in the log, the one with the newest image first."""
    table = predictions.c
    last = func.max(table.time)
    query = (
        select(table.model, table.version, func.count(), func.min(table.time), last)
        .group_by(table.model, table.version)
        .order_by(last.desc())
    )
    with store.engine.connect() as connection:
        return [ServedVersion(*row) for row in connection.execute(query)]


def count_over_time(store: LogStore, window: Window, step: timedelta, positive_class: str | None) -> list[Span]:
    """Count the images of each interval that has any, oldest first; intervals begin at whole multiples since 1970.

    `positive_class` is the class of the probabilities; None with more than two classes, if each is of its own label.
    """
    table = predictions.c
    positive = sa.true() if positive_class is None else table.label == positive_class
    spread = table.probability * (1 - table.probability)
    sums = [
        func.sum(case((condition, value), else_=0))
        for condition in (positive, sa.not_(positive))
        for value in (1, table.probability, spread)
    ]
    start = start_of_interval(table.time, step)
    flags = (func.sum(case((column, 0), else_=1)) for column in (table.certain, table.in_distribution))
    query = select(start, func.count(), *flags, *sums).where(window.match()).group_by(start).order_by(start)
    with store.engine.connect() as connection:
        return [
            Span(start, images, uncertain, outliers, ProbabilitySums(*rest))
            for start, images, uncertain, outliers, *rest in connection.execute(query)
        ]


def count_by_site(store: LogStore, window: Window) -> list[SiteCounts]:
    """Count the images of each site that a check tells apart, the largest first; nothing if no image has a site."""
    table, size = predictions.c, func.count()
    largest = select(table.site).where(window.match(), table.site.is_not(None)).group_by(table.site)
    with store.engine.connect() as connection:
        names = connection.execute(largest.order_by(size.desc(), table.site).limit(MOST_SITES)).scalars().all()
        told = case((table.site.is_(None), NO_SITE), (table.site.in_(names), table.site), else_=OTHER_SITES).label(
            "told"
        )
        uncertain = func.sum(case((table.certain, 0), else_=1))
        query = select(told, size, uncertain).where(window.match()).group_by("told").order_by(size.desc(), "told")
        return [SiteCounts(*row) for row in connection.execute(query)] if names else []


def read_sample(store: LogStore, window: Window, images: int, *, most: int = SAMPLE) -> dict[str, Float64]:
    """Read columns [N] of a window of so many `images` by name of `NUMBERS`, or a random sample of about `most`."""
    query = select(*(predictions.c[name] for name in NUMBERS)).where(window.match(), _sample_rows(images, most))
    with store.engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(query)]
    return hide_unknown(dict(zip(NUMBERS, np.array(rows, dtype=np.float64).reshape(-1, len(NUMBERS)).T, strict=True)))


def read_labelled_answers(
    store: LogStore, window: Window, images: int, classes: Sequence[str] | None, *, most: int = LABELLED
) -> LabelledAnswers:
    """Read about `most` answers with ground truth of a window of so many `images`, oldest first.

    Labels that are none of `classes`, sent before their image was logged, are left out; None takes all.
    """
    table = predictions.c
    query = (
        select(sa.type_coerce(table.time, sa.BigInteger), feedback.c.label, table.label, table.probability)
        .select_from(predictions.join(feedback, has_feedback))
        .where(window.match())
        .order_by(table.time)
    )
    if classes is not None:
        query = query.where(feedback.c.label.in_(list(classes)))
    with store.engine.connect() as connection:
        labels = connection.execute(select(func.count()).select_from(feedback)).scalar_one()
        rows = connection.execute(query.where(_sample_rows(min(images, labels), most))).all()
    times, truth, predicted, probability = zip(*rows, strict=True) if rows else ((), (), (), ())
    return LabelledAnswers(
        np.array(times, dtype=np.int64) // _MICROSECONDS_PER_DAY,
        np.array(truth, dtype=object),
        np.array(predicted, dtype=object),
        np.array(probability, dtype=np.float64),
    )


def _sample_rows(count: int, most: int) -> sa.ColumnElement[bool]:
    """Select the rows with the smallest ids, about `most` of `count`: ids are random, so that these are a sample."""
    if count <= most:
        return sa.true()
    edge = int(most / count * 16**_ID_DIGITS)
    return predictions.c.id < f"{edge:0{_ID_DIGITS}x}"
