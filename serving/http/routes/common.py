"""Parts that routes share: the service, the body of a request, the prediction log, caching."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel

from pneumo.serving.access.authentication import Authenticator
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.schemas import ModelName
from pneumo.serving.http.uploads import FIELD, JsonImages, read_body, read_uploads
from pneumo.serving.inference.decoding import Upload
from pneumo.serving.inference.model_slots import ModelSlot
from pneumo.serving.inference.service import Service
from pneumo.serving.pages.sign_in_page import render_account

if TYPE_CHECKING:  # only a service with a prediction log needs them
    from pneumo.serving.drift.bundle_lookup import BundleLookup
    from pneumo.serving.predictions.store import LogStore

_log = logging.getLogger("pneumo.service")


BINARY: dict[str, object] = {"type": "string", "format": "binary"}


def describe_body(*kinds: type[BaseModel] | str) -> dict[str, Any]:
    """Return the OpenAPI description of a request body: models as JSON, and media types of bytes."""
    schemas = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in kinds if not isinstance(kind, str)]
    media = {kind: {"schema": BINARY} for kind in kinds if isinstance(kind, str)}
    json = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
    return {"requestBody": {"required": True, "content": {"application/json": json, **media}}}


_FORM = {
    "type": "object",
    "required": [FIELD],
    "properties": {FIELD: {"type": "array", "items": BINARY, "minItems": 1}},
    "additionalProperties": False,
}
IMAGES_BODY = describe_body(JsonImages, "image/*", "application/dicom", "application/zip", "application/octet-stream")
"""The request body of routes that take images, for the OpenAPI document."""
IMAGES_BODY["requestBody"]["content"] |= {"multipart/form-data": {"schema": _FORM}}


async def get_service(request: Request) -> Service:  # FastAPI would call a plain function in another thread
    """Return the service of a request."""
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(get_service)]


async def receive_images(request: Request) -> list[Upload]:
    """Receive the images of a request if a model is ready and load shedding admits them."""
    service: Service = request.app.state.service
    settings = service.settings
    service.pick_slot(request.state.request_id)
    service.load_shedding.check_wait()
    uploads = await read_uploads(
        request,
        max_bytes=settings.max_bytes,
        max_images=settings.max_images,
        max_pixels=settings.max_request_pixels,
    )
    request.state.images = len(uploads)
    request.state.bytes = sum(len(upload.data) for upload in uploads)
    return uploads


async def receive_body(request: Request, max_bytes: int) -> bytes:
    """Receive a whole body of at most `max_bytes` if load shedding admits it."""
    service: Service = request.app.state.service
    service.load_shedding.check_wait()
    return await read_body(request, max_bytes)


def read_site(request: Request) -> str | None:
    """Return the site that a request names; raise a `ProblemError` if the header that should name it is not valid."""
    service: Service = request.app.state.service
    source = service.settings.log_site
    try:
        return source.read_request(getattr(request.state, "key_name", None), request.headers) if source else None
    except InputError as error:
        raise ProblemError("wrong-fields", str(error)) from None


def record_model(request: Request, slot: ModelSlot) -> ModelName:
    """Record for the log line which model answers, and return its name for the answer."""
    info = slot.bundle.info
    request.state.lane, request.state.model = slot.name, info.id
    return ModelName(name=info.name, version=info.version, positive_class=info.positive_class)


def find_root(request: Request) -> str:
    """Return the start of links: the path at which a proxy publishes the service, or nothing for relative links."""
    root: str = request.scope.get("root_path", "")
    return f"{root}/" if root else ""


def describe_account(request: Request) -> str:
    """Return the way to sign in or out for the top of a page."""
    authenticator: Authenticator | None = request.state.authenticator
    signed_in = authenticator is not None and authenticator.find_session(request.scope) is not None
    return render_account(find_root(request), needs_key=authenticator is not None, signed_in=signed_in)


def is_not_modified(request: Request, tag: str) -> bool:
    """Return whether `If-None-Match` names an entity tag; compared weakly, since proxies that compress weaken tags."""
    header = request.headers.get("if-none-match", "")
    return header.strip() == "*" or tag in (each.strip().removeprefix("W/") for each in header.split(","))


def require_log(service: Service) -> "LogStore":
    """Return the prediction log's database; without a log raise a `ProblemError`."""
    if service.store:
        return service.store
    raise ProblemError("log-off", "this service keeps no prediction log; run `pneumo serve` without --no-log")


def build_bundle_lookup(service: Service) -> "BundleLookup":
    """Build the lookup of the models that rows of the log may name."""
    from pneumo.serving.drift.bundle_lookup import BundleLookup

    return BundleLookup(service.slots, service.settings.models_dir)


async def run_on_log[T](store: "LogStore", work: Callable[[], T]) -> T:
    """Run work on the prediction log in a thread; if the database cannot be reached, raise a `ProblemError`."""
    from sqlalchemy.exc import SQLAlchemyError

    from pneumo.serving.predictions.store import describe_error

    try:
        return await asyncio.to_thread(work)
    except SQLAlchemyError as error:
        _log.error("cannot reach the prediction log's database %s (%s)", store.shown, describe_error(error))
        detail = "its database does not answer; try again later"
        raise ProblemError("log-away", detail, retry_after=10) from None
