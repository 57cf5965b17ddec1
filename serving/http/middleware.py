"""Middlewares for every request: request id, log line, metrics, load shedding, and an answer to every error."""

import re
import time
import uuid

from fastapi import Request
from starlette._utils import get_route_path
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumo.serving.contracts import problems
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.inference.service import Service, State
from pneumo.serving.telemetry.logs import RequestFields, log_request
from pneumo.serving.telemetry.tracing import Span

COSTLY = frozenset({"/v1/predict", "/v1/explain"})
"""Paths of requests with images; for these the path is the route's template."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestMiddleware:
    """Gives each request an id and one log line, without file names, paths that clients invented, or image content.

    Exceptions end here. Otherwise Starlette raises them again after the handler's answer, and uvicorn logs the whole
    traceback, whose messages can quote an image.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status, answered, began = 500, False, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                if self.service.state is State.DRAINING:
                    headers["Connection"] = "close"  # the next request must go to another process
            await send(message)

        with self.service.metrics.track_request(), self.service.tracer.request(scope) as span:
            try:
                await self.app(scope, receive, send_with_id)
            except Exception as error:
                response = problems.respond_to_bug(Request(scope), error)
                if not answered:  # uvicorn closes the connection after half an answer
                    await response(scope, receive, send_with_id)
            finally:
                self._record(scope, span, status, time.perf_counter() - began)

    def _record(self, scope: Scope, span: Span, status: int, seconds: float) -> None:
        state = scope["state"]
        route = _find_route(scope)
        fields = {name: state[name] for name in ("images", "bytes", "model", "lane") if name in state}
        self.service.metrics.count_request(route, scope["method"], status, seconds)
        span.set(**fields)
        span.answered(route, status)
        log_request(
            RequestFields(
                request_id=state["request_id"],
                method=scope["method"],
                route=route,
                status=status,
                duration_ms=seconds * 1000,
                key=state.get("key_name"),
                trace_id=span.trace_id,
                **fields,
            )
        )


def _find_route(scope: Scope) -> str:
    """Return the template of a request's route, even if it was refused before routing; `-` if there is none."""
    if found := scope["state"].get("route") or getattr(scope.get("route"), "path", None):
        return str(found)
    root = scope.get("app_root_path", scope.get("root_path", ""))  # a mounted application sees another root
    path, routes = get_route_path({"path": scope["path"], "root_path": root}), getattr(scope["app"].state, "routes", ())
    return next((route.path for route in routes if route.path_regex.match(path)), "-")


class SheddingMiddleware:
    """Sheds requests with images before routing, as long as their predicted wait is too long.

    The routes shed load too, but an overloaded service spends its time on refusals, so these must be cheap.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or refuse one request."""
        if scope["type"] == "http" and scope["method"] == "POST" and (path := get_route_path(scope)) in COSTLY:
            try:
                self.service.load_shedding.check_wait()
            except ProblemError as error:
                scope["state"]["route"] = path
                await problems.respond(Request(scope), error)(scope, receive, send)
                return
        await self.app(scope, receive, send)
