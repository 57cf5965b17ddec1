"""The Open Inference Protocol, as KServe and Triton speak it, for images that the client has prepared itself.

https://github.com/kserve/open-inference-protocol. `GET /v1/model` says how images are prepared. Errors are the
protocol's `{"error": ...}`, with the status that the same problem has elsewhere.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from pneumo.serving.contracts import problems
from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.schemas import ImagePrediction
from pneumo.serving.http.routes.common import ServiceDependency, receive_body
from pneumo.serving.http.routes.protocol_schemas import (
    INFERENCE_BODY,
    INPUT,
    OUTPUTS,
    InferenceError,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    TensorMetadata,
)
from pneumo.serving.http.tensors import (
    InferenceRequest,
    InferenceResponse,
    Message,
    Shape,
    TensorError,
    choose_outputs,
    read_images,
    read_request,
    write_response,
)
from pneumo.serving.http.uploads import read_whole
from pneumo.serving.inference.model_slots import ModelSlot
from pneumo.serving.inference.service import Service, State
from pneumo.serving.model.predictor import BATCH

LENGTH = "Inference-Header-Content-Length"

_TENSORS = ThreadPoolExecutor(1, thread_name_prefix="tensors")
"""One request of tensors at a time: parsed JSON takes many times its bytes, and batches of images are large."""


class _UnknownModelError(Exception):
    """No such model is loaded."""


class _ProtocolRoute(APIRoute):
    """A route whose errors look as the protocol wants them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except TensorError as error:
                return _error(400, str(error))
            except _UnknownModelError as error:
                return _error(404, str(error))
            except ProblemError as error:
                response = problems.respond(request, error)
                kept = {"retry-after", "connection"} & set(response.headers)
                return _error(response.status_code, error.detail, {name: response.headers[name] for name in kept})

        return answer


router = APIRouter(
    prefix="/v2",
    tags=["open inference protocol"],
    route_class=_ProtocolRoute,
    responses={status: problems.RESPONSES[status] for status in (401, 429)},  # of who asks, before any route
)

_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": InferenceError}, 503: {"model": InferenceError}}
_NOT_READY: dict[int | str, dict[str, Any]] = {404: {"model": InferenceError}, 503: {"model": ModelReady}}
_REFUSED: dict[int | str, dict[str, Any]] = {status: {"model": InferenceError} for status in (400, 404, 408, 413, 503)}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"model": InferenceResponse, "content": {"application/octet-stream": {}}}
}

DocumentLength = Annotated[
    str | None, Header(alias=LENGTH, description="Bytes of the JSON document, where bytes of tensors follow it.")
]


@router.get("", summary="Server metadata")
async def server() -> ServerMetadata:
    """Name and version of the server, and the extensions of the protocol that it speaks."""
    return ServerMetadata(name="pneumo", version=metadata.version("pneumo"), extensions=["binary_tensor_data"])


@router.get("/health/live", summary="Liveness", responses={503: {"model": Live}})
async def live(service: ServiceDependency, response: Response) -> Live:
    """As `/healthz`."""
    alive = service.state is not State.FAILED
    response.status_code = 200 if alive else 503
    return Live(live=alive)


@router.get("/health/ready", summary="Readiness", responses={503: {"model": Ready}})
async def ready(service: ServiceDependency, response: Response) -> Ready:
    """As `/readyz`."""
    takes = service.state is State.READY
    response.status_code = 200 if takes else 503
    return Ready(ready=takes)


@router.get("/models/{name}", summary="Model metadata", responses=_NOT_FOUND)
async def model(request: Request, service: ServiceDependency, name: str) -> ModelMetadata:
    """Tensors of the model, with every version that may be asked for."""
    return _describe(service, _find_slot(request, service, name))


@router.get("/models/{name}/versions/{version}", summary="Metadata of a version", responses=_NOT_FOUND)
async def model_version(request: Request, service: ServiceDependency, name: str, version: str) -> ModelMetadata:
    """Tensors of the model, with every version that may be asked for."""
    return _describe(service, _find_slot(request, service, name, version))


@router.get("/models/{name}/ready", summary="Model readiness", responses=_NOT_READY)
async def model_ready(request: Request, service: ServiceDependency, response: Response, name: str) -> ModelReady:
    """Whether the model takes requests."""
    return _readiness(request, service, response, name)


@router.get("/models/{name}/versions/{version}/ready", summary="Readiness of a version", responses=_NOT_READY)
async def version_ready(
    request: Request, service: ServiceDependency, response: Response, name: str, version: str
) -> ModelReady:
    """Whether this version takes requests."""
    return _readiness(request, service, response, name, version)


@router.post(
    "/models/{name}/infer", summary="Infer prepared images", responses=_ANSWER | _REFUSED, openapi_extra=INFERENCE_BODY
)
async def infer(request: Request, service: ServiceDependency, name: str, length: DocumentLength = None) -> Response:
    """Give prepared images, FP32 [N, channels, height, width] in [0, 1], to the network.

    `probabilities` are calibrated. Values may be JSON, or bytes as of the binary tensor data extension, which are much
    quicker to read.
    """
    return await _infer(request, service, length, name)


