"""`/v1/explain`."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.contracts.problems import ProblemError, describe_problems
from pneumo.serving.contracts.schemas import ExplainResponse
from pneumo.serving.http.routes.common import BINARY, IMAGES_BODY, ServiceDependency, receive_images, record_model
from pneumo.serving.inference.explanation import Method, NoMapsError, UnknownClassError

router = APIRouter(tags=["prediction"])


@router.post(
    "/v1/explain",
    response_model=ExplainResponse,
    responses={200: {"content": {"image/png": {"schema": BINARY}}}, **describe_problems(413, 415, 422)},
    openapi_extra=IMAGES_BODY,
    summary="Compute a heat map of one image",
)
async def explain(
    request: Request,
    service: ServiceDependency,
    class_name: Annotated[
        str | None, Query(alias="class", description="The class of the heat map; by default the positive class.")
    ] = None,
    output: Annotated[
        Literal["png", "json", "film"],
        Query(
            alias="format",
            description="`png`: the heat map over the image; `json`: the prediction, image and heat map apart; "
            "`film`: the image alone, as a PNG in the gray levels that the model sees.",
        ),
    ] = "png",
    method: Annotated[
        Method | None,
        Query(description="Class activation map or occlusion; by default the one that export found to be faithful."),
    ] = None,
) -> Response:
    """Predict one image and lay a heat map over it; this is not recorded in the prediction log."""
    uploads = await receive_images(request)
    if len(uploads) > 1:
        raise ProblemError("wrong-fields", f"{len(uploads)} images; send one image per heat map")
    slot = service.pick_slot(request.state.request_id)
    model = record_model(request, slot)
    try:
        if output == "film":
            return Response(await service.draw_film(slot, uploads[0]), media_type="image/png")
        explanation = await service.explain(slot, uploads[0], class_name, method)
    except ImageError as error:
        raise ProblemError.from_image_error(error, filename=uploads[0].filename, index=0, count=1) from None
    except (UnknownClassError, NoMapsError) as error:
        raise ProblemError("wrong-fields", str(error)) from None
    if output == "png":
        return Response(await asyncio.to_thread(explanation.overlay), media_type="image/png")
    notice = slot.bundle.info.notice
    answer = await asyncio.to_thread(explanation.to_response, request.state.request_id, model, notice)
    return Response(answer.model_dump_json(), media_type="application/json")
