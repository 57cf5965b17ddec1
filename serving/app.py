"""The service: an application factory, so that nothing happens at import."""

import logging
import re
import sys
import time
import uuid
from functools import partial

import anyio
import anyio.to_thread
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import problems
from serving.bundle import Bundle, BundleInfo
from serving.errors import PneumoError
from serving.image import ImageError
from serving.models import resolve
from serving.predictor import Predictor, named
from serving.problems import ProblemError
from serving.schemas import NOTICE, ImagePrediction, ModelName, PredictResponse, Status
from serving.settings import Settings
from serving.uploads import FIELD, Upload, read_uploads

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BINARY = {"type": "string", "format": "binary"}
_REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "array", "items": _BINARY, "minItems": 1}},
            }
        },
        "image/*": {"schema": _BINARY},
        "application/octet-stream": {"schema": _BINARY},
    },
}

_log = logging.getLogger("pneumo.service")
router = APIRouter()


def create_app(bundle: Bundle, settings: Settings | None = None) -> FastAPI:
    """Make the application that serves a bundle; the network is loaded and warm when this returns.

    Raises:
        BundleError: The bundle does not run.
    """
    app = FastAPIOffline(  # FastAPI's own page of docs loads its scripts from a content delivery network
        title="pneumo",
        summary="Chest X-ray classification",
        description=f"{NOTICE[0].upper()}{NOTICE[1:]}.",
        version=f"{bundle.info.name} {bundle.info.version}",
        redoc_url=None,
    )
    app.state.settings = settings or Settings()
    app.state.predictor = Predictor(bundle, threads=app.state.settings.threads)
    # One request at a time decodes and runs: the network uses all cores, and a large film decoded takes much memory.
    app.state.limiter = anyio.CapacityLimiter(1)
    app.include_router(router)
    app.add_middleware(_RequestMiddleware)
    problems.install(app)
    return app


def from_environment() -> FastAPI:
    """The application for `uvicorn --factory serving.app:from_environment`, set up by `PNEUMO_*` variables."""
    try:
        settings = Settings.from_environment()
        return create_app(Bundle.open(resolve(settings.model, settings.models_dir)), settings)
    except PneumoError as error:
        print(f"pneumo: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


@router.post(
    "/v1/predict",
    response_model=PredictResponse,
    responses=problems.RESPONSES,
    openapi_extra={"requestBody": _REQUEST_BODY},
    summary="Predict one or many images",
)
async def predict(request: Request) -> PredictResponse:
    """Predict the images in the form's `file` fields, or the one image that is the body; all of them or none."""
    state = request.app.state
    settings: Settings = state.settings
    uploads = await read_uploads(request, max_bytes=settings.max_bytes, max_images=settings.max_images)
    work = partial(_predict, state.predictor, uploads, settings.max_pixels)
    predictions = await anyio.to_thread.run_sync(work, limiter=state.limiter)
    info: BundleInfo = state.predictor.bundle.info
    return PredictResponse(
        request_id=request.state.request_id,
        model=ModelName(name=info.name, version=info.version, positive_class=info.positive_class),
        predictions=predictions,
    )


@router.get("/v1/model", responses={200: {"model": BundleInfo}}, summary="What is served: bundle.json")
async def model(request: Request) -> Response:
    """Classes, preparation, thresholds, metrics and provenance of the model that answers."""
    info: BundleInfo = request.app.state.predictor.bundle.info
    return Response(info.model_dump_json(), media_type="application/json")


@router.get("/healthz", summary="Liveness")
async def healthz() -> Status:
    """The process answers."""
    return Status(status="ok")


@router.get("/readyz", summary="Readiness")
async def readyz() -> Status:
    """The model is loaded and warm: without one the application is not made."""
    return Status(status="ready")


def _predict(predictor: Predictor, uploads: list[Upload], max_pixels: int) -> list[ImagePrediction]:
    inputs, times = [], []
    for index, upload in enumerate(uploads):
        began = time.perf_counter()
        try:
            inputs.append(predictor.prepare(upload.data, max_pixels=max_pixels))
        except ImageError as error:
            raise ProblemError.of_image(error, filename=upload.filename, index=index, count=len(uploads)) from None
        times.append((time.perf_counter() - began) * 1000)
    return [
        named(prediction, upload.filename, decoding)
        for prediction, upload, decoding in zip(predictor.predict(inputs), uploads, times, strict=True)
    ]


class _RequestMiddleware:
    """Gives each request an id and one line in the log: no file name, no path a client made up, no image content.

    Exceptions end here. Further out Starlette raises them again whatever a handler answers, and uvicorn logs the whole
    traceback with messages that can quote an image.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status, answered, began = 500, False, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            response = problems.on_bug(Request(scope), error)
            if not answered:  # uvicorn closes the connection on half an answer
                await response(scope, receive, send_with_id)
        finally:
            route = getattr(scope.get("route"), "path", "-")
            elapsed = (time.perf_counter() - began) * 1000
            _log.info("%s %s %s %d %.1f ms", request_id, scope["method"], route, status, elapsed)
