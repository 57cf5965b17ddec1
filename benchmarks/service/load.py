"""A load generator: HTTP/1.1 on plain streams, so that it costs less than what it measures."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import uvloop

TIMEOUT_S = 120
_PAUSE_S = 0.02
_LONGEST = 3.0


@dataclass(frozen=True)
class Target:
    """Address of the requests, and the way an image becomes one."""

    port: int
    path: str
    media_type: str | None = None
    form_field: str | None = None
    """Name of the form field that holds the image; without one the image is the whole body."""

    def request(self, image: bytes | None = None) -> bytes:
        """The bytes of a request: POST of an image, or GET."""
        head = f"Host: 127.0.0.1:{self.port}\r\nAccept: */*\r\n"
        if image is None:
            return f"GET {self.path} HTTP/1.1\r\n{head}\r\n".encode()
        body, media_type = image, self.media_type
        if self.form_field:
            edge = "pneumo-benchmark-0123456789"
            media_type = f"multipart/form-data; boundary={edge}"
            part = f'--{edge}\r\nContent-Disposition: form-data; name="{self.form_field}"; filename="a.jpeg"\r\n'
            body = f"{part}Content-Type: image/jpeg\r\n\r\n".encode() + image + f"\r\n--{edge}--\r\n".encode()
        head = f"POST {self.path} HTTP/1.1\r\n{head}Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


@dataclass(frozen=True)
class Reply:
    """Status 0 stands for no answer at all: refused, reset, cut off, or later than `TIMEOUT_S`."""

    status: int
    body: bytes = b""
    retry_after: bool = False


class Connection:
    """One connection that is kept, and opened again if the server ended it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> Reply:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._ask(request)
        except (OSError, EOFError, ValueError, TimeoutError):
            self.close()
            return Reply(0)

    async def _ask(self, request: bytes) -> Reply:
        if self._streams and self._streams[0].at_eof():  # the server has made room for others; clients look, too
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await self._body(reader, head)
        if b"\r\nconnection: close" in head:
            self.close()
        return Reply(int(head[9:12]), body, b"\r\nretry-after:" in head)

    @staticmethod
    async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
        _, found, rest = head.partition(b"\r\ncontent-length:")
        if found:
            return await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
        chunks = []
        while size := int(await reader.readline(), 16):
            chunks.append((await reader.readexactly(size + 2))[:-2])
        await reader.readline()
        return b"".join(chunks)

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None


@dataclass
class Tally:
    """Counts and latencies of the requests in one measurement.

    Attributes:
        seconds: Length of the window.
        latencies: Seconds of each request that was answered with 200 within the window.
        shed: Answered with 503.
        shed_without_retry_after: Those of them that do not say when to come back.
        failed: Anything else, also outside the window.
        sent: Requests of an open loop.
        late_s: How far an open loop's worst request was sent behind its time.
        answered: All answers with 200, outside the window too.
        generator: Share of a core that the generator used.
    """

    seconds: float
    latencies: list[float] = field(default_factory=list)
    shed: int = 0
    shed_without_retry_after: int = 0
    failed: int = 0
    sent: int = 0
    late_s: float = 0.0
    answered: int = 0
    generator: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def add(self, reply: Reply, latency: float, *, inside: bool) -> None:
        self.answered += reply.status == 200
        if reply.status == 503:
            self.shed += inside
            self.shed_without_retry_after += inside and not reply.retry_after
        elif reply.status != 200:
            self.failed += 1
        elif inside:
            self.latencies.append(latency)


def closed_loop(target: Target, images: Sequence[bytes] | None, concurrency: int, seconds: float) -> Tally:
    """So many clients, each sending its next request once it has its answer; a ramp before is not counted.

    Where hardly anything is answered in time, as by a server far slower than the others, the window is as long as it
    takes: until each client had an answer, but no more than `_LONGEST` times as long.
    """
    requests = [target.request(image) for image in images] if images else [target.request()]
    return uvloop.run(_closed_loop(target.port, requests, concurrency, seconds))


async def _closed_loop(port: int, requests: Sequence[bytes], concurrency: int, seconds: float) -> Tally:
    tally = Tally(seconds)
    began = time.perf_counter() + min(1.0, seconds / 4)
    longest = began + _LONGEST * seconds

    def ended(now: float) -> bool:
        return now >= longest or (now >= began + seconds and len(tally.latencies) + tally.shed >= concurrency)

    async def client(first: int) -> None:
        connection = Connection(port)
        for number in itertools.count(first):
            sent = time.perf_counter()
            if ended(sent):
                break
            reply = await connection.ask(requests[number % len(requests)])
            now = time.perf_counter()
            inside = now >= began and not ended(now)
            tally.add(reply, now - sent, inside=inside)
            if inside:
                tally.seconds = max(seconds, now - began)
            if reply.status != 200:
                await asyncio.sleep(_PAUSE_S)
        connection.close()

    clock, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client(number) for number in range(concurrency)))
    tally.generator = (time.process_time() - used) / (time.perf_counter() - clock)
    return tally


def open_loop(target: Target, images: Sequence[bytes], rate: float, seconds: float) -> Tally:
    """Requests that come at random (Poisson) and do not wait for each other, as those of independent clients do.

    Latencies count from the time a request was due, so that a server that stalls cannot hide it.
    """
    return uvloop.run(_open_loop(target.port, [target.request(image) for image in images], rate, seconds))


async def _open_loop(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> Tally:
    tally = Tally(seconds)
    idle: list[Connection] = []
    under_way: set[asyncio.Task[None]] = set()
    chance = random.Random(0)

    async def send(request: bytes, due: float) -> None:
        connection = idle.pop() if idle else Connection(port)
        tally.late_s = max(tally.late_s, time.perf_counter() - due)
        reply = await connection.ask(request)
        tally.add(reply, time.perf_counter() - due, inside=True)
        idle.append(connection)

    clock, used = time.perf_counter(), time.process_time()
    due = clock
    while due < clock + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(send(requests[tally.sent % len(requests)], due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        tally.sent += 1
        due += chance.expovariate(rate)
    await asyncio.gather(*under_way)
    tally.seconds = time.perf_counter() - clock
    tally.generator = (time.process_time() - used) / tally.seconds
    for connection in idle:
        connection.close()
    return tally
