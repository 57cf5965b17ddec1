"""The path at which a proxy publishes the service."""

import re

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+){1,8}")


class PrefixMiddleware:
    """Sets ASGI's `root_path`, from which pages make their links, for proxies that cut the path off or leave it.

    `X-Forwarded-Prefix` counts whoever sends it: it changes nothing but the links in the answer to the same request,
    and cannot name another host.
    """

    def __init__(self, app: ASGIApp, *, root_path: str = "") -> None:
        """Wrap an application; without `root_path` the header of the proxy names it."""
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            forwarded = Headers(scope=scope).get("x-forwarded-prefix", "").rstrip("/")
            root = self._root_path or scope.get("root_path") or (_PREFIX.fullmatch(forwarded) and forwarded) or ""
            path: str = scope["path"]
            if root and path == root:
                await Response(status_code=308, headers={"Location": f"{root}/"})(scope, receive, send)
                return
            # ASGI's `path` holds `root_path` too, and routers of mounted folders rely on it.
            scope["root_path"], scope["path"] = root, path if path.startswith(f"{root}/") else f"{root}{path}"
        await self._app(scope, receive, send)
