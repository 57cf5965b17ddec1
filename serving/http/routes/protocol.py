"""The Open Inference Protocol of KServe and Triton, for images that the client has prepared itself.

https://github.com/kserve/open-inference-protocol. `GET /v1/model` says how to prepare images. Errors have the
protocol's form `{"error": ...}`, and the status of the same problem on other routes (`contracts.problems`).
"""

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.problems import ProblemError, describe_problems
from pneumo.serving.contracts.schemas import ImagePrediction
from pneumo.serving.http.routes.common import BINARY, ServiceDependency, describe_body, read_site, receive_body
from pneumo.serving.http.routes.protocol_schemas import (
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    TensorMetadata,
)
from pneumo.serving.http.tensors import (
    INPUT,
    OUTPUTS,
    InferenceRequest,
    InferenceResponse,
    Message,
    Shape,
    choose_outputs,
    read_images,
    read_request,
    write_response,
)
from pneumo.serving.inference.model_slots import ModelSlot
from pneumo.serving.inference.service import Service, State
from pneumo.serving.model.predictor import BATCH

LENGTH = "Inference-Header-Content-Length"

_TENSORS = ThreadPoolExecutor(1, thread_name_prefix="tensors")
"""One request with tensors at a time: parsed JSON takes many times its bytes, and batches of images are large."""

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

_NOT_FOUND = describe_problems(404, 503, protocol=True)
_NOT_READY = _NOT_FOUND | {503: {"model": ModelReady}}
_INFERENCE = {
    200: {"model": InferenceResponse, "content": {"application/octet-stream": {"schema": BINARY}}},
    **describe_problems(400, 404, 408, 413, 415, 422, 503, protocol=True),
}
_BODY = describe_body(InferenceRequest, "application/octet-stream")
_NAME, _VERSION = (
    {"name": name, "in": "path", "required": True, "schema": {"type": "string", "title": name.capitalize()}}
    for name in ("name", "version")
)
_LENGTH = {
    "name": LENGTH,
    "in": "header",
    "description": "Bytes of the JSON document, if bytes of tensors follow it.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,19}$"},
}
_MODEL = {"parameters": [_NAME]}
_MODEL_VERSION = {"parameters": [_NAME, _VERSION]}


async def _find_slot(request: Request, service: ServiceDependency) -> ModelSlot:
    """Return the loaded model that the path names; of several, the one that answers this request on other routes."""
    name, version = request.path_params["name"], request.path_params.get("version")
    answering = service.pick_slot(request.state.request_id)
    for slot in (answering, *service.slots.loaded):
        info = slot.bundle.info
        if slot.name != "shadow" and info.name == name and version in (None, info.version):
            return slot
    raise ProblemError("unknown-model", f"no such model; served is {answering.bundle.info.id}")


SlotDependency = Annotated[ModelSlot, Depends(_find_slot)]


@router.get("", summary="Server metadata")
async def server() -> ServerMetadata:
    """Return name, version and supported extensions of the server."""
    return ServerMetadata(name="pneumo", version=metadata.version("pneumo"), extensions=["binary_tensor_data"])


@router.get("/health/live", summary="Liveness", responses={503: {"model": Live}})
async def live(service: ServiceDependency, response: Response) -> Live:
    """Return the liveness, as `/healthz` does."""
    alive = service.state is not State.FAILED
    response.status_code = 200 if alive else 503
    return Live(live=alive)


@router.get("/health/ready", summary="Readiness", responses={503: {"model": Ready}})
async def ready(service: ServiceDependency, response: Response) -> Ready:
    """Return the readiness, as `/readyz` does."""
    is_ready = service.state is State.READY
    response.status_code = 200 if is_ready else 503
    return Ready(ready=is_ready)


@router.get(
    "/models/{name}/versions/{version}",
    name="model_version",
    summary="Metadata of a version",
    responses=_NOT_FOUND,
    openapi_extra=_MODEL_VERSION,
)
@router.get("/models/{name}", summary="Model metadata", responses=_NOT_FOUND, openapi_extra=_MODEL)
async def model(service: ServiceDependency, slot: SlotDependency) -> ModelMetadata:
    """Return the tensors of the model, and every loaded version."""
    info, images = slot.bundle.info, slot.bundle.info.preparation
    classes, embedding = len(info.classes), slot.predictor.outlier_scorer.embedding.dimensions
    loaded = [each.bundle.info for each in service.slots.loaded if each.name != "shadow"]
    return ModelMetadata(
        name=info.name,
        versions=list(dict.fromkeys(each.version for each in loaded if each.name == info.name)),
        inputs=[TensorMetadata(name=INPUT, shape=[-1, images.channels, images.height, images.width])],
        outputs=[
            TensorMetadata(name=name, shape=[-1, length])
            for name, length in zip(OUTPUTS, (classes, embedding, classes), strict=True)
        ],
    )


