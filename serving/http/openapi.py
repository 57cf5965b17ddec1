"""The OpenAPI document: what FastAPI derives from the routes, and what happens before a route is looked for."""

from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from pneumo.serving.access.security import METRICS, OPEN, PROBES
from pneumo.serving.contracts.problems import describe_problems, is_protocol_path
from pneumo.serving.contracts.schemas import Problem
from pneumo.serving.http.routes.protocol_schemas import InferenceError
from pneumo.serving.http.tensors import InferenceRequest
from pneumo.serving.http.uploads import JsonImages

API_VERSION = "1.0.0"
"""Version of the HTTP interface, after semantic versioning; generated clients take it as their own."""

SECURITY_SCHEMES = {
    "Key": {"type": "http", "scheme": "bearer", "description": "A key from `pneumo keys add`."},
    "KeyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}

_CONNECTION = (400, 408, 414, 431, 503)
"""Problems of the connection, which is closed: not HTTP, too slow, too long, or one of too many."""

_SOURCE, _KEY = (403, 421), (401, 429)

_HEADERS = {
    "RequestId": {"description": "Also in the log.", "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}},
    "RetryAfter": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
}


def install_openapi(app: FastAPI, *, needs_keys: bool) -> None:
    """Let an application describe itself by `build_openapi`, once."""

    @cache
    def openapi() -> dict[str, Any]:
        return build_openapi(app, needs_keys=needs_keys)

    app.openapi = openapi  # type: ignore[method-assign]


def build_openapi(app: FastAPI, *, needs_keys: bool) -> dict[str, Any]:
    """Return the OpenAPI document of an application; `needs_keys` says whether it asks for API keys."""
    from pneumo.serving.drift.feedback import FeedbackItem, FeedbackItems  # imports SQLAlchemy

    document = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
    )
    bodies = (Problem, InferenceError, JsonImages, InferenceRequest, FeedbackItem, FeedbackItems)
    _, own = models_json_schema(
        [(model, "validation") for model in bodies], ref_template="#/components/schemas/{model}"
    )
    components = document.setdefault("components", {})
    components["schemas"] = dict(sorted((components.get("schemas", {}) | own["$defs"]).items()))
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    components["headers"] = _HEADERS
    if needs_keys:
        components["securitySchemes"] = SECURITY_SCHEMES
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path not in OPEN and needs_keys:
                anybody: list[dict[str, list[str]]] = [{}] if path == METRICS else []  # this machine needs no key
                operation["security"] = [*anybody, *({name: []} for name in SECURITY_SCHEMES)]
            _require_text(operation.get("parameters", []))
            _complete_responses(path, operation["responses"])
    return document


def _complete_responses(path: str, responses: dict[int | str, Any]) -> None:
    """Add the answers that a route does not declare itself, and the headers of all."""
    protocol = is_protocol_path(path)
    if "application/json" in responses.get("422", {}).get("content", {}):
        responses |= describe_problems(422)  # in place of FastAPI's own
    if protocol:
        responses.pop("422", None)
    known = (500, *(() if path in PROBES else _SOURCE), *(() if path in OPEN else _KEY))
    for status, answer in describe_problems(*known, protocol=protocol).items():
        responses.setdefault(status, answer)
    for status, answer in describe_problems(*_CONNECTION).items():
        own = responses.setdefault(status, answer)
        own["content"] = {**own.get("content", {}), **answer["content"]}
    for status, answer in responses.items():
        answer["headers"] = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
        if status in ("429", "503"):
            answer["headers"]["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}


def _require_text(parameters: list[dict[str, Any]]) -> None:
    """Take JSON's null out of the schemas of optional parameters: a URL or a header cannot hold it."""
    for parameter in parameters:
        kinds = parameter["schema"].pop("anyOf", [])
        parameter["schema"] |= next((kind for kind in kinds if kind != {"type": "null"}), {})
