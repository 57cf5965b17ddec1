"""`/v1/predict` and `/v1/model`."""

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from pneumo.serving.contracts.problems import ProblemError, describe_problems
from pneumo.serving.contracts.schemas import PredictResponse, ServedPrediction
from pneumo.serving.http.routes.common import IMAGES_BODY, ServiceDependency, read_site, receive_images, record_model
from pneumo.serving.inference.service import Service
from pneumo.serving.model.bundle import BundleInfo

_PARTIAL = {
    "name": "partial",
    "in": "query",
    "description": "Answer for the images that can be read, and list the others in `errors`.",
    "schema": {"type": "boolean", "default": False},
}

_FLAG = TypeAdapter(bool)


PATH = "/v1/predict"

router = APIRouter(tags=["prediction"])


async def predict(request: Request) -> Response:
    """Predict the images in the form's `file` fields, in a JSON list, in a zip, or the single image in the body.

    If one image cannot be read, none is answered, unless `partial` is true.
    """
    service: Service = request.app.state.service
    partial, request_id = _read_flag(request, "partial"), request.state.request_id
    site = read_site(request)
    uploads = await receive_images(request)
    slot = service.pick_slot(request_id)
    model = record_model(request, slot)
    answers = await service.predict(slot, uploads, request_id, site)
    predictions, errors = [], []
    for index, (upload, answer) in enumerate(zip(uploads, answers, strict=True)):
        if isinstance(answer, ServedPrediction):
            predictions.append(answer)
            continue
        problem = ProblemError.from_image_error(answer, filename=upload.filename, index=index, count=len(uploads))
        if not partial:
            raise problem
        errors.append(problem.to_image_problem())
    response = PredictResponse.model_construct(
        request_id=request_id,
        model=model,
        predictions=predictions,
        errors=errors,
        notice=slot.bundle.info.notice,
    )
    return Response(response.model_dump_json(), media_type="application/json")


@router.get(
    "/v1/model",
    responses={200: {"model": BundleInfo}},
    summary="The served model: bundle.json",
)
async def served_model(request: Request, service: ServiceDependency) -> Response:
    """Return classes, preparation, thresholds, metrics and provenance of the champion."""
    slot = service.slots.champion or service.pick_slot(request.state.request_id)  # raises the reason if there is none
    return Response(slot.bundle.info.model_dump_json(), media_type="application/json")


def _read_flag(request: Request, name: str) -> bool:
    """Read a boolean query parameter; a missing one is false."""
    if not request.scope["query_string"]:
        return False
    try:
        return _FLAG.validate_python(request.query_params.get(name, False))
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": ("query", name)} for each in error.errors()]) from None


router.add_api_route(  # `DispatchMiddleware` calls `predict`; its parameter is documented by `openapi_extra`
    PATH,
    predict,
    methods=["POST"],
    response_model=PredictResponse,
    responses=describe_problems(413, 415, 422),
    openapi_extra={**IMAGES_BODY, "parameters": [_PARTIAL]},
    summary="Predict one or more images",
)
