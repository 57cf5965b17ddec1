"""What happens to every request: an id, one line in the log, counts, and an answer whatever breaks."""

import re
import time
import uuid

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumo.serving.contracts import problems
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.inference.service import Service, State
from pneumo.serving.telemetry.logs import RequestFields, log_request
from pneumo.serving.telemetry.tracing import Span

COSTLY = frozenset({"/v1/predict", "/v1/explain"})
"""Paths of requests that bring images, where the path is the route's template."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestMiddleware:
    """Gives each request an id and one line in the log: no file name, no path a client made up, no image content.

    Exceptions end here. Further out Starlette raises them again whatever a handler answers, and uvicorn logs the whole
    traceback with messages that can quote an image.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
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
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                if self.service.state is State.DRAINING:
                    headers["Connection"] = "close"  # the next request shall go to another process
            await send(message)

        with self.service.metrics.track_request(), self.service.tracer.request(scope) as span:
            try:
                await self.app(scope, receive, send_with_id)
            except Exception as error:
                response = problems.respond_to_bug(Request(scope), error)
                if not answered:  # uvicorn closes the connection on half an answer
                    await response(scope, receive, send_with_id)
            finally:
                route = scope["state"].get("route") or getattr(scope.get("route"), "path", "-")
                self._tell(scope, span, route, status, time.perf_counter() - began)

    def _tell(self, scope: Scope, span: Span, route: str, status: int, seconds: float) -> None:
        state = scope["state"]
        known = {name: state[name] for name in ("images", "bytes", "model", "lane") if name in state}
        self.service.metrics.count_request(route, scope["method"], status, seconds)
        span.set(**known)
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
                **known,
            )
        )


class SheddingMiddleware:
    """Turns images away before anything is done for them while those in front would keep them waiting too long.

    The routes do so too, but a service that is asked for several times what it can do spends its time on refusals, so
    that those must cost little.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one request."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in COSTLY:
            try:
                self.service.load_shedding.check_wait()
            except ProblemError as error:
                scope["state"]["route"] = scope["path"]
                await problems.respond(Request(scope), error)(scope, receive, send)
                return
        await self.app(scope, receive, send)
