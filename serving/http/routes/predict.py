"""`/v1/predict` and `/v1/model`."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

from pneumo.serving.contracts import problems
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.schemas import PredictResponse, ServedPrediction
from pneumo.serving.http.routes.common import IMAGES_BODY, ServiceDependency, get_service, receive_images, record_model
from pneumo.serving.model.bundle import BundleInfo

_PARTIAL = {
    "name": "partial",
    "in": "query",
    "description": "Answer for the images that can be read, and say which cannot.",
    "schema": {"type": "boolean", "default": False},
}

_FLAG = TypeAdapter(bool)


class DirectRoute(APIRoute):
    """Calls its endpoint with the request alone, and documents the parameters that the endpoint declares.

    Solving dependencies took a fifth of what the event loop did for an image.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            answer: Response = await endpoint(request)
            return answer

        return handle


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
    service, partial = get_service(request), _read_flag(request, "partial")
    async with receive_images(request, service) as uploads:
        slot = service.pick_slot(request.state.request_id)
        model = record_model(request, slot)
        answers = await service.predict(slot, uploads, request.state.request_id)
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
        request_id=request.state.request_id, model=model, predictions=predictions, errors=errors
    )
    return Response(response.model_dump_json(), media_type="application/json")


@router.get(
    "/v1/model",
    responses={200: {"model": BundleInfo}, 503: problems.RESPONSES[503]},
    summary="What is served: bundle.json",
)
async def served_model(request: Request, service: ServiceDependency) -> Response:
    """Classes, preparation, thresholds, metrics and provenance of the model that answers."""
    champion = service.slots.champion or service.pick_slot(request.state.request_id)  # which says why there is none
    return Response(champion.bundle.info.model_dump_json(), media_type="application/json")


def _read_flag(request: Request, name: str) -> bool:
    """Read a parameter of the query that is true or false; false if it is not given.

    Raises:
        RequestValidationError: Something else.
    """
    given = request.query_params.get(name)
    if given is None:
        return False
    try:
        return _FLAG.validate_python(given)
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": ("query", name)} for each in error.errors()]) from None


router.include_router(direct)
