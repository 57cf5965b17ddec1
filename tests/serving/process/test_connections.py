"""Attacks on the connections of a real server: what a client may open, send and hold without a valid request."""

import asyncio
import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from pneumo.serving.contracts.settings import Settings
from pneumo.serving.process.connections import NEW_S, Connections, LimitedProtocol
from tests.support.server_process import ServerProcess
from tests.support.waiting import until

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
LIMITS = {
    "max_bytes": 3_000_000,
    "max_pending_bytes": 3_000_000,
    "header_s": 1,
    "body_pause_s": 1,
    "keep_alive_s": 1,
    "max_connections": 400,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory, bundle) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server") / "server.py", bundle.folder, **LIMITS)
    yield server
    log = server.stop()
    assert not [line for line in log.splitlines() if "ERROR" in line or "Traceback" in line]


class Peer:
    """A client that sends what it likes."""

    def __init__(self, server: ServerProcess, sends: bytes = b"") -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), 20)
        self.send(sends)

    def send(self, data: bytes) -> bool:
        """Send, and return whether the server still takes it."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def send_slowly(self, data: bytes, pause_s: float) -> bool:
        """Send, and wait if the server took it."""
        if taken := self.send(data):
            time.sleep(pause_s)
        return taken

    def receive(self) -> bytes:
        """What comes until the server closes the connection."""
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while chunk := self.socket.recv(65536):
                received += chunk
        self.socket.close()
        return bytes(received)

    def receive_answer(self) -> bytes:
        """One answer on a connection that stays open."""
        received = bytearray()
        while not (head := re.match(rb".*?content-length: (\d+).*?\r\n\r\n", received, re.DOTALL | re.IGNORECASE)):
            received += self._some()
        while len(received) < head.end() + int(head[1]):
            received += self._some()
        return bytes(received)

    def _some(self) -> bytes:
        chunk = self.socket.recv(65536)
        assert chunk, "the server closed the connection"
        return chunk


def refused(answer: bytes, status: int) -> dict:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0].startswith(f"http/1.1 {status} "), answer[:300]
    assert {"content-type: application/problem+json", "connection: close"} <= set(lines)
    problem = json.loads(body)
    assert problem["status"] == status
    assert f"x-request-id: {problem['request_id']}" in lines
    return problem


def is_alive(server: ServerProcess) -> bool:
    """Whether one of a few requests is answered within a second: a busy machine delays some, a stalled loop all."""
    for _ in range(5):
        began = time.monotonic()
        answer = Peer(server, GET + b"\r\n").receive_answer()
        if answer.startswith(b"HTTP/1.1 200") and time.monotonic() - began < 1:
            return True
    return False


def count(server: ServerProcess, reason: str) -> float:
    text = httpx.get(f"{server.address}/metrics").text
    found = re.search(rf'pneumo_refused_connections_total{{reason="{reason}"}} ([\d.]+)', text)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (GET + b"X: ", b"a" * 65536),
        (b"GET /", b"a" * 65536),
        (b"", b"\r\n" * 32768),
        (GET, b"".join(b"X-%04d: 1\r\n" % number for number in range(6000))),
        (b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"a" * 65536),
        (b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 65536),
    ],
    ids=["value", "url", "lines", "many", "trailer", "extension"],
)
def test_endless_heads_stall_nobody_and_take_no_memory(server, head, more):
    before = server.memory()
    peers = [Peer(server, head) for _ in range(4)]
    for _ in range(200):  # 50 MB in all
        if sum(peer.send(more) for peer in peers) == 0:
            break
    assert is_alive(server)
    for peer in peers:
        peer.receive()
    assert server.memory() - before < 20_000_000


@pytest.mark.parametrize(
    ("sends", "status"),
    [
        (GET + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (GET + b"".join(b"X-%d: 1\r\n" % number for number in range(101)) + b"\r\n", 431),
        (b"GET /?" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"CONNECT ward:443 HTTP/1.1\r\nHost: ward:443\r\n\r\n", 400),
        (b"POST /v1/predict HTTP/1.1\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (GET + b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n", 400),
    ],
)
def test_heads_beyond_a_limit_are_problems_that_the_client_can_read(server, sends, status):
    peer = Peer(server, sends)
    for _ in range(20):  # what is sent on must not reset the connection before the answer was read
        peer.send(b"a" * 1000)
    assert refused(peer.receive(), status)["detail"]
    assert is_alive(server)


def test_heads_at_the_limits_are_answered(server):
    headers = b"".join(b"X-%d: %b\r\n" % (number, b"a" * 290) for number in range(90))
    peer = Peer(server, b"GET /healthz?" + b"a" * 4000 + b" HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")
    assert peer.receive_answer().startswith(b"HTTP/1.1 200")


def test_three_hundred_half_sent_requests_keep_nobody_out_and_are_given_up(server):
    before = count(server, "header-time")
    peers = [Peer(server, GET) for _ in range(300)]
    assert is_alive(server)
    answers = [peer.receive() for peer in peers]
    assert len([answer for answer in answers if answer and refused(answer, 408)]) >= 100  # others are just closed
    assert count(server, "header-time") - before == 300


def test_if_there_are_too_many_connections_the_one_that_has_waited_longest_makes_room(server):
    asking = Peer(server, GET + b"\r\n")
    assert asking.receive_answer().startswith(b"HTTP/1.1 200")
    peers = [Peer(server, b"G") for _ in range(600)]
    until(lambda: is_alive(server))
    assert asking.receive() == b""
    for peer in peers:
        peer.socket.close()


def test_a_crowd_of_newcomers_is_answered_or_told_to_come_back_and_never_reset(server, png):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nConnection: close\r\n"

    def ask_in_time() -> bool:
        began = time.monotonic()
        peers = [Peer(server) for _ in range(600)]  # all are open before the first has asked
        for peer in peers:
            peer.send(head + b"Content-Length: %d\r\n\r\n" % len(png) + png)
        took_s = time.monotonic() - began
        answers.update(peer.receive()[:12] for peer in peers)
        return took_s < NEW_S

    answers: set[bytes] = set()
    while not ask_in_time():  # a busy machine: those that asked too late may have made room
        answers.clear()
    assert b"HTTP/1.1 200" in answers
    assert answers <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}


def test_a_newcomer_is_refused_if_all_others_are_new_and_else_takes_the_room_of_the_oldest():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nobody asks")

    reasons: list[str] = []
    connections = Connections(Settings(max_connections=2), reasons.append)
    config = Config(app, log_config=None)
    options = {"server_state": ServerState(), "app_state": {}}
    clients: list[socket.socket] = []

    async def connect() -> LimitedProtocol:
        client, accepted = socket.socketpair()
        clients.append(client)
        client.settimeout(20)
        create = asyncio.get_running_loop().create_connection
        _, protocol = await create(lambda: connections(config, **options), sock=accepted)
        return protocol

    async def crowd() -> None:
        first, second, _ = await connect(), await connect(), await connect()
        assert await asyncio.to_thread(clients[2].recv, 12) == b"HTTP/1.1 503"
        assert reasons == ["connections"]
        first.since -= NEW_S
        another = await connect()
        assert await asyncio.to_thread(clients[0].recv, 12) == b""
        assert not any(each.transport.is_closing() for each in (second, another))

    asyncio.run(crowd())


def test_a_silent_connection_is_closed_without_an_answer(server):
    assert Peer(server).receive() == b""


@pytest.mark.parametrize(("more", "answer"), [(b"\r\n", b""), (b"G", b"HTTP/1.1 408")])
def test_a_kept_connection_is_not_held_by_a_trickle(server, more, answer):
    peer = Peer(server, GET + b"\r\n")
    assert peer.receive_answer().startswith(b"HTTP/1.1 200")
    peer.socket.settimeout(0.2)
    received, ends = b"", time.monotonic() + 20
    peer.send(more)
    while time.monotonic() < ends:
        peer.send(more if answer == b"" else b"")
        with contextlib.suppress(TimeoutError, ConnectionError):
            if not (chunk := peer.socket.recv(65536)):
                break
            received += chunk
    assert time.monotonic() < ends
    assert received.startswith(answer)
    assert bool(received) == bool(answer)


def test_a_body_that_nobody_reads_holds_no_connection(server):
    peer = Peer(server, GET + b"Content-Length: 100000\r\n\r\n")
    assert peer.receive_answer().startswith(b"HTTP/1.1 200")
    until(lambda: not peer.send_slowly(b"a", 0.1), 20)


def test_an_answer_that_nobody_reads_holds_no_connection(server):
    wanted = b"GET /static/vendor/plotly.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    peer = Peer(server, wanted * 8)  # more than the system takes from the server: it would wait for ever
    until(lambda: not peer.send_slowly(b"\r\n", 0.2), 30)
    assert is_alive(server)


def test_trailers_do_not_change_the_request(server):
    chunked = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nX-Request-ID: own\r\n"
    peer = Peer(server, chunked + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Request-ID: other\r\n\r\n")
    assert b"x-request-id: own" in peer.receive_answer().lower()


@pytest.mark.parametrize("method", [b"GET /healthz", b"POST /v1/predict"])
def test_offers_of_other_protocols_are_passed_over(server, png, method):
    offer = b" HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    body = b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n%b" % (len(png), png)
    answer = Peer(server, method + offer + (body if method.startswith(b"POST") else b"\r\n")).receive().lower()
    assert answer.startswith(b"http/1.1 200")
    assert b"connection: close" in answer


def test_pipelined_requests_are_answered_in_order_but_not_without_end(server):
    peer = Peer(server, b"".join(GET + b"X-Request-ID: %d\r\n\r\n" % number for number in range(20)))
    answers = b""
    while answers.count(b"HTTP/1.1 200") < 20:
        answers += peer.socket.recv(65536)
    assert re.findall(rb"x-request-id: (\d+)", answers) == [b"%d" % number for number in range(20)]
    peer = Peer(server, (GET + b"\r\n") * 1000)
    assert peer.receive().count(b"HTTP/1.1 200") < 100
    assert count(server, "pipelined") >= 1


def test_slow_bodies_take_no_memory_from_others_and_are_given_up(server, png):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    slow = [Peer(server, head + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n") for _ in range(10)]
    slow += [Peer(server, head + b"Content-Length: 2900000\r\n\r\na") for _ in range(10)]
    assert httpx.post(f"{server.address}/v1/predict", files={"file": png}, timeout=20).status_code == 200
    for peer in slow:
        assert "pauses" in refused(peer.receive(), 408)["detail"]


def test_a_trickle_of_a_body_is_given_up(server):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
    peer = Peer(server, head)
    until(lambda: not peer.send_slowly(b"a", 0.05), 20)
    assert "bytes a second" in refused(peer.receive(), 408)["detail"]


def test_attacks_fill_no_log(serve):
    server = serve(header_s=0.5)
    long, offer = b"GET /" + b"a" * 9000, b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    for _ in range(10):
        assert [Peer(server, sends).receive()[9:12] for sends in (b"NO\r\n\r\n", long, offer)] == [
            b"400",
            b"414",
            b"400",
        ]
    log = server.stop()
    assert len([line for line in log.splitlines() if "refused a connection" in line]) == 3
    assert len(log.splitlines()) < 10


def test_a_client_holds_a_share_of_the_connections_unless_it_is_a_trusted_proxy(serve, monkeypatch):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "192.0.2.1")
    server = serve(max_client_connections=5, drain_s=0)
    peers = [Peer(server, GET)]
    time.sleep(NEW_S + 0.1)
    peers += [Peer(server, GET) for _ in range(5)]
    assert refused(peers[0].receive(), 408)
    for peer in peers[1:]:
        peer.send(b"\r\n")
        assert peer.receive_answer().startswith(b"HTTP/1.1 200")
    body = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    for peer in peers[1:]:
        peer.send(body)
    until(lambda: b"503" in Peer(server, GET + b"\r\n").receive()[:20])
    assert "too many open connections" in refused(Peer(server, GET + b"\r\n").receive(), 503)["detail"]
