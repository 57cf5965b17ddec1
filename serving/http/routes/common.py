"""What routes share: the service, and the images of a request."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.schemas import ModelName
from pneumo.serving.http.uploads import FIELD, read_uploads
from pneumo.serving.inference.decoding import Upload
from pneumo.serving.inference.model_slots import ModelSlot
from pneumo.serving.inference.service import Service

if TYPE_CHECKING:  # for those who log
    from pneumo.serving.drift.bundle_lookup import BundleLookup
    from pneumo.serving.predictions.store import LogStore

_log = logging.getLogger("pneumo.service")

_BINARY = {"type": "string", "format": "binary"}

IMAGES_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "array", "items": _BINARY, "minItems": 1}},
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["data"],
                            "properties": {
                                "filename": {"type": "string"},
                                "data": {"type": "string", "contentEncoding": "base64"},
                            },
                        },
                    }
                },
            }
        },
        "image/*": {"schema": _BINARY},
        "application/dicom": {"schema": _BINARY},
        "application/zip": {"schema": _BINARY},
        "application/octet-stream": {"schema": _BINARY},
    },
}
"""The request body of routes that take images, for the OpenAPI document."""


def get_service(request: Request) -> Service:
    """Return the service that a request came to."""
    service: Service = request.app.state.service
    return service


async def _get_service(request: Request) -> Service:
    return get_service(request)  # FastAPI would call it in another thread were it not a coroutine


ServiceDependency = Annotated[Service, Depends(_get_service)]


@contextlib.asynccontextmanager
async def receive_images(request: Request, service: Service) -> AsyncIterator[list[Upload]]:
    """Receive the images of a request, if there is room for them and a model to look at them.

    Raises:
        ProblemError: Not ready, over capacity, too slow to come, or no images.
    """
    service.pick_slot(request.state.request_id)
    settings = service.settings
    read = partial(read_uploads, request, max_bytes=settings.max_bytes, max_images=settings.max_images)
    async with receive_body(request, service, read) as uploads:
        request.state.images = len(uploads)
        request.state.bytes = sum(len(upload.data) for upload in uploads)
        yield uploads


@contextlib.asynccontextmanager
async def receive_body[T](request: Request, service: Service, read: Callable[[], Awaitable[T]]) -> AsyncIterator[T]:
    """Receive a body, which keeps its place in memory until this ends.

    Args:
        request: Whose body.
        service: What it came to.
        read: Reads it; called where there is room.

    Raises:
        ProblemError: Over capacity, or too slow to come.
    """
    settings = service.settings
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else settings.max_bytes
    with service.load_shedding.admit_body(min(size, settings.max_bytes)):
        try:
            async with asyncio.timeout(settings.timeout_s):
                found = await read()
        except TimeoutError:
            detail = f"the body did not come within {settings.timeout_s:g} s; send less, or over a faster line"
            raise ProblemError("request-timeout", detail) from None
        yield found


def record_model(request: Request, slot: ModelSlot) -> ModelName:
    """Record which model answers for the log, and return its name for the answer."""
    info = slot.bundle.info
    request.state.lane, request.state.model = slot.name, info.id
    return ModelName(name=info.name, version=info.version, positive_class=info.positive_class)


def require_log(service: Service) -> "LogStore":
    """Return the prediction log.

    Raises:
        ProblemError: None is kept.
    """
    if service.store is None:
        raise ProblemError("log-off", "this service keeps no prediction log; run `pneumo serve` without --no-log")
    return service.store


def build_bundle_lookup(service: Service) -> "BundleLookup":
    """Build the lookup of models that the log may speak of."""
    from pneumo.serving.drift.bundle_lookup import BundleLookup

    return BundleLookup(service.slots, service.settings.models_dir)


async def run_on_log[T](store: "LogStore", work: Callable[[], T]) -> T:
    """Do work on the prediction log in a thread.

    Raises:
        ProblemError: Its database is away.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from pneumo.serving.predictions.store import describe_error

    try:
        return await asyncio.to_thread(work)
    except SQLAlchemyError as error:
        _log.error("the prediction log's database %s is away (%s)", store.shown, describe_error(error))
        detail = "its database does not answer; try again later"
        raise ProblemError("log-away", detail, retry_after=10) from None
