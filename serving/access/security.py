"""Access control, rate limits and security headers, as pure ASGI middlewares."""

import base64
import functools
import logging
from datetime import UTC, datetime

from fastapi import Request
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumo.serving.access import addresses
from pneumo.serving.access.api_keys import Key, KeyRing, matches_key
from pneumo.serving.access.rate_limits import RateDecision, RateLimiter
from pneumo.serving.contracts import problems
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.setting_types import Rate
from pneumo.serving.contracts.settings import Settings

Headers = tuple[tuple[bytes, bytes], ...]

OPEN = frozenset(
    {
        *("/", "/favicon.ico", "/docs", "/docs/oauth2-redirect", "/openapi.json"),
        *("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"),
    }
)
"""Paths that need no key: probes, the upload page (which asks for a key) and the API documentation."""

OPEN_FOLDERS = ("/static/", "/static-offline-docs/")
METRICS = "/metrics"
PAGES = "/drift"
"""Pages that need a key. A browser that follows a link cannot send one, but it can ask for a password."""

WRONG_KEYS = Rate(20, 60)
"""Wrong keys that an address may try."""

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

_log = logging.getLogger("pneumo.service")


def needs_keys(settings: Settings) -> bool:
    """Return whether requests need a key: by default only if other machines can reach the service."""
    return settings.auth == "on" or (settings.auth == "auto" and not addresses.is_loopback(settings.host))


def open_keys(settings: Settings) -> KeyRing | None:
    """Return the valid API keys, or None if none is needed; raise an `InputError` if there is no valid one."""
    if not needs_keys(settings):
        return None
    keys = KeyRing(settings.keys)
    if not keys.list_valid(datetime.now(UTC)):
        place = "PNEUMO_AUTH=on" if settings.auth == "on" else f"--host {settings.host}"
        raise InputError(
            f"{place}: needs an API key, and {settings.keys} holds none that is valid; "
            "`pneumo keys add NAME` makes one, --no-auth serves without keys"
        )
    return keys


