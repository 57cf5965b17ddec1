"""Feedback: ground truth for logged predictions, checked against the classes of the model that answered."""

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import batched

from pydantic import Field, ValidationError
from sqlalchemy import select

from pneumo.serving.contracts.csv_text import unescape_formula
from pneumo.serving.contracts.errors import first_problem
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.drift.bundle_lookup import BundleLookup
from pneumo.serving.predictions.log_tables import predictions
from pneumo.serving.predictions.store import LogStore

MAX_BYTES = 4_000_000
MAX_ITEMS = 20_000
"""Maximum labels of one request."""

_COLUMNS = ("request_id", "index", "label")
_MARKS = (b"{", b"[", b",")
_MARKS_PER_ITEM = 8
"""Marks that begin a value in JSON; an item has three, and its label may hold a few."""
_IDS_PER_QUERY = 500
"""SQLite takes some thousand values."""


class FeedbackItem(FrozenModel):
    """The ground truth of one image.

    Attributes:
        request_id: Id of the image's request, as in `X-Request-ID` of the answer.
        index: Position of the image in that request, from 0.
        label: Ground-truth class.
    """

    request_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    index: int = Field(default=0, ge=0, lt=2**31)
    label: str = Field(min_length=1, max_length=200)

    @property
    def image(self) -> tuple[str, int]:
        """Request id and position."""
        return self.request_id, self.index


class FeedbackItems(FrozenModel):
    """The body of a request with many labels."""

    items: list[FeedbackItem] = Field(min_length=1)


Labels = Mapping[str, FeedbackItem]
"""Labels by their place in the body, such as `line 2`; at least one."""


def read_json(body: bytes) -> Labels:
    """Read `{"items": [...]}`, or one item alone.

    Raises:
        ProblemError: Not JSON, other fields, or too many items.
    """
    # A body of `[[],[],` would take many times its size in memory before it is checked.
    if sum(body.count(mark) for mark in _MARKS) > _MARKS_PER_ITEM * (MAX_ITEMS + 1):
        raise _too_many()
    try:
        labels = _parse_json(body)
    except ValidationError as error:
        if error.errors(include_input=False)[0]["type"] == "json_invalid":
            raise ProblemError("unreadable-body", "not valid JSON") from None
        raise ProblemError("wrong-fields", first_problem(error)[:300]) from None
    if len(labels) > MAX_ITEMS:
        raise _too_many()
    return labels


def _parse_json(body: bytes) -> Labels:
    try:
        return {f"items.{place}": each for place, each in enumerate(FeedbackItems.model_validate_json(body).items)}
    except ValidationError as error:
        problems = ((each["type"], each["loc"]) for each in error.errors(include_input=False))
        if ("missing", ("items",)) not in problems:
            raise
    return {"the label": FeedbackItem.model_validate_json(body)}


def read_csv(body: bytes) -> Labels:
    """Read a table with the columns `request_id`, `label` and, if not all are 0, `index`; formulas may be escaped.

    Raises:
        ProblemError: Not a table, other columns, wrong values, or too many rows.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ProblemError("unreadable-body", "not UTF-8; save the table as CSV in UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, restkey="")
    labels: dict[str, FeedbackItem] = {}
    try:
        names = reader.fieldnames or []
        if set(names) - set(_COLUMNS) or not {"request_id", "label"} <= set(names) or len(set(names)) < len(names):
            raise ProblemError("wrong-fields", "line 1: the header must be request_id,index,label")
        for index, row in enumerate(reader):
            place = f"line {reader.line_num}"
            if index == MAX_ITEMS:
                raise _too_many()
            if "" in row or None in row.values():
                raise ProblemError("wrong-fields", f"{place}: as many values as the header has names are needed")
            try:
                labels[place] = FeedbackItem.model_validate({name: unescape_formula(row[name]) for name in names})
            except ValidationError as error:
                detail = f"{place}: {first_problem(error)}"[:300]
                raise ProblemError("wrong-fields", detail, index=index) from None
    except csv.Error:
        raise ProblemError("unreadable-body", f"line {reader.line_num}: not valid CSV") from None
    if not labels:
        raise ProblemError("wrong-fields", "no row below the header")
    return labels


def _too_many() -> ProblemError:
    return ProblemError("too-large", f"more than {MAX_ITEMS:,} labels; send several requests")


def store_feedback(store: LogStore, models: BundleLookup, labels: Labels) -> list[tuple[str, int]]:
    """Write labels into the log, all or none; a later label of an image replaces an earlier one.

    Returns the images that are not in the log, or not yet; their labels are stored too.

    Raises:
        ProblemError: A label is no class of the model that answered.
        SQLAlchemyError: The database cannot be reached.
    """
    store.prepare()
    answered = _find_models(store, {item.request_id for item in labels.values()})
    loaded = sorted({name for bundle in models.loaded() for name in bundle.info.classes})
    bundles = {model: models.find(*model) for model in set(answered.values())}
    for index, (place, item) in enumerate(labels.items()):
        model = answered.get(item.image)
        bundle = bundles[model] if model else None
        classes = list(bundle.info.classes) if bundle else loaded
        if classes and item.label not in classes:
            whose = ":".join(model) if model else "a model that is loaded"
            raise ProblemError(
                "wrong-fields",
                f"{place}: {item.label[:80]!r} is no class of {whose}; classes: {', '.join(classes)}. No label was "
                "stored",
                index=index,
            )
    newest = {item.image: item.label for item in labels.values()}
    store.add_feedback([(*image, label) for image, label in newest.items()], datetime.now(UTC))
    return [image for image in newest if image not in answered]


def _find_models(store: LogStore, request_ids: Iterable[str]) -> dict[tuple[str, int], tuple[str, str]]:
    """Return the name and version of the model that answered, by image of some requests."""
    table = predictions.c
    query = select(table.request_id, table.image_index, table.model, table.version)
    answered: dict[tuple[str, int], tuple[str, str]] = {}
    with store.engine.connect() as connection:
        for ids in batched(sorted(request_ids), _IDS_PER_QUERY):
            rows = connection.execute(query.where(table.request_id.in_(ids)).order_by(table.time))
            answered |= {(request_id, index): (model, version) for request_id, index, model, version in rows}
    return answered
