"""Request bodies, received within limits on time and memory, and decompressed if they have a content coding."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.inference.service import Service

_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content codings (RFC 9110, section 8.4.1) that are decompressed, each with zlib's `wbits`."""

_ACCEPTED = "gzip, deflate"

_PIECE = 2**16
"""Most decompressed bytes at a time."""


class BodyMiddleware:
    """Lets routes receive a body within limits on its pauses, its rate, and the memory of all bodies.

    Memory is reserved as bytes arrive. An error is raised when a route reads the body, and answered like its others.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on one request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        settings, headers = self.service.settings, scope["headers"]
        receive = _limit_time(receive, settings)
        listed = b",".join(value for name, value in headers if name == b"content-encoding").decode("latin-1").lower()
        codings = [each for coding in listed.split(",") if (each := coding.strip()) not in ("", "identity")]
        if codings and (len(codings) > 1 or codings[0] not in _WINDOWS):
            receive, send = _refuse(codings), _add_accepted(send)
        elif codings:
            receive = _decompress(receive, codings[0], settings.max_bytes)
        with self.service.load_shedding.hold_body() as reserve:
            declared = dict(headers).get(b"content-length", b"")
            size = int(declared) if declared.isdigit() and len(declared) < 20 else 0
            await self.app(scope, _reserve_memory(receive, reserve, min(size, settings.max_bytes)), send)


def _limit_time(receive: Receive, settings: Settings) -> Receive:
    received, waited, more, ends = 0, 0.0, True, time.perf_counter() + settings.timeout_s

    async def receive_in_time() -> Message:
        nonlocal received, waited, more
        if not more:  # a route that asks whether its client is still there
            return await receive()
        began = time.perf_counter()
        try:
            async with asyncio.timeout(min(settings.body_pause_s, ends - began)):
                message = await receive()
        except TimeoutError:
            detail = f"no byte of the body came for {settings.body_pause_s:g} s; send it without such pauses"
            if ends - began < settings.body_pause_s:
                limit = f"within {settings.timeout_s:g} s"
                detail = f"the body did not arrive {limit}; send less, or over a faster connection"
            raise ProblemError("request-timeout", detail) from None
        received += len(message.get("body", b""))
        waited += time.perf_counter() - began
        more = message.get("more_body", False)
        if more and received < settings.min_body_rate * (waited - settings.body_pause_s):
            detail = f"the body comes at less than {settings.min_body_rate:,} bytes a second; use a faster connection"
            raise ProblemError("request-timeout", detail)
        return message

    return receive_in_time


def _reserve_memory(receive: Receive, reserve: Callable[[int, int], None], declared: int) -> Receive:
    begun = False

    async def receive_reserved() -> Message:
        nonlocal begun
        if not begun:
            begun = True
            reserve(0, declared)
        message = await receive()
        reserve(len(message.get("body", b"")), 0)
        return message

    return receive_reserved


def _decompress(receive: Receive, coding: str, max_bytes: int) -> Receive:
    """Return a `receive` that decompresses a body, and reads at most `max_bytes` of it."""
    pieces = _inflate(receive, coding, max_bytes)

    async def receive_decompressed() -> Message:
        piece = await anext(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    return receive_decompressed


async def _inflate(receive: Receive, coding: str, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield a decompressed body, at most `_PIECE` bytes at a time."""
    stream, received, more = zlib.decompressobj(_WINDOWS[coding]), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ProblemError("unreadable-body", "the connection closed before the end of the body")
        waiting, more, has_rest = message.get("body", b""), message.get("more_body", False), False
        received += len(waiting)
        if received > max_bytes:
            raise ProblemError("too-large", f"the body is larger than {max_bytes:,} bytes")
        while waiting or has_rest:
            await asyncio.sleep(0)  # a few bytes can become many pieces: others have their turn
            if stream.eof and coding == "deflate":
                raise ProblemError("unreadable-body", "bytes after the end of the deflate data")
            if stream.eof:  # gzip data may have several members
                stream = zlib.decompressobj(_WINDOWS[coding])
            try:
                piece = stream.decompress(waiting, _PIECE)
            except zlib.error:
                problem = f"not {coding} data, as its Content-Encoding says"
                raise ProblemError("unreadable-body", problem) from None
            waiting = stream.unconsumed_tail or stream.unused_data
            has_rest = len(piece) == _PIECE and not stream.eof
            if piece:
                yield piece
    if not stream.eof:
        raise ProblemError("unreadable-body", f"the {coding} data are cut off")


def _refuse(codings: list[str]) -> Receive:
    several = f"{len(codings)} content codings"
    shown = several if len(codings) > 1 else f"the content coding {codings[0][:40]!r}"

    async def refuse() -> Message:
        raise ProblemError("unsupported-media-type", f"cannot read {shown}; send one of {_ACCEPTED}, or none")

    return refuse


def _add_accepted(send: Send) -> Send:
    async def send_with_codings(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Accept-Encoding"] = _ACCEPTED
        await send(message)

    return send_with_codings
