"""Middlewares for every request: request id, log line, metrics, an answer to every error, and the way to its route."""

import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request, Response
from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumo.serving.contracts import problems
from pneumo.serving.inference.service import Service, State
from pneumo.serving.telemetry.logs import RequestFields, log_request
from pneumo.serving.telemetry.tracing import Span

Endpoint = Callable[[Request], Awaitable[Response | None]]

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
            request_id = os.urandom(16).hex()
        scope.setdefault("state", {})["request_id"] = request_id
        status, answered, began = 500, False, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                own = {b"x-request-id": request_id.encode()}
                if self.service.state is State.DRAINING:
                    own[b"connection"] = b"close"  # the next request must go to another process
                kept = [header for header in message.get("headers", ()) if header[0] not in own]
                message["headers"] = [*kept, *own.items()]
            await send(message)

        with self.service.metrics.in_progress.track_inprogress(), self.service.tracer.request(scope) as span:
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


class DispatchMiddleware:
    """Passes requests on to the routes: some without a router, HEAD as GET (RFC 9110, section 9.3.2).

    FastAPI's router and its layers took a third of the event loop's time per image, and an overloaded service spends
    its time on refusals, so these must be cheap. The server sends no body for HEAD, since its own scope still says so.
    """

    def __init__(self, app: ASGIApp, service: Service, direct: Mapping[str, Endpoint | None]) -> None:
        """Wrap an application.

        Args:
            app: The application, with all routes.
            service: The service, for load shedding.
            direct: Endpoints of POST requests with images by path, which is the route's template; None for a route that
                the router finds, if the request is not refused.
        """
        self.app = app
        self.service = service
        self.direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method = scope.get("method")
        if method == "HEAD":
            routed = {**scope, "method": "GET"}
            try:
                await self.app(routed, receive, send)
            finally:
                scope["route"] = routed.get("route")  # for the log line
            return
        if method == "POST" and (path := get_route_path(scope)) in self.direct:
            scope["state"]["route"] = path
            response = await problems.answer(Request(scope, receive), self.direct[path] or self._shed)
            if response:
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _shed(self, _request: Request) -> None:
        self.service.load_shedding.check_wait()
