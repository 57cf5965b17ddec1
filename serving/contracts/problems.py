"""Errors of the service as RFC 9457 problem documents."""

import logging
import traceback
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.contracts.schemas import ImageProblem, Problem

MEDIA_TYPE = "application/problem+json"

Kind = Literal[
    "unreadable-image",
    "unreadable-body",
    "too-large",
    "too-many-images",
    "not-an-image",
    "unsupported-media-type",
    "wrong-fields",
    "unauthorized",
    "too-many-requests",
    "request-timeout",
    "over-capacity",
    "not-ready",
    "log-off",
    "log-away",
    "no-check",
]

KINDS: dict[Kind, tuple[int, str]] = {
    "unreadable-image": (400, "The image cannot be read"),
    "unreadable-body": (400, "The request body cannot be read"),
    "too-large": (413, "Too large"),
    "too-many-images": (413, "Too many images"),
    "not-an-image": (415, "Not an image"),
    "unsupported-media-type": (415, "Unsupported media type"),
    "wrong-fields": (422, "Wrong fields"),
    "unauthorized": (401, "Unauthorized"),
    "too-many-requests": (429, "Too many requests"),
    "request-timeout": (408, "Request timeout"),
    "over-capacity": (503, "Over capacity"),
    "not-ready": (503, "Not ready"),
    "log-off": (409, "No prediction log is kept"),
    "log-away": (503, "The prediction log cannot be reached"),
    "no-check": (404, "No drift check"),
}
"""HTTP status and title of each kind of problem."""


def describe_responses(*statuses: int) -> dict[int | str, dict[str, object]]:
    """Describe answers that are problems, for the OpenAPI document."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {status: {"description": "Problem (RFC 9457)", "content": content} for status in statuses}


RESPONSES = describe_responses(400, 401, 408, 413, 415, 422, 429, 503)
"""Of routes that take images."""

_BODY_LEFT: frozenset[Kind] = frozenset(
    {"unauthorized", "too-many-requests", "too-large", "too-many-images", "over-capacity", "not-ready", "log-off"}
)
"""What is left of the body is not read."""

_UNREAD_BYTES = 1_000_000
"""Largest body that the server passes over to use the connection again; with more to come it is closed."""

_IMAGE_KINDS: dict[str, Kind] = {
    "unreadable": "unreadable-image",
    "too-large": "too-large",
    "not-an-image": "not-an-image",
}

_log = logging.getLogger("pneumo.service")


class ProblemError(Exception):
    """A request that cannot be answered, and why."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        filename: str | None = None,
        index: int | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.filename = filename
        self.index = index
        self.retry_after = retry_after
        """Seconds after which the same request may do better."""

    @classmethod
    def from_image_error(cls, error: ImageError, *, filename: str | None, index: int, count: int) -> "ProblemError":
        """The problem of image `index` (from 0) of `count`."""
        name = f" ({filename})" if filename else ""
        place = f"image {index + 1} of {count}{name}: " if count > 1 else ""
        return cls(_IMAGE_KINDS[error.reason], f"{place}{error}", filename=filename, index=index)

    def to_image_problem(self) -> ImageProblem:
        """The same about one image among others that have answers."""
        status, title = KINDS[self.kind]
        assert self.index is not None
        return ImageProblem(
            index=self.index,
            filename=self.filename,
            type=_urn(self.kind),
            title=title,
            status=status,
            detail=self.detail,
        )


def install_handlers(app: FastAPI) -> None:
    """Make every error of an application that it foresees a problem document."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_wrong_parameter)
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        return _without_foreign_errors(describe())

    app.openapi = openapi  # type: ignore[method-assign]


def _without_foreign_errors(document: dict[str, Any]) -> dict[str, Any]:
    """Take the 422 out that FastAPI gives every route with a parameter: where one can be wrong, a problem says so."""
    for operations in document["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            if "application/json" in answers.get("422", {}).get("content", {}):
                del answers["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document


def respond_to_bug(request: Request, error: Exception) -> Response:
    """Answer for an exception that nothing foresaw, and log its type and place.

    Neither shows its message: it can quote what an image holds, such as the name of a patient.
    """
    _log.error("request %s failed: %s at %s", request.state.request_id, type(error).__name__, _place(error))
    problem = Problem(
        title="Internal Server Error",
        status=500,
        detail="the service failed; its log holds the request id",
        request_id=request.state.request_id,
    )
    return _respond(request, problem)


def respond(request: Request, error: ProblemError) -> Response:
    """The answer to a request that cannot be answered."""
    status, title = KINDS[error.kind]
    problem = Problem(
        type=_urn(error.kind),
        title=title,
        status=status,
        detail=error.detail,
        request_id=request.state.request_id,
        filename=error.filename,
        index=error.index,
    )
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.kind == "request-timeout" or (error.kind in _BODY_LEFT and _has_much_to_come(request.headers)):
        headers["Connection"] = "close"
    return _respond(request, problem, headers)


def _has_much_to_come(headers: Headers) -> bool:
    length = headers.get("content-length", "0")
    return "transfer-encoding" in headers or not length.isdecimal() or len(length) > 9 or int(length) > _UNREAD_BYTES


def _urn(kind: Kind) -> str:
    return f"urn:pneumo:problem:{kind}"


def _place(error: Exception) -> str:
    """File and line of this package that an exception came from, or passed last on its way up."""
    package = Path(__file__).parents[1]
    places = [
        f"{path.relative_to(package.parent).as_posix()}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if (path := Path(frame.f_code.co_filename)).is_relative_to(package)
    ]
    return places[-1]


def _respond(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers={"X-Request-ID": problem.request_id, **(headers or {})},
    )


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return respond(request, error)


async def _on_wrong_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = " ".join(str(part)[:80] for part in first["loc"])
    return respond(request, ProblemError("wrong-fields", f"{place}: {first['msg']}; /docs lists what there is"))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = Problem(
        title=HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=_DETAILS.get(error.status_code, str(error.detail)),
        request_id=request.state.request_id,
    )
    return _respond(request, problem, dict(error.headers or {}))


_DETAILS = {
    404: "no such route; /docs lists them",
    405: "this route does not answer that method; /docs lists the routes",
}
