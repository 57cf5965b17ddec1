"""Limits of connections, kept before a request reaches the application.

Uvicorn bounds neither the headers of a request nor the time they take, and httptools collects an unfinished header in
quadratic time. The protocol below subclasses uvicorn's and counts in the callbacks of asyncio and httptools. Whatever
those two do not promise (the answer's end, pipelining) has a test in `tests/serving/process/test_connections.py`.
"""

import asyncio
import logging
import uuid
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, override

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pneumo.serving.access import addresses
from pneumo.serving.contracts.problems import MEDIA_TYPE
from pneumo.serving.contracts.schemas import Problem
from pneumo.serving.contracts.settings import Settings

TICK_S = 0.5
"""Seconds between two looks at the clock of every connection."""

LINGER_S = 2.0
"""Seconds in which a refused client may read the answer: closed at once, what it still sends would reset it."""

NEW_S = 0.5
"""Seconds in which a new connection makes room for no other: its request may be on its way, or wait to be read."""

MAX_PIPELINED = 32
"""Most requests of a connection that wait for their answer."""

_PIECE = 2**16
"""Most bytes parsed at once: the parser may call back for every four of them."""

_LOG_S = 60.0

_log = logging.getLogger("pneumo.service")


class _Reading(Enum):
    """What a client is expected to send: part of the headers, part of the body, or nothing until it asks again."""

    HEAD = auto()
    BODY = auto()
    NOTHING = auto()


class Connections:
    """The open connections of a process.

    If there are too many, the one that has waited longest without a request makes room: many idle or half-sent ones
    keep nobody out. If all have a request under way, or were just opened, the newcomer is refused. Refused ones, which
    linger, do not count, and are as many at most. A trusted proxy (`FORWARDED_ALLOW_IPS`) may open as many as all
    clients together.
    """

    def __init__(self, settings: Settings, count: Callable[[str], object]) -> None:
        """Start without connections; `count` is called with the reason of each refusal."""
        self.settings = settings
        self._count = count
        self._open: set[LimitedProtocol] = set()
        self._refused: dict[LimitedProtocol, None] = {}  # in the order of their refusal
        self._peers: Counter[str] = Counter()
        self._logged: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, config: Config, **options: Any) -> "LimitedProtocol":
        """Return the protocol of a new connection: an instance stands for `uvicorn.Config(http=...)`."""
        return LimitedProtocol(self, config, **options)

    @property
    def unanswered(self) -> bool:
        """Whether a request is under way, or may be on its way through a connection that was just opened."""
        return any(each.expects_answer for each in (*self._open, *self._refused))

    def add(self, connection: "LimitedProtocol") -> None:
        """Add a new connection, and make room for it or refuse it if there are too many."""
        peer, limit = connection.peer, self.settings.max_client_connections
        crowd: list[LimitedProtocol] = []
        if peer and limit and self._peers[peer] >= limit:
            crowd = [each for each in self._open if each.peer == peer]
        elif len(self._open) >= self.settings.max_connections:
            crowd = list(self._open)
        self._open.add(connection)
        self._peers[peer] += 1
        if self._timer is None:
            self._timer = connection.loop.call_later(TICK_S, self._tick, connection.loop)
        new_since = connection.loop.time() - NEW_S
        if waiting := [each for each in crowd if each.is_waiting and (each.has_asked or each.since < new_since)]:
            oldest = min(waiting, key=lambda each: each.since)
            oldest.make_room()
            oldest.transport.close()  # without lingering
            self.remove(oldest)
        elif crowd:
            connection.refuse(503, "connections", "too many open connections; close some, or try again later")

    def remove(self, connection: "LimitedProtocol") -> None:
        """Remove a connection that was closed."""
        self._refused.pop(connection, None)
        if connection in self._open:
            self._open.remove(connection)
            self._peers[connection.peer] -= 1
            if not self._peers[connection.peer]:
                del self._peers[connection.peer]

    def record_refusal(self, connection: "LimitedProtocol", reason: str, status: int, detail: str) -> None:
        """Count a refusal, let the connection linger, and log the first refusal of its kind in a minute."""
        self._count(reason)
        self.remove(connection)
        if len(self._refused) >= self.settings.max_connections:
            next(iter(self._refused)).make_room()
        self._refused[connection] = None
        now = asyncio.get_running_loop().time()
        if now >= self._logged.get(reason, now):
            self._logged[reason] = now + _LOG_S
            _log.warning("refused a connection: %d %s; more within a minute are counted, not logged", status, detail)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        for connection in [*self._open, *self._refused]:
            connection.check_time(loop.time())
        self._timer = loop.call_later(TICK_S, self._tick, loop) if self._open or self._refused else None


