"""What the dashboard asks of the prediction log: counts made by the database, and few rows of few columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import sqlalchemy as sa
from sqlalchemy import case, func, select

from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.drift.performance import LabelledAnswers, ProbabilitySums
from pneumo.serving.drift.samples import NUMBERS
from pneumo.serving.predictions.log_tables import feedback, predictions
from pneumo.serving.predictions.store import LogStore

SAMPLE = 4000
"""Images whose columns are read for a distribution at most."""
LABELLED = 10_000
"""Labelled images that are read at most."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ID_DIGITS = 8


@dataclass(frozen=True)
class ServedVersion:
    """A version of a model that answered, how many images, and from when to when."""

    model: str
    version: str
    images: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Selection:
    """Images of one version, from `first` up to but without `until`."""

    model: str
    version: str
    first: datetime
    until: datetime

    @property
    def where(self) -> sa.ColumnElement[bool]:
        """As a condition on rows of `predictions`."""
        return sa.and_(
            predictions.c.model == self.model,
            predictions.c.version == self.version,
            predictions.c.time >= self.first,
            predictions.c.time < self.until,
        )


@dataclass(frozen=True)
class Span:
    """What came between two moments.

    Attributes:
        start: Of the hour or day, UTC.
        images: How many.
        uncertain: How many answers were uncertain.
        strange: How many images were out of distribution.
        claims: What the probabilities add up to.
    """

    start: datetime
    images: int
    uncertain: int
    strange: int
    claims: ProbabilitySums


def list_versions(store: LogStore) -> list[ServedVersion]:
    """List every version that the log knows, the last one to answer first.

    Raises:
        SQLAlchemyError: The database is away.
    """
    table = predictions.c
    last = func.max(table.time)
    query = (
        select(table.model, table.version, func.count(), func.min(table.time), last)
        .group_by(table.model, table.version)
        .order_by(last.desc())
    )
    with store.engine.connect() as connection:
        return [ServedVersion(*row) for row in connection.execute(query)]


def count_over_time(store: LogStore, selection: Selection, step: timedelta, positive_class: str | None) -> list[Span]:
    """Count images for each span of time in which any came, oldest first.

    Args:
        store: The log.
        selection: Which images.
        step: Length of a span; they begin at whole multiples of it since 1970.
        positive_class: What a probability is about; None with more than two classes, where it is of the label.

    Raises:
        SQLAlchemyError: The database is away.
    """
    table = predictions.c
    length = step // timedelta(microseconds=1)
    number = sa.type_coerce(table.time, sa.BigInteger).op("/")(sa.literal_column(str(length)))  # of whole numbers
    positive = sa.true() if positive_class is None else table.label == positive_class
    spread = table.probability * (1 - table.probability)

    def count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return func.sum(case((condition, 1), else_=0))

    def add(column: sa.ColumnElement[float], condition: sa.ColumnElement[bool]) -> sa.ColumnElement[float]:
        return func.sum(case((condition, column), else_=0.0))

    query = (
        select(
            number,
            func.count(),
            count(table.certain.is_(False)),
            count(table.in_distribution.is_(False)),
            count(positive),
            add(table.probability, positive),
            add(spread, positive),
            add(table.probability, sa.not_(positive)),
            add(spread, sa.not_(positive)),
        )
        .where(selection.where)
        .group_by(number)
        .order_by(number)
    )
    with store.engine.connect() as connection:
        return [
            Span(
                start=_EPOCH + step * int(place),
                images=images,
                uncertain=int(uncertain),
                strange=int(strange),
                claims=ProbabilitySums(int(yes), yes_sum, yes_spread, images - int(yes), no_sum, no_spread),
            )
            for place, images, uncertain, strange, yes, yes_sum, yes_spread, no_sum, no_spread in connection.execute(
                query
            )
        ]


def read_sample(store: LogStore, selection: Selection, images: int, *, most: int = SAMPLE) -> dict[str, Float64]:
    """Read the numbers of the selected images, or of a fair sample of them.

    Args:
        store: The log.
        selection: Which images.
        images: How many there are.
        most: About how many are read at most.

    Returns:
        By name of `pneumo.serving.drift.samples.NUMBERS`, each [N].

    Raises:
        SQLAlchemyError: The database is away.
    """
    query = select(*(predictions.c[name] for name in NUMBERS)).where(selection.where, _among(images, most))
    with store.engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(query)]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(NUMBERS))
    return {name: table[:, column] for column, name in enumerate(NUMBERS)}


def read_labelled_answers(
    store: LogStore, selection: Selection, images: int, classes: Sequence[str] | None, *, most: int = LABELLED
) -> LabelledAnswers:
    """Read the answers whose ground truth came, oldest first, or a fair sample of them.

    Args:
        store: The log.
        selection: Which images.
        images: How many there are.
        classes: Of the model; other labels, which came before the image was known, are left out. None takes all.
        most: About how many are read at most.

    Raises:
        SQLAlchemyError: The database is away.
    """
    table = predictions.c
    joined = predictions.join(
        feedback, sa.and_(feedback.c.request_id == table.request_id, feedback.c.image_index == table.image_index)
    )
    query = (
        select(sa.type_coerce(table.time, sa.BigInteger), feedback.c.label, table.label, table.probability)
        .select_from(joined)
        .where(selection.where)
        .order_by(table.time)
    )
    if classes is not None:
        query = query.where(feedback.c.label.in_(list(classes)))
    with store.engine.connect() as connection:
        known = connection.execute(select(func.count()).select_from(feedback)).scalar_one()
        rows = [tuple(row) for row in connection.execute(query.where(_among(min(images, known), most)))]
    times, truth, said, probability = zip(*rows, strict=True) if rows else ((), (), (), ())
    return LabelledAnswers(
        np.array(times, dtype=np.int64) // (86_400 * 1_000_000),
        np.array(truth, dtype=object),
        np.array(said, dtype=object),
        np.array(probability, dtype=np.float64),
    )


def _among(count: int, most: int) -> sa.ColumnElement[bool]:
    """Rows of the least ids, about `most` of `count`: ids are random, so that these are a fair sample."""
    if count <= most:
        return sa.true()
    edge = int(most / count * 16**_ID_DIGITS)
    return predictions.c.id < f"{edge:0{_ID_DIGITS}x}"