def build_middleware(settings: Settings) -> list[Middleware]:
    """Build the middlewares before the routes, outermost first: CORS first, since preflight requests carry no key."""
    access = Middleware(AccessMiddleware, settings=settings, keys=open_keys(settings))
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
    """Checks API keys and rate limits; a request is refused before any of its body is read.

    `scope["state"]["key_name"]` names the owner of the key. Keys are never logged.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, keys: KeyRing | None) -> None:
        """Wrap an application; without `keys` every client is let in."""
        self._app = app
        self._keys = keys
        self._metrics_public = settings.metrics_public
        # `uvicorn --host 0.0.0.0 pneumo.serving.http.app:...` does not listen where the settings say.
        self._local_only = keys is None and settings.auth == "auto"
        limited = keys is not None or not addresses.is_loopback(settings.host)
        self._limiter = RateLimiter(settings.rate) if settings.rate and limited else None
        self._wrong_keys = RateLimiter(WRONG_KEYS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or refuse one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            if self._local_only and addresses.is_reachable_remotely(scope):
                raise ProblemError(
                    "unauthorized",
                    "this service was set up for its own machine alone, but other machines can reach it; its operator "
                    "must set PNEUMO_HOST to the address it listens on, and add a key or PNEUMO_AUTH=off",
                )
            if not self._is_open(scope):
                client = self._authenticate(scope)
                if self._limiter:
                    rate, decision = self._limiter.rate, self._limiter.take(client)
                    send = _with_headers(send, _rate_headers(rate, decision))
                    if not decision.allowed:
                        raise _too_many(f"more than {rate.count} requests in {rate.seconds} s", decision)
        except ProblemError as error:
            response = problems.respond(Request(scope), error)
            if error.kind == "unauthorized":
                response.headers["WWW-Authenticate"] = _challenge(scope)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if path in OPEN or path.startswith(OPEN_FOLDERS):
            return True
        return path == METRICS and (self._metrics_public or addresses.is_local_request(scope))

    def _authenticate(self, scope: Scope) -> str:
        """Return the client that a rate limit counts for: the name of its key, or its address without keys."""
        if self._keys is None:
            return addresses.identify_client(scope)
        presented = _read_key(scope)
        if presented is None:
            raise ProblemError(
                "unauthorized", "this needs an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            )
        name = self._check_key(scope, presented, self._keys.find_key(presented)).name
        scope.setdefault("state", {})["key_name"] = name
        return name

    def _check_key(self, scope: Scope, presented: str, key: Key | None) -> Key:
        # Wrong secrets lock one key for one address: a client with a mistyped key must not lock out others behind the
        # same proxy. Unknown ids are counted together.
        guesser = (addresses.identify_client(scope), key.id if key else "")
        decision = self._wrong_keys.peek(guesser)
        if not decision.allowed:
            raise _too_many("too many wrong keys came from this address", decision)
        if not matches_key(key, presented) or key is None:
            self._wrong_keys.take(guesser)
            _log.warning("request %s: wrong key from %s", scope["state"]["request_id"], guesser[0])
            raise ProblemError("unauthorized", "unknown API key; it may have been revoked")
        if key.is_expired(datetime.now(UTC)):
            _log.warning("request %s: the key of %s has expired", scope["state"]["request_id"], key.name)
            raise ProblemError("unauthorized", "this API key has expired; ask for a new one")
        return key


class HeadersMiddleware:
    """Adds the security headers that an answer does not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request with security headers."""
        if scope["type"] == "http":
            path: str = scope["path"]
            headers = _security_headers(
                "docs" if path == "/docs" or path.startswith("/docs/") else "page",
                private=path.startswith(("/v1", "/v2", PAGES)),
                https=scope.get("scheme") == "https",
            )
            send = _with_headers(send, headers)
        await self._app(scope, receive, send)


@functools.cache
def _security_headers(policy: str, *, private: bool, https: bool) -> Headers:
    headers = {
        "content-security-policy": POLICIES[policy],
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "SAMEORIGIN",  # the drift dashboard shows reports in frames
    }
    if private:
        headers["cache-control"] = "no-store"
    if https:
        headers["strict-transport-security"] = "max-age=31536000"
    return tuple((name.encode(), value.encode()) for name, value in headers.items())


def _rate_headers(rate: Rate, decision: RateDecision) -> Headers:
    """Return the headers of draft-ietf-httpapi-ratelimit-headers-10."""
    return (
        (b"ratelimit-policy", b'"default";q=%d;w=%d' % (rate.count, rate.seconds)),
        (b"ratelimit", b'"default";r=%d;t=%d' % (decision.remaining, decision.full_s)),
    )


def _with_headers(send: Send, headers: Headers) -> Send:
    """Return a `send` that adds the headers that an answer does not set itself."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", ()))
            names = {name.lower() for name, _ in own}
            message["headers"] = [*own, *(header for header in headers if header[0] not in names)]
        await send(message)

    return send_with_headers


def _too_many(reason: str, decision: RateDecision) -> ProblemError:
    detail = f"{reason}; try again in {decision.retry_s} s"
    return ProblemError("too-many-requests", detail, retry_after=decision.retry_s)


def _challenge(scope: Scope) -> str:
    """Return the `WWW-Authenticate` header; for pages it makes the browser ask for a password."""
    path: str = scope["path"]
    if path == PAGES or path.startswith(PAGES + "/"):
        return 'Basic realm="pneumo (the key is the password)", charset="UTF-8"'
    return 'Bearer realm="pneumo"' if _read_key(scope) is None else 'Bearer realm="pneumo", error="invalid_token"'


def _read_key(scope: Scope) -> str | None:
    """Return the key that a request presents, None if it presents none, or "" if it cannot be decoded.

    A password counts for GET and HEAD only: browsers also send it when another site's page posts a form.
    """
    headers = dict(scope["headers"])
    if own := headers.get(b"x-api-key"):  # first, since a gateway in front may use `Authorization` for itself
        return str(own.decode("latin-1"))
    scheme, _, credentials = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return str(credentials.strip())
    if scheme.lower() == "basic" and scope["method"] in ("GET", "HEAD"):
        try:
            return base64.b64decode(credentials, validate=True).decode("latin-1").partition(":")[2]
        except ValueError:  # not base64
            return ""
    return None