@router.post(
    "/models/{name}/versions/{version}/infer",
    summary="Infer prepared images with a version",
    responses=_ANSWER | _REFUSED,
    openapi_extra=INFERENCE_BODY,
)
async def version_infer(
    request: Request, service: ServiceDependency, name: str, version: str, length: DocumentLength = None
) -> Response:
    """Give prepared images to one version of the network."""
    return await _infer(request, service, length, name, version)


async def _infer(
    request: Request, service: Service, length: str | None, name: str, version: str | None = None
) -> Response:
    slot = _find_slot(request, service, name, version)
    preparation, info = slot.bundle.info.preparation, slot.bundle.info
    shape = Shape(preparation.channels, preparation.height, preparation.width, service.settings.max_images)
    async with receive_body(request, service, partial(read_whole, request, service.settings.max_bytes)) as body:
        request.state.bytes = len(body)
        async with service.in_time():
            message = Message.split(body, length)
            asked, images = await _in_turn(_read, message, shape)
            chosen = choose_outputs(asked, OUTPUTS)
            request.state.images, request.state.lane, request.state.model = len(images), slot.name, info.id
            with service.load_shedding.admit_images(len(images)), slot.in_use():
                service.metrics.set_queue(service.load_shedding.images)
                tensors, predictions = await _in_turn(_run, service, slot, images)
    service.metrics.set_queue(service.load_shedding.images)
    service.metrics.count_predictions(slot.name, predictions)
    answer = write_response(tensors, chosen, request=asked, name=info.name, version=info.version)
    if not any(chosen.values()):
        return Response(answer.document, media_type="application/json")
    headers = {LENGTH: str(len(answer.document))}
    return Response(answer.document + answer.raw, media_type="application/octet-stream", headers=headers)


async def _in_turn[**P, R](work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    return await asyncio.get_running_loop().run_in_executor(_TENSORS, lambda: work(*args, **kwargs))


def _read(message: Message, shape: Shape) -> tuple[InferenceRequest, Float32]:
    asked = read_request(message, shape)
    return asked, read_images(message, asked, name=INPUT, shape=shape)


def _run(service: Service, slot: ModelSlot, images: Float32) -> tuple[dict[str, Float32], list[ImagePrediction]]:
    """Run the network, `BATCH` images at a time.

    Returns:
        The tensors of `OUTPUTS`, and what is said about the images.
    """
    logits, embedding, predictions = [], [], []
    for start in range(0, len(images), BATCH):
        chunk = images[start : start + BATCH]
        began = time.perf_counter()
        try:
            outputs = slot.predictor.run(chunk)
        except Exception:
            service.metrics.count_failures(slot.name, len(images))
            raise
        took = time.perf_counter() - began
        predictions += slot.predictor.interpret_outputs(outputs, elapsed_ms=took * 1000 / len(chunk))
        service.load_shedding.record_answers(len(chunk))
        service.metrics.observe_batch(len(chunk), took)
        logits.append(outputs.logits)
        embedding.append(outputs.embedding)
    classes = slot.bundle.info.classes
    probabilities = [[each.probabilities[label] for label in classes] for each in predictions]
    tensors = np.concatenate(logits), np.concatenate(embedding), np.array(probabilities, dtype=np.float32)
    return dict(zip(OUTPUTS, tensors, strict=True)), predictions


def _find_slot(request: Request, service: Service, name: str, version: str | None = None) -> ModelSlot:
    """The loaded model that is meant; where several are, the one that answers this request elsewhere.

    Raises:
        ProblemError: None is loaded yet.
        _UnknownModelError: No such model.
    """
    answering = service.pick_slot(request.state.request_id)
    for slot in (answering, *service.slots.loaded):
        info = slot.bundle.info
        if slot.name != "shadow" and info.name == name and version in (None, info.version):
            return slot
    raise _UnknownModelError(f"no such model; served is {answering.bundle.info.id}")


def _describe(service: Service, slot: ModelSlot) -> ModelMetadata:
    info, images = slot.bundle.info, slot.bundle.info.preparation
    dimensions = {
        "logits": len(info.classes),
        "embedding": slot.predictor.outlier_scorer.embedding.dimensions,
        "probabilities": len(info.classes),
    }
    loaded = [each.bundle.info for each in service.slots.loaded if each.name != "shadow"]
    return ModelMetadata(
        name=info.name,
        versions=list(dict.fromkeys(each.version for each in loaded if each.name == info.name)),
        inputs=[TensorMetadata(name=INPUT, shape=[-1, images.channels, images.height, images.width])],
        outputs=[TensorMetadata(name=name, shape=[-1, dimensions[name]]) for name in OUTPUTS],
    )


def _readiness(
    request: Request, service: Service, response: Response, name: str, version: str | None = None
) -> ModelReady:
    takes = service.state is State.READY
    if takes:
        _find_slot(request, service, name, version)
    response.status_code = 200 if takes else 503
    return ModelReady(name=name, ready=takes)


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(InferenceError(error=text).model_dump(), status, headers)
