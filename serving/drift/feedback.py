"""True labels that come later: read from a request, held against the models that answered, and kept."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched

from pydantic import Field, ValidationError
from sqlalchemy import select

from pneumo.serving.contracts.errors import first_problem
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.drift.bundle_lookup import BundleLookup
from pneumo.serving.predictions.log_tables import predictions
from pneumo.serving.predictions.store import LogStore

MAX_BYTES = 4_000_000
MAX_ITEMS = 20_000
"""Labels in one request."""

_COLUMNS = ("request_id", "index", "label")
_MARKS = (b"{", b"[", b",")
_MARKS_AN_ITEM = 8
"""Marks that begin a value in JSON; an item has three, and its label may hold a few."""
_AT_ONCE = 500
"""Request ids in one query; SQLite takes some thousand values."""


class FeedbackItem(FrozenModel):
    """The true label of one image.

    Attributes:
        request_id: Of the request that it was sent in, as in `X-Request-ID` of the answer.
        index: Its place in that request, from 0.
        label: Its true class.
    """

    request_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    index: int = Field(default=0, ge=0, lt=2**31)
    label: str = Field(min_length=1, max_length=200)

    @property
    def image(self) -> tuple[str, int]:
        """What it is about."""
        return self.request_id, self.index


class FeedbackItems(FrozenModel):
    """Many of them."""

    items: list[FeedbackItem] = Field(min_length=1)


@dataclass(frozen=True)
class FeedbackRows:
    """Ground-truth labels as sent.

    Attributes:
        items: At least one.
        places: Where each stands in what was sent, for messages.
    """

    items: Sequence[FeedbackItem]
    places: Sequence[str]


def read_json(body: bytes) -> FeedbackRows:
    """Read `{"items": [...]}`, or one item alone.

    Raises:
        ProblemError: Not JSON, other fields, or too many.
    """
    # A body of nothing but `[[],[],` would take many times its size before any of it is looked at.
    if sum(body.count(mark) for mark in _MARKS) > _MARKS_AN_ITEM * (MAX_ITEMS + 1):
        raise _too_many()
    try:
        items, places = _parse(body)
    except ValidationError as error:
        if error.errors(include_input=False)[0]["type"] == "json_invalid":
            raise ProblemError("unreadable-body", "not valid JSON") from None
        raise ProblemError("wrong-fields", first_problem(error)[:300]) from None
    if len(items) > MAX_ITEMS:
        raise _too_many()
    return FeedbackRows(items, places)


def _parse(body: bytes) -> tuple[list[FeedbackItem], list[str]]:
    try:
        items = FeedbackItems.model_validate_json(body).items
    except ValidationError as error:
        if not any(
            (each["type"], each["loc"]) == ("missing", ("items",)) for each in error.errors(include_input=False)
        ):
            raise
        return [FeedbackItem.model_validate_json(body)], ["the label"]
    return items, [f"items.{number}" for number in range(len(items))]


def read_csv(body: bytes) -> FeedbackRows:
    """Read a table with the columns `request_id`, `label` and, where not all are 0, `index`.

    Raises:
        ProblemError: Not a table, other columns, wrong values, or too many rows.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ProblemError("unreadable-body", "not UTF-8; save the table as CSV in UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, restkey="")
    items: list[FeedbackItem] = []
    places: list[str] = []
    try:
        names = reader.fieldnames or []
        if set(names) - set(_COLUMNS) or not {"request_id", "label"} <= set(names) or len(set(names)) < len(names):
            raise ProblemError("wrong-fields", "line 1: the header must be request_id,index,label")
        for row in reader:
            place = f"line {reader.line_num}"
            if len(items) == MAX_ITEMS:
                raise _too_many()
            if "" in row or None in row.values():
                raise ProblemError("wrong-fields", f"{place}: as many values as the header has names are needed")
            items.append(_item(row, place, len(items)))
            places.append(place)
    except csv.Error:
        raise ProblemError("unreadable-body", f"line {reader.line_num}: not valid CSV") from None
    if not items:
        raise ProblemError("wrong-fields", "no row below the header")
    return FeedbackRows(items, places)


def _item(row: dict[str, str], place: str, index: int) -> FeedbackItem:
    try:
        return FeedbackItem.model_validate(row)
    except ValidationError as error:
        raise ProblemError("wrong-fields", f"{place}: {first_problem(error)}"[:300], index=index) from None


def _too_many() -> ProblemError:
    return ProblemError("too-large", f"more than {MAX_ITEMS:,} labels; send several requests")


def store_feedback(store: LogStore, models: BundleLookup, rows: FeedbackRows) -> list[tuple[str, int]]:
    """Write labels into the log, all or none; the last word on an image counts.

    Args:
        store: The log.
        models: Tells the classes of the model that answered.
        rows: What was sent.

    Returns:
        Images that the log does not know, or not yet; their labels are kept.

    Raises:
        ProblemError: A label that is no class of the model that answered.
        SQLAlchemyError: The database is away.
    """
    store.prepare()
    answered = _answered(store, {item.request_id for item in rows.items})
    classes = {model: _classes(models, model) for model in {*answered.values(), None}}
    for index, (item, place) in enumerate(zip(rows.items, rows.places, strict=True)):
        model = answered.get(item.image)
        if known := classes[model] or classes[None]:
            _check(item, place, index, known, model)
    last = {item.image: item.label for item in rows.items}
    store.add_feedback([(*image, label) for image, label in last.items()], datetime.now(UTC))
    return [image for image in last if image not in answered]


def _answered(store: LogStore, request_ids: Iterable[str]) -> dict[tuple[str, int], tuple[str, str]]:
    """Which model, name and version, answered for each image of some requests."""
    table = predictions.c
    query = select(table.request_id, table.image_index, table.model, table.version)
    found: dict[tuple[str, int], tuple[str, str]] = {}
    with store.engine.connect() as connection:
        for some in batched(sorted(request_ids), _AT_ONCE):
            rows = connection.execute(query.where(table.request_id.in_(some)).order_by(table.time))
            found |= {(request_id, index): (model, version) for request_id, index, model, version in rows}
    return found


def _classes(models: BundleLookup, model: tuple[str, str] | None) -> list[str]:
    """Of a version, none where it is gone; without one, of everything that answers now."""
    if model is None:
        return sorted({name for bundle in models.loaded() for name in bundle.info.classes})
    bundle = models.find(*model)
    return list(bundle.info.classes) if bundle else []


def _check(item: FeedbackItem, place: str, index: int, classes: Sequence[str], model: tuple[str, str] | None) -> None:
    if item.label not in classes:
        whose = ":".join(model) if model else "a model that is loaded"
        raise ProblemError(
            "wrong-fields",
            f"{place}: {item.label[:80]!r} is no class of {whose}; known: {', '.join(classes)}. No label was kept",
            index=index,
        )
