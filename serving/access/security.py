"""Who may ask, how often, and what browsers are told: pure ASGI middlewares."""

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
"""Paths that need no key: probes, the page (which asks for one), and docs, which tell nothing about a patient."""

OPEN_FOLDERS = ("/static/", "/static-offline-docs/")
METRICS = "/metrics"
PAGES = "/drift"
"""Pages that need a key. A browser cannot send one when it follows a link, but it can ask for a password."""

WRONG_KEYS = Rate(20, 60)
"""Wrong keys that an address may try."""

_log = logging.getLogger("pneumo.service")


def needs_keys(settings: Settings) -> bool:
    """Whether requests need a key: by default only where others than this machine can ask."""
    return settings.auth == "on" or (settings.auth == "auto" and not addresses.is_loopback(settings.host))


def open_keys(settings: Settings) -> KeyRing | None:
    """The keys that are let in, or None where none is needed.

    Raises:
        InputError: The key file is damaged, or keys are needed and there is none that holds.
    """
    if not needs_keys(settings):
        return None
    keys = KeyRing(settings.keys)
    if not keys.usable(datetime.now(UTC)):
        place = "PNEUMO_AUTH=on" if settings.auth == "on" else f"--host {settings.host}"
        raise InputError(
            f"{place}: needs an API key, and {settings.keys} holds none that is valid; "
            "`pneumo keys add NAME` makes one, --no-auth lets everybody ask"
        )
    return keys


def build_middleware(settings: Settings) -> list[Middleware]:
    """Build the middlewares before the routes, outermost first: CORS first, since browsers ask it without a key.

    Raises:
        InputError: As `open_keys`.
    """
    gate = Middleware(AccessMiddleware, settings=settings, keys=open_keys(settings))
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "X-API-Key", "X-Request-ID", "Content-Type"],
        expose_headers=["X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy"],
        allow_credentials=False,  # keys are sent by scripts; nothing that a browser adds by itself shall count
    )
    return [cors, gate] if settings.cors_origins else [gate]


class AccessMiddleware:
    """Lets in who has a key and has not asked too often; a request is refused before any of its body is read.

    `scope["state"]["key_name"]` tells who asked. Keys are never logged.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, keys: KeyRing | None) -> None:
        """Stand before an application.

        Args:
            app: What is guarded.
            settings: Of the service.
            keys: Those that are let in; None lets in everybody.
        """
        self._app = app
        self._keys = keys
        self._metrics_public = settings.metrics_public
        # `uvicorn --host 0.0.0.0 pneumo.serving.http.app:...` listens elsewhere than the settings say.
        self._local_only = keys is None and settings.auth == "auto"
        limited = keys is not None or not addresses.is_loopback(settings.host)
        self._limiter = RateLimiter(settings.rate) if settings.rate and limited else None
        self._wrong = RateLimiter(WRONG_KEYS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let in or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        turn = None
        try:
            if self._local_only:
                _check_bound_locally(scope)
            if not self._is_open(scope):
                client = self._authenticate(scope)
                if self._limiter:
                    turn = self._limiter.take(client)
                    _check_turn(turn, self._limiter.rate)
        except ProblemError as error:
            await _refuse(scope, receive, _with_headers(send, self._rate_headers(turn)), error)
            return
        await self._app(scope, receive, _with_headers(send, self._rate_headers(turn)) if turn else send)

    def _is_open(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if path in OPEN or path.startswith(OPEN_FOLDERS):
            return True
        return path == METRICS and (self._metrics_public or addresses.is_local_request(scope))

    def _authenticate(self, scope: Scope) -> str:
        """Whom a request is counted for: the name of its key, or its address where there are no keys."""
        if self._keys is None:
            return addresses.identify_client(scope)
        presented = _presented(scope)
        if presented is None:
            raise ProblemError(
                "unauthorized", "this needs an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            )
        name = self._check_key(scope, presented, self._keys.find_key(presented)).name
        scope.setdefault("state", {})["key_name"] = name
        return name

    def _check_key(self, scope: Scope, presented: str, key: Key | None) -> Key:
        # Wrong secrets of one key lock that key alone, and only from where they come: a client with a mistyped key
        # must not lock out others behind the same proxy. Ids that no key has are counted together.
        guesser = (addresses.identify_client(scope), key.id if key else "")
        turn = self._wrong.look(guesser)
        if not turn.allowed:
            raise ProblemError(
                "too-many-requests",
                f"too many wrong keys came from this address; try again in {turn.retry_s} s",
                retry_after=turn.retry_s,
            )
        if not matches_key(key, presented) or key is None:
            self._wrong.take(guesser)
            _log.warning("request %s: wrong key from %s", _request_id(scope), guesser[0])
            raise ProblemError("unauthorized", "this API key is not known here; it may have been revoked")
        if key.is_expired(datetime.now(UTC)):
            _log.warning("request %s: the key of %s has expired", _request_id(scope), key.name)
            raise ProblemError("unauthorized", "this API key has expired; ask for a new one")
        return key

    def _rate_headers(self, turn: RateDecision | None) -> Headers:
        """As of draft-ietf-httpapi-ratelimit-headers-10."""
        if turn is None or self._limiter is None:
            return ()
        rate = self._limiter.rate
        return (
            (b"ratelimit-policy", b'"default";q=%d;w=%d' % (rate.count, rate.seconds)),
            (b"ratelimit", b'"default";r=%d;t=%d' % (turn.remaining, turn.full_s)),
        )


class HeadersMiddleware:
    """Tells browsers what the pages may do and who may show them; a header that an answer has already is left alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        headers = _security_headers(
            docs=path == "/docs" or path.startswith("/docs/"),
            private=path.startswith(("/v1", "/v2", PAGES)),
            https=scope.get("scheme") == "https",
        )
        await self._app(scope, receive, _with_headers(send, headers))


