"""`/v1/feedback`."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header

from pneumo.serving.contracts.problems import ProblemError, describe_problems
from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.http.routes.common import (
    ServiceDependency,
    build_bundle_lookup,
    receive_body,
    require_log,
    run_on_log,
)

SHOWN = 1000
"""Most images listed in an answer."""

router = APIRouter(tags=["drift"])

_CSV = {"schema": {"type": "string", "example": "request_id,index,label\nabc,0,PNEUMONIA\n"}}
_JSON = {"schema": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("FeedbackItems", "FeedbackItem")]}}
_BODY = {"requestBody": {"required": True, "content": {"application/json": _JSON, "text/csv": _CSV}}}


class UnmatchedImage(BaseModel):
    """An image without a prediction in the log."""

    request_id: str
    index: int


class FeedbackResponse(BaseModel):
    """Answer of `POST /v1/feedback`.

    Attributes:
        request_id: The id of this request.
        taken: Number of images whose label was stored.
        matched: Number of those whose prediction is in the log.
        unmatched: The others, at most 1,000; stored too, since a prediction may come later from the spool.
        notice: The intended use.
    """

    request_id: str
    taken: int
    matched: int
    unmatched: list[UnmatchedImage]
    notice: str = NOTICE


@router.post(
    "/v1/feedback",
    response_model=FeedbackResponse,
    responses=describe_problems(409, 413, 415, 422),
    openapi_extra=_BODY,
    summary="Send the ground truth of earlier images",
)
async def feedback(request: Request, service: ServiceDependency) -> Response:
    """Store ground truth, as JSON or as CSV with the header `request_id,index,label`.

    If one row is wrong, none is stored. A later label of an image replaces the earlier one. `/drift` shows the
    resulting performance of the model.
    """
    store = require_log(service)
    service.pick_slot(request.state.request_id)  # without a model there are no classes
    from pneumo.serving.drift.feedback import MAX_BYTES, read_csv, read_json, store_feedback

    media_type, _ = parse_options_header(request.headers.get("content-type", ""))
    if media_type not in (b"application/json", b"text/csv"):
        raise ProblemError("unsupported-media-type", "send application/json, or text/csv with request_id,index,label")
    limit = min(MAX_BYTES, service.settings.max_bytes)
    body = await receive_body(request, limit)

    def store_labels() -> FeedbackResponse:
        labels = (read_csv if media_type == b"text/csv" else read_json)(body)
        unmatched = store_feedback(store, build_bundle_lookup(service), labels)
        taken = len({item.image for item in labels.values()})
        return FeedbackResponse(
            request_id=request.state.request_id,
            taken=taken,
            matched=taken - len(unmatched),
            unmatched=[UnmatchedImage(request_id=name, index=index) for name, index in unmatched[:SHOWN]],
        )

    answer = await run_on_log(store, store_labels)
    return Response(answer.model_dump_json(), media_type="application/json")
