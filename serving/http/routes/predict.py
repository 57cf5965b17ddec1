"""`/v1/predict` and `/v1/model`."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from pneumo.serving.contracts import problems
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.schemas import PredictResponse, ServedPrediction
from pneumo.serving.http.routes.common import IMAGES_BODY, ServiceOf, answered_by, received, service_of
from pneumo.serving.http.routes.direct import DirectRoute, flag
from pneumo.serving.model.bundle import BundleInfo

_PARTIAL = {
    "name": "partial",
    "in": "query",
    "description": "Answer for the images that can be read, and say which cannot.",
    "schema": {"type": "boolean", "default": False},
}

direct = APIRouter(route_class=DirectRoute)
router = APIRouter(tags=["prediction"])


@direct.post(
    "/v1/predict",
    response_model=PredictResponse,
    responses=problems.RESPONSES,
    openapi_extra={"requestBody": IMAGES_BODY, "parameters": [_PARTIAL]},
    summary="Predict one or many images",
)
async def predict(request: Request) -> Response:
    """Predict the images in the form's `file` fields, in a JSON list, in a zip, or the one image that is the body.

    All of them or none, unless `partial` is asked for.
    """
    service, partial = service_of(request), flag(request, "partial")
    async with received(request, service) as uploads:
        lane = service.lane(request.state.request_id)
        model = answered_by(request, lane)
        answers = await service.predict(lane, uploads, request.state.request_id)
    predictions, errors = [], []
    for index, (upload, answer) in enumerate(zip(uploads, answers, strict=True)):
        if isinstance(answer, ServedPrediction):
            predictions.append(answer)
            continue
        problem = ProblemError.of_image(answer, filename=upload.filename, index=index, count=len(uploads))
        if not partial:
            raise problem
        errors.append(problem.of_one())
    response = PredictResponse.model_construct(
        request_id=request.state.request_id, model=model, predictions=predictions, errors=errors
    )
    return Response(response.model_dump_json(), media_type="application/json")


@router.get(
    "/v1/model",
    responses={200: {"model": BundleInfo}, 503: problems.RESPONSES[503]},
    summary="What is served: bundle.json",
)
async def served_model(request: Request, service: ServiceOf) -> Response:
    """Classes, preparation, thresholds, metrics and provenance of the model that answers."""
    champion = service.fleet.champion or service.lane(request.state.request_id)  # which says why there is none
    return Response(champion.bundle.info.model_dump_json(), media_type="application/json")


router.include_router(direct)