class LimitedProtocol(HttpToolsProtocol):
    """One connection, with limits on what its client sends and on how long that takes."""

    def __init__(self, connections: Connections, config: Config, **options: Any) -> None:
        super().__init__(config, **options)
        self.peer = ""
        """The address or network that the limit per client counts for; empty for a trusted proxy."""
        self.since = self.loop.time()
        """Time at which the present wait began."""
        self._shared = connections
        self._settings = connections.settings
        self._reading = _Reading.HEAD
        self._refused = self._offered = False
        self.has_asked = False
        """Whether a request has arrived whole."""
        self._method = b""
        self._unanswered: deque[RequestResponseCycle] = deque()
        self._unread = 0
        self._received = 0
        self._size = 0

    @property
    def is_waiting(self) -> bool:
        """Whether no request is under way."""
        return not self._unanswered

    @property
    def expects_answer(self) -> bool:
        """Whether a request is under way, or has just begun."""
        begins = self._reading is _Reading.HEAD and self.loop.time() < self.since + LINGER_S
        return bool(self._unanswered) or (begins and not self._refused)

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        proxies = getattr(self.app, "trusted_hosts", ())  # of uvicorn's `ProxyHeadersMiddleware` around the application
        if self.client and self.client[0] not in proxies:
            self.peer = addresses.identify_client({"client": self.client})
        self._shared.add(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.remove(self)
        for cycle in self._unanswered:  # uvicorn tells the newest alone, and the others would write to nobody
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        left = memoryview(data)
        while left and not self._refused:
            self._received += len(left[:_PIECE])
            left = left[self._parse(left[:_PIECE]) :]
            if self._received > self._settings.max_header_bytes:
                self._refuse_head()

    def _parse(self, piece: memoryview) -> int:
        """Parse a piece, and return how much of it was parsed."""
        try:
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as end:
                self._pass_over_offer()
                return int(end.args[0])
        except httptools.HttpParserError:
            self.refuse(400, "malformed", "this is not valid HTTP/1.1")
        return len(piece)

    def _pass_over_offer(self) -> None:
        """Parse the head of a request again without its offer of another protocol: httptools would skip the body.

        HTTP/2, TLS and others need not be accepted (RFC 9110, section 7.8).
        """
        if self._refused:
            return
        self.parser, self._offered = httptools.HttpRequestParser(self), False
        head = [self._method + b" " + self.url + b" HTTP/1.1"]
        head += [name + b": " + value for name, value in self.headers if name not in (b"upgrade", b"connection")]
        self.parser.feed_data(b"\r\n".join([*head, b"Connection: close", b"", b""]))

    @override
    def on_message_begin(self) -> None:
        if self._reading is _Reading.NOTHING:
            self._reading, self.since = _Reading.HEAD, self.loop.time()
        self._size = 0
        super().on_message_begin()

    @override
    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._size += len(url)
        if len(self.url) > self._settings.max_url_bytes:
            self.refuse(414, "url", f"the URL is longer than {self._settings.max_url_bytes:,} bytes; shorten it")

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value) + 4
        if len(self.headers) >= self._settings.max_headers or self._size > self._settings.max_header_bytes:
            self._refuse_head()
        elif self._reading is _Reading.HEAD:  # else it trails the body, and must not change the request under way
            super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        if self._refused:
            return
        self._method = self.parser.get_method()
        if self.parser.should_upgrade():
            self._offered = True
            offers = {value.lower() for name, value in self.headers if name == b"upgrade"}
            if self._method == b"CONNECT" or b"websocket" in offers:
                self.refuse(400, "upgrade", "this is no proxy and speaks no WebSocket; /docs lists the routes")
        elif len(self._unanswered) >= MAX_PIPELINED:
            self.refuse(503, "pipelined", f"more than {MAX_PIPELINED} requests wait for their answer")
        else:
            super().on_headers_complete()
            self._reading, self._received = _Reading.BODY, 0
            self._unanswered.append(self.cycle)

    @override
    def on_body(self, body: bytes) -> None:
        self._received = 0
        if not self._refused:
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        if not self._refused and not self._offered:
            self._reading, self._received, self.has_asked = _Reading.NOTHING, 0, True
            super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        self.since = self.loop.time()
        super().on_response_complete()

    @override
    def timeout_keep_alive_handler(self) -> None:
        pass  # `check_time` closes idle connections: uvicorn's timer forgets those that send empty lines

    def check_time(self, now: float) -> None:
        """Close the connection if its client has kept it waiting for too long."""
        waited, settings = now - self.since, self._settings
        if self._refused:
            if waited > LINGER_S:
                self.make_room()
        elif self._unanswered:  # the application has limits of its own, but waits for a client that does not read
            unread = self.transport.get_write_buffer_size()
            if not unread or unread != self._unread:
                self._unread, self.since = unread, now
            elif waited > settings.header_s:
                self.transport.abort()
        elif waited > (settings.keep_alive_s if self._reading is _Reading.NOTHING else settings.header_s):
            self.make_room()

    def make_room(self) -> None:
        """Close a connection without a request under way, or a refused one; tell the client if it has begun one."""
        if self._reading is _Reading.HEAD and self._received and not self._refused:
            detail = f"the headers did not arrive in time; send them within {self._settings.header_s:g} s"
            self.refuse(408, "header-time", detail)
            return
        self._shared.remove(self)
        if self._refused or self.transport.get_write_buffer_size():
            self.transport.abort()  # `close` would wait for a client that does not read
        else:
            self.transport.close()

    def refuse(self, status: int, reason: str, detail: str) -> None:
        """Answer with a problem document unless another answer is due first, and close the connection."""
        if self._refused or self.transport.is_closing():
            return
        self._refused, self.since = True, self.loop.time()
        self._shared.record_refusal(self, reason, status, detail)
        reads_body = len(self._unanswered) == 1 and self._reading is _Reading.BODY and not self.cycle.response_started
        if not self._unanswered or reads_body:
            self.transport.write(self._render_problem(status, detail))
        if not self._unanswered and self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _refuse_head(self) -> None:
        settings = self._settings
        detail = f"more than {settings.max_headers} headers or {settings.max_header_bytes:,} bytes of them; send fewer"
        self.refuse(431, "headers", detail)

    def _render_problem(self, status: int, detail: str) -> bytes:
        phrase, request_id = HTTPStatus(status).phrase, uuid.uuid4().hex
        problem = Problem(title=phrase, status=status, detail=detail, request_id=request_id)
        body = problem.model_dump_json(exclude_none=True).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
            *([(b"retry-after", b"1")] if status == HTTPStatus.SERVICE_UNAVAILABLE else ()),
        ]
        lines = [f"HTTP/1.1 {status} {phrase}".encode(), *(name + b": " + value for name, value in headers), b"", body]
        return b"\r\n".join(lines)
