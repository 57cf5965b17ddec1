"""Access control, rate limits and security headers, as pure ASGI middlewares."""

import functools
from urllib.parse import quote

from fastapi import Request
from starlette._utils import get_route_path  # the router's own: access control and routing must see the same path
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumo.serving.access import addresses
from pneumo.serving.access.authentication import Authenticator, open_keys, read_key, too_many
from pneumo.serving.access.origins import OriginPolicy
from pneumo.serving.access.rate_limits import RateDecision, RateLimiter
from pneumo.serving.contracts import problems
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.setting_types import Rate
from pneumo.serving.contracts.settings import Settings

HeaderList = tuple[tuple[bytes, bytes], ...]

PROBES = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Paths that answer everybody, under any host name: Kubernetes, for one, names an address of the pod."""

SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
OPEN = PROBES | {"/", "/favicon.ico", "/docs", "/docs/oauth2-redirect", "/openapi.json", SIGN_IN, SIGN_OUT}
"""Paths that need no key: probes, the upload page (which asks for a key), signing in, and the API documentation."""

OPEN_FOLDERS = ("/static/", "/static-offline-docs/")
METRICS = "/metrics"
PAGES = "/drift"
"""Pages that need a key; a browser without a session is sent to the sign-in page."""

_COMMON = "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"

# plotly.js adds the style sheet of its maps to the page; its own rules are in `drift.html`. The first hash is of an
# empty style sheet.
_PLOTLY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-gG0b4ixT/IQUp7JJLbyKcpYcYDjq2Wp8NGv3f+aasqo='"

POLICIES = {
    "page": f"default-src 'self'; img-src 'self' blob: data:; {_COMMON}",
    # Swagger's page has an inline script, and its bundle writes style attributes; both are fixed text.
    "docs": "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    f"img-src 'self' blob: data:; {_COMMON}",
    "dashboard": f"default-src 'self'; style-src 'self' {_PLOTLY}; img-src 'self' data:; {_COMMON}",
    # Evidently's report is one file with inline scripts. The sandbox keeps it from reading anything of this service,
    # and without a source to connect to it can send nothing.
    "report": "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
}
"""The Content-Security-Policy of each kind of page."""

_BASIC = 'Basic realm="pneumo (the key is the password)", charset="UTF-8"'


def build_middleware(settings: Settings) -> list[Middleware]:
    """Build the middlewares before the routes, outermost first: CORS first, since preflight requests carry no key."""
    keys = open_keys(settings)
    authenticator = Authenticator(keys) if keys else None
    access = Middleware(AccessMiddleware, settings=settings, authenticator=authenticator)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "X-API-Key", "X-Request-ID", "Content-Type"],
        expose_headers=["X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy"],
        allow_credentials=False,  # scripts send keys; what a browser adds by itself must not count
    )
    return [cors, access] if settings.cors_origins else [access]


class AccessMiddleware:
    """Checks host, page, API key and rate limit; a request is refused before any of its body is read.

    `scope["state"]` gets `authenticator`, for signing in, and `key_name`, the owner of the key. Keys are never logged.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, authenticator: Authenticator | None) -> None:
        """Wrap an application; without `authenticator` no key is needed."""
        self._app = app
        self._authenticator = authenticator
        self._metrics_public = settings.metrics_public
        self._origins = OriginPolicy(settings)
        self._checks_host = authenticator is None or bool(settings.hosts)
        # `uvicorn --host 0.0.0.0 pneumo.serving.http.app:...` does not listen where the settings say.
        self._local_only = authenticator is None and settings.auth == "auto"
        limited = authenticator is not None or not addresses.is_loopback(settings.host)
        self._limiter = RateLimiter(settings.rate) if settings.rate and limited else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or refuse one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = get_route_path(scope)
        scope.setdefault("state", {})["authenticator"] = self._authenticator
        try:
            self._check_source(scope, path)
            if not self._is_open(scope, path):
                client = self._identify_client(scope)
                if self._limiter:
                    rate, decision = self._limiter.rate, self._limiter.take(client)
                    send = _with_headers(send, _rate_headers(rate, decision))
                    if not decision.allowed:
                        raise too_many(f"more than {rate.count} requests in {rate.seconds} s", decision)
        except ProblemError as error:
            await _refuse(scope, path, error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_source(self, scope: Scope, path: str) -> None:
        """Raise a `ProblemError` if the request may come from a page that is not the service's own."""
        if self._local_only and addresses.is_reachable_remotely(scope):
            raise ProblemError(
                "unauthorized",
                "this service was set up for its own machine alone, but other machines can reach it; its operator "
                "must set PNEUMO_HOST to the address it listens on, and add a key or PNEUMO_AUTH=off",
            )
        if path in PROBES:
            return
        if self._checks_host:
            self._origins.check_host(scope)
        if self._authenticator is None or path in (SIGN_IN, SIGN_OUT):
            self._origins.check_page(scope, proof=path in (SIGN_IN, SIGN_OUT))

    def _is_open(self, scope: Scope, path: str) -> bool:
        if path in OPEN or path.startswith(OPEN_FOLDERS):
            return True
        if path != METRICS or self._metrics_public:
            return path == METRICS
        return addresses.is_local_request(scope) and self._origins.has_own_host(scope)  # not a rebound name

    def _identify_client(self, scope: Scope) -> str:
        """Return the client that a rate limit counts for: the name of its key, or its address without keys."""
        if self._authenticator is None:
            return addresses.identify_client(scope)
        presented = read_key(scope)
        if presented is not None:
            key = self._authenticator.check_key(scope, presented)
        else:
            session = self._authenticator.find_session(scope)
            if session is None:
                detail = "this needs an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
                raise ProblemError("unauthorized", detail)
            self._origins.check_page(scope, proof=True)
            key = session
        scope["state"]["key_name"] = key.name
        return key.name


class HeadersMiddleware:
    """Adds the security headers that an answer does not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request with security headers."""
        if scope["type"] == "http":
            path = get_route_path(scope)
            headers = _security_headers(
                "docs" if path == "/docs" or path.startswith("/docs/") else "page",
                private=path.startswith(("/v1", "/v2", PAGES, SIGN_IN)),
                https=scope.get("scheme") == "https",
            )
            send = _with_headers(send, headers)
        await self._app(scope, receive, send)


@functools.cache
def _security_headers(policy: str, *, private: bool, https: bool) -> HeaderList:
    headers = {
        "content-security-policy": POLICIES[policy],
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "referrer-policy": "same-origin",  # without it, forms of our own pages send `Origin: null`
        "x-content-type-options": "nosniff",
        "x-frame-options": "SAMEORIGIN",  # the drift dashboard shows reports in frames
    }
    if private:
        headers["cache-control"] = "no-store"
    if https:
        headers["strict-transport-security"] = "max-age=31536000"
    return tuple((name.encode(), value.encode()) for name, value in headers.items())


def _rate_headers(rate: Rate, decision: RateDecision) -> HeaderList:
    """Return the headers of draft-ietf-httpapi-ratelimit-headers-10."""
    return (
        (b"ratelimit-policy", b'"default";q=%d;w=%d' % (rate.count, rate.seconds)),
        (b"ratelimit", b'"default";r=%d;t=%d' % (decision.remaining, decision.full_s)),
    )


def _with_headers(send: Send, headers: HeaderList) -> Send:
    """Return a `send` that adds the headers that an answer does not set itself."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", ()))
            names = {name.lower() for name, _ in own}
            message["headers"] = [*own, *(header for header in headers if header[0] not in names)]
        await send(message)

    return send_with_headers


def _refuse(scope: Scope, path: str, error: ProblemError) -> Response:
    is_page = path == PAGES or path.startswith(PAGES + "/")
    headers = Headers(scope=scope)
    if is_page and error.kind == "unauthorized" and read_key(scope) is None and _opens_page(headers):
        return _ask_to_sign_in(scope, path, headers)
    response = problems.respond(Request(scope), error)
    if error.kind == "unauthorized":
        invalid = "" if read_key(scope) is None else ', error="invalid_token"'
        # A browser would ask for a password, which our own page does better.
        basic = is_page and "sec-fetch-mode" not in headers
        response.headers["WWW-Authenticate"] = _BASIC if basic else f'Bearer realm="pneumo"{invalid}'
    return response


def _opens_page(headers: Headers) -> bool:
    """Return whether a browser opens a page, and not a script or another program asks."""
    mode = headers.get("sec-fetch-mode")
    return mode == "navigate" or (mode is None and "text/html" in headers.get("accept", ""))


def _ask_to_sign_in(scope: Scope, path: str, headers: Headers) -> Response:
    """Return the way to the sign-in page and back.

    A browser sends no cookie for a link on another site. There the page is loaded once more, by itself.
    """
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        again = '<!doctype html><meta http-equiv="refresh" content="0"><title>pneumo</title>'
        return HTMLResponse(again, 401, {"WWW-Authenticate": 'Bearer realm="pneumo"'})
    query = scope.get("query_string", b"").decode("latin-1")
    back = quote(path[1:] + (f"?{query}" if query else ""), safe="")
    up = "../" * (path.count("/") - 1)  # relative, since a proxy may publish the service at any path
    return Response(status_code=303, headers={"Location": f"{up}{SIGN_IN[1:]}?next={back}"})