@functools.cache
def _security_headers(*, docs: bool, private: bool, https: bool) -> Headers:
    # Swagger's page starts with a script of its own and its bundle writes style attributes; both are fixed text.
    inline = "script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; " if docs else ""
    headers = {
        "content-security-policy": f"default-src 'self'; {inline}img-src 'self' blob: data:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'self'",
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


def _with_headers(send: Send, headers: Headers) -> Send:
    """Send with headers that the answer does not have itself."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", ()))
            names = {name.lower() for name, _ in own}
            message["headers"] = [*own, *(header for header in headers if header[0] not in names)]
        await send(message)

    return send_with_headers


async def _refuse(scope: Scope, receive: Receive, send: Send, error: ProblemError) -> None:
    response = problems.respond(Request(scope), error)
    if error.kind == "unauthorized":
        response.headers["WWW-Authenticate"] = _challenge(scope)
    await response(scope, receive, send)


def _challenge(scope: Scope) -> str:
    """What a client shall send: a browser that opens a page asks its user for a password."""
    if _is_page(scope):
        return 'Basic realm="pneumo (the key is the password)", charset="UTF-8"'
    return 'Bearer realm="pneumo"' if _presented(scope) is None else 'Bearer realm="pneumo", error="invalid_token"'


def _is_page(scope: Scope) -> bool:
    path: str = scope["path"]
    return path == PAGES or path.startswith(PAGES + "/")


def _presented(scope: Scope) -> str | None:
    """The key that a request presents, or None; empty for one that cannot be read.

    A password is taken for reading only: browsers add it by themselves, also when another site's page sends a form.
    """
    authorization = own = b""
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization = value
        elif name == b"x-api-key":
            own = value
    if own:  # before the other, which a gateway in front may use for itself
        return own.decode("latin-1")
    scheme, _, credentials = authorization.decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() == "basic" and scope["method"] in ("GET", "HEAD"):
        try:
            return base64.b64decode(credentials, validate=True).decode("latin-1").partition(":")[2]
        except ValueError:  # not base64
            return ""
    return None


def _check_bound_locally(scope: Scope) -> None:
    if addresses.is_bound_elsewhere(scope):
        raise ProblemError(
            "unauthorized",
            "this service was set up for its own machine alone, but listens elsewhere; whoever runs it sets "
            "PNEUMO_HOST to the address it listens on, and adds a key or PNEUMO_AUTH=off",
        )


def _check_turn(turn: RateDecision, rate: Rate) -> None:
    if not turn.allowed:
        raise ProblemError(
            "too-many-requests",
            f"more than {rate.count} requests in {rate.seconds} s; try again in {turn.retry_s} s",
            retry_after=turn.retry_s,
        )


def _request_id(scope: Scope) -> str:
    return str(scope.get("state", {}).get("request_id", "-"))
