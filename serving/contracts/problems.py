"""Errors of the service as RFC 9457 problem documents."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from pneumo.serving.contracts.errors import ImageError, locate_failure
from pneumo.serving.contracts.schemas import ImageProblem, Problem

MEDIA_TYPE = "application/problem+json"

Kind = Literal[
    "unreadable-image",
    "unreadable-body",
    "wrong-tensors",
    "too-large",
    "too-many-images",
    "not-an-image",
    "unsupported-media-type",
    "wrong-fields",
    "unauthorized",
    "cross-site",
    "wrong-host",
    "too-many-requests",
    "request-timeout",
    "over-capacity",
    "not-ready",
    "log-off",
    "log-away",
    "no-check",
    "unknown-model",
]

KINDS: dict[Kind, tuple[int, str]] = {
    "unreadable-image": (400, "The image cannot be read"),
    "unreadable-body": (400, "The request body cannot be read"),
    "wrong-tensors": (400, "Wrong tensors"),
    "too-large": (413, "Too large"),
    "too-many-images": (413, "Too many images"),
    "not-an-image": (415, "Not an image"),
    "unsupported-media-type": (415, "Unsupported media type"),
    "wrong-fields": (422, "Wrong fields"),
    "unauthorized": (401, "Unauthorized"),
    "cross-site": (403, "Sent by another site"),
    "wrong-host": (421, "Wrong host"),
    "too-many-requests": (429, "Too many requests"),
    "request-timeout": (408, "Request timeout"),
    "over-capacity": (503, "Over capacity"),
    "not-ready": (503, "Not ready"),
    "log-off": (409, "No prediction log is kept"),
    "log-away": (503, "The prediction log cannot be reached"),
    "no-check": (404, "No drift check"),
    "unknown-model": (404, "Unknown model"),
}
"""HTTP status and title of each kind of problem."""


def describe_problems(*statuses: int, protocol: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of errors: problem documents, or errors of the Open Inference Protocol."""
    media_type, name = ("application/json", "InferenceError") if protocol else (MEDIA_TYPE, "Problem")
    content = {media_type: {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {str(each): {"description": HTTPStatus(each).phrase, "content": content} for each in statuses}


def is_protocol_path(path: str) -> bool:
    """Return whether a path belongs to the Open Inference Protocol, whose errors are `{"error": ...}`."""
    return path == "/v2" or path.startswith("/v2/")


_UNREAD = frozenset({401, 403, 409, 413, 421, 429, 503})
"""Statuses of problems that are answered before the request body is read, as far as there is one."""

_SKIPPED_BYTES = 1_000_000
"""Largest unread body that the server skips to keep the connection; with a larger one the connection is closed."""

_DETAILS = {
    404: "no such route; /docs lists them",
    405: "this route does not answer that method; /docs lists the routes",
}

_log = logging.getLogger("pneumo.service")


@dataclass(eq=False)
class ProblemError(Exception):
    """A request that is answered with a problem document; `retry_after` is in seconds."""

    kind: Kind
    detail: str
    _: KW_ONLY
    filename: str | None = None
    index: int | None = None
    retry_after: int | None = None

    def __str__(self) -> str:
        return self.detail

    @classmethod
    def from_image_error(cls, error: ImageError, *, filename: str | None, index: int, count: int) -> "ProblemError":
        """Return the problem with image `index` (from 0) of `count`."""
        kind: Kind = "unreadable-image" if error.reason == "unreadable" else error.reason
        name = f" ({filename})" if filename else ""
        place = f"image {index + 1} of {count}{name}: " if count > 1 else ""
        return cls(kind, f"{place}{error}", filename=filename, index=index)

    def to_image_problem(self) -> ImageProblem:
        """Return the same problem as one of a list, for an answer that also holds predictions."""
        assert self.index is not None
        return ImageProblem(index=self.index, filename=self.filename, **self._describe())

    def _describe(self) -> dict[str, Any]:
        status, title = KINDS[self.kind]
        return {"type": f"urn:pneumo:problem:{self.kind}", "title": title, "status": status, "detail": self.detail}


def install_handlers(app: FastAPI) -> None:
    """Turn every expected error of an application into a problem document."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_wrong_parameter)


def respond_to_bug(request: Request, error: Exception) -> Response:
    """Return the answer to an unexpected exception, and log the exception's type and place.

    Neither shows its message: it can quote what an image holds, such as the name of a patient.
    """
    place = locate_failure(error.__traceback__)
    _log.error("request %s failed: %s at %s", request.state.request_id, type(error).__name__, place)
    return _respond(
        request, title="Internal Server Error", status=500, detail="the service failed; its log holds the request id"
    )


def respond(request: Request, error: ProblemError) -> Response:
    """Return the problem document of an error as a response."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.kind == "request-timeout" or (KINDS[error.kind][0] in _UNREAD and _has_large_body(request.headers)):
        headers["Connection"] = "close"
    return _respond(request, headers, filename=error.filename, index=error.index, **error._describe())


def _has_large_body(headers: Headers) -> bool:
    length = headers.get("content-length", "0")
    return "transfer-encoding" in headers or not length.isdecimal() or len(length) > 9 or int(length) > _SKIPPED_BYTES


def _respond(request: Request, headers: Mapping[str, str] | None = None, **fields: Any) -> Response:
    problem = Problem(request_id=request.state.request_id, **fields)
    headers = {"X-Request-ID": problem.request_id, **(headers or {})}
    if is_protocol_path(get_route_path(request.scope)):
        return JSONResponse({"error": problem.detail}, problem.status, headers)
    content = problem.model_dump_json(exclude_none=True)
    return Response(content, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


async def answer[R: Response | None](request: Request, endpoint: Callable[[Request], Awaitable[R]]) -> R | Response:
    """Return the response of an endpoint, or the problem document of its error."""
    try:
        return await endpoint(request)
    except ProblemError as error:
        return respond(request, error)
    except RequestValidationError as error:
        return await _on_wrong_parameter(request, error)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return respond(request, error)


async def _on_wrong_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = " ".join(str(part)[:80] for part in first["loc"])
    return respond(request, ProblemError("wrong-fields", f"{place}: {first['msg']}; /docs lists the parameters"))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    detail = _DETAILS.get(status, str(error.detail))
    headers = dict(error.headers or {})
    if "GET" in headers.get("Allow", ""):
        headers["Allow"] = "GET, HEAD"  # see `pneumo.serving.http.middleware`
    return _respond(request, headers, title=HTTPStatus(status).phrase, status=status, detail=detail)
