"""HEAD for every route that answers GET."""

from starlette.types import ASGIApp, Receive, Scope, Send


class HeadMiddleware:
    """Routes HEAD as GET (RFC 9110, section 9.3.2); the server sends no body, since its own scope still says HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        routed = {**scope, "method": "GET"}
        try:
            await self._app(routed, receive, send)
        finally:
            scope["route"] = routed.get("route")  # for the log line