@router.get(
    "/models/{name}/versions/{version}/ready",
    name="version_ready",
    summary="Readiness of a version",
    responses=_NOT_READY,
    openapi_extra=_MODEL_VERSION,
)
@router.get("/models/{name}/ready", summary="Model readiness", responses=_NOT_READY, openapi_extra=_MODEL)
async def model_ready(request: Request, service: ServiceDependency, response: Response) -> ModelReady:
    """Return the readiness of the model."""
    is_ready = service.state is State.READY
    if is_ready:
        await _find_slot(request, service)
    response.status_code = 200 if is_ready else 503
    return ModelReady(name=request.path_params["name"], ready=is_ready)


@router.post(
    "/models/{name}/versions/{version}/infer",
    name="version_infer",
    summary="Run a version on prepared images",
    responses=_INFERENCE,
    openapi_extra={"parameters": [_NAME, _VERSION, _LENGTH], **_BODY},
)
@router.post(
    "/models/{name}/infer",
    summary="Run the model on prepared images",
    responses=_INFERENCE,
    openapi_extra={"parameters": [_NAME, _LENGTH], **_BODY},
)
async def infer(request: Request, service: ServiceDependency, slot: SlotDependency) -> Response:
    """Run the network on prepared images, FP32 [N, channels, height, width] in [0, 1].

    `probabilities` are calibrated. Values are JSON, or bytes of the binary tensor data extension, which are much faster
    to read.
    """
    info, preparation = slot.bundle.info, slot.bundle.info.preparation
    shape = Shape(preparation.channels, preparation.height, preparation.width, service.settings.max_images)
    site = read_site(request)
    body = await receive_body(request, service.settings.max_bytes)
    request.state.bytes = len(body)
    async with service.limit_time():
        message = Message.split(body, request.headers.get(LENGTH))
        inference, images = await _run_in_turn(_read, service, message, shape)
        chosen = choose_outputs(inference, OUTPUTS)
        request.state.images, request.state.lane, request.state.model = len(images), slot.name, info.id
        with service.load_shedding.admit_images(len(images)), slot.in_use():
            service.metrics.queue.set(service.load_shedding.images)
            tensors, predictions = await _run_in_turn(_run, service, slot, images)
    service.metrics.queue.set(service.load_shedding.images)
    service.metrics.count_predictions(slot.name, predictions)
    service.log_tensors(slot, predictions, tensors["embedding"], request.state.request_id, site)
    answer = write_response(tensors, chosen, request=inference, info=info)
    if not any(chosen.values()):
        return Response(answer.document, media_type="application/json")
    headers = {LENGTH: str(len(answer.document))}
    return Response(answer.document + answer.raw, media_type="application/octet-stream", headers=headers)


async def _run_in_turn[**P, R](work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    run = contextvars.copy_context().run  # with the span of the request
    return await asyncio.get_running_loop().run_in_executor(_TENSORS, lambda: run(work, *args, **kwargs))


def _read(service: Service, message: Message, shape: Shape) -> tuple[InferenceRequest, Float32]:
    with service.tracer.span("decode", bytes=len(message.document) + len(message.raw)):
        request = read_request(message, shape)
        return request, read_images(message, request, shape)


def _run(service: Service, slot: ModelSlot, images: Float32) -> tuple[dict[str, Float32], list[ImagePrediction]]:
    """Run the network, `BATCH` images at a time; return the tensors of `OUTPUTS` and the predictions."""
    logits, embedding, predictions = [], [], []
    for start in range(0, len(images), BATCH):
        chunk = images[start : start + BATCH]
        began = time.perf_counter()
        try:
            with service.tracer.span("inference", batch_size=len(chunk)):
                outputs = slot.predictor.run(chunk)
        except Exception:
            service.metrics.images.series(slot.name, "failed").inc(len(images))
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
