"""`/v1/feedback`."""

from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header

from pneumo.serving.contracts import problems
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.http.routes.common import (
    ServiceDependency,
    build_bundle_lookup,
    receive_body,
    require_log,
    run_on_log,
)
from pneumo.serving.http.uploads import read_whole

SHOWN = 1000
"""Images named in an answer at most."""

router = APIRouter(tags=["drift"])

_ITEM = {
    "type": "object",
    "required": ["request_id", "label"],
    "properties": {
        "request_id": {"type": "string", "description": "`request_id` of the answer, also in `X-Request-ID`."},
        "index": {"type": "integer", "minimum": 0, "default": 0, "description": "Place of the image, from 0."},
        "label": {"type": "string", "description": "Its true class."},
    },
}
_ITEMS = {
    "type": "object",
    "required": ["items"],
    "properties": {"items": {"type": "array", "minItems": 1, "items": _ITEM}},
}
_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"anyOf": [_ITEMS, _ITEM]}},
        "text/csv": {"schema": {"type": "string", "example": "request_id,index,label\nabc,0,PNEUMONIA\n"}},
    },
}


class UnmatchedImage(BaseModel):
    """An image that the prediction log does not know."""

    request_id: str
    index: int


class FeedbackResponse(BaseModel):
    """Answer of `POST /v1/feedback`.

    Attributes:
        request_id: Of this request.
        taken: Labels that were kept, each image once.
        matched: Those of them whose prediction is in the log.
        unmatched: The others, the first thousand: kept too, since a prediction may come later from the spool.
        notice: What this is not.
    """

    request_id: str
    taken: int
    matched: int
    unmatched: list[UnmatchedImage]
    notice: str = NOTICE


@router.post(
    "/v1/feedback",
    response_model=FeedbackResponse,
    responses=problems.describe_responses(400, 401, 408, 409, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": _BODY},
    summary="Tell the true labels of earlier images",
)
async def feedback(request: Request, service: ServiceDependency) -> Response:
    """Keep true labels, as JSON or as a CSV with the header `request_id,index,label`; all of them or none.

    A later label of the same image replaces an earlier one. `/drift` shows what follows for the model.
    """
    store = require_log(service)
    service.pick_slot(request.state.request_id)  # without a model there are no classes
    from pneumo.serving.drift.feedback import MAX_BYTES, read_csv, read_json, store_feedback

    media_type, _ = parse_options_header(request.headers.get("content-type", ""))
    if media_type not in (b"application/json", b"text/csv"):
        raise ProblemError("unsupported-media-type", "send application/json, or text/csv with request_id,index,label")
    most = min(MAX_BYTES, service.settings.max_bytes)
    async with receive_body(request, service, partial(read_whole, request, most)) as body:

        def work() -> FeedbackResponse:
            rows = (read_csv if media_type == b"text/csv" else read_json)(body)
            unmatched = store_feedback(store, build_bundle_lookup(service), rows)
            taken = len({item.image for item in rows.items})
            return FeedbackResponse(
                request_id=request.state.request_id,
                taken=taken,
                matched=taken - len(unmatched),
                unmatched=[UnmatchedImage(request_id=name, index=index) for name, index in unmatched[:SHOWN]],
            )

        answer = await run_on_log(store, work)
    return Response(answer.model_dump_json(), media_type="application/json")
