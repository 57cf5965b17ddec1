"""Real servers in processes of their own: signals under load, several workers, processes that are killed."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from pneumo.serving.contracts.settings import Settings
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.process.server import bind, tell_address
from tests.support.server_process import ServerProcess
from tests.support.waiting import until


class Load:
    """Clients that keep their connections and, as a load balancer does, ask another server once one ends them."""

    def __init__(self, address: str, png: bytes, clients: int = 8) -> None:
        self.answered = self.sent_away = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(address, png)) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, address: str, png: bytes) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                try:
                    response = client.post(f"{address}/v1/predict", files={"file": png})
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    return
                if response.status_code != 200:
                    self.failures.append(str(response.status_code))
                self.answered += 1
                if response.headers.get("connection") == "close":
                    self.sent_away += 1
                    return

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def stop_under_load(server: ServerProcess, png: bytes) -> None:
    """Tell a server to stop while clients ask, and see that none of their requests fails."""
    load = Load(server.address, png)
    until(lambda: load.answered > 24)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    load.end()
    assert (load.failures, load.sent_away) == ([], 8)
    assert "Traceback" not in server.process.stderr.read()


def test_a_server_told_to_stop_under_load_fails_no_request(serve, png):
    stop_under_load(serve(), png)


def ask_once(port: int) -> str:
    """What becomes of a request on a connection of its own: a status line, `refused`, or the error."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), 10)
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return repr(error)
    with connection:
        try:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        except OSError as error:
            return repr(error)
    return answer.split(b"\r\n")[0].decode() or "closed without an answer"


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=[pytest.mark.slow, pytest.mark.lengthy])])
def test_connections_that_are_opened_during_shutdown_are_answered_until_all_is_done(serve, workers):
    server = serve(workers=workers)
    until(lambda: workers == 1 or len(server.workers()) == workers)
    slow: socket.socket | None = socket.create_connection(("127.0.0.1", server.port), 20)
    assert slow
    slow.sendall(
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n"
    )
    server.process.send_signal(signal.SIGTERM)
    fates: list[str] = []
    late: list[str] = []
    began = time.monotonic()
    while "refused" not in fates:
        if slow and len(late) > 50:
            slow.sendall(b"no image.")
            assert slow.recv(100).startswith(b"HTTP/1.1 415")
            slow.close()
            slow = None
        fates += (batch := list(ThreadPoolExecutor(8).map(ask_once, [server.port] * 8)))
        if slow and time.monotonic() > began + 1:  # the half second is over in which new connections are always taken
            late += batch
    assert server.process.wait(60) == 0
    assert set(fates) == {"HTTP/1.1 200 OK", "refused"}
    assert set(late) == {"HTTP/1.1 200 OK"}


def test_half_sent_requests_do_not_delay_the_end(serve):
    server = serve(grace_s=600)
    half = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(5)]
    for each in half:
        each.sendall(b"GET / HTTP/1.1\r\n")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(300) == 0  # requests under way would get ten minutes
    for each in half:
        each.close()


def test_workers_count_together_replace_one_that_is_killed_and_stop_without_a_failed_request(serve, png):
    server = serve(workers=2)
    until(lambda: len(server.workers()) == 2)
    before = server.workers()

    def count() -> int:
        for _ in range(20):
            httpx.post(f"{server.address}/v1/predict", files={"file": png}, timeout=30)
        text = httpx.get(f"{server.address}/metrics", timeout=30).text
        found = re.search(
            r'pneumo_http_requests_total\{method="POST",route="/v1/predict",status="200"\} ([\d.]+)', text
        )
        return int(float(found[1]))

    assert count() == 20
    assert count() == 40
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len(server.workers()) == 2 and server.workers() != before)
    assert count() == 60
    text = httpx.get(f"{server.address}/metrics", timeout=30).text
    assert "pneumo_http_requests_in_progress 1.0" in text

    stop_under_load(server, png)


@pytest.mark.slow
def test_workers_end_with_the_process_that_looks_after_them(serve):
    server = serve(workers=2)
    until(lambda: len(server.workers()) == 2)
    workers = server.workers()
    server.process.kill()
    server.process.wait(300)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "localhost"])
def test_the_address_that_is_told_opens(host):
    if ":" in host and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with bind(Settings(host=host, port=0)) as listener:
        listener.listen()
        address = urlsplit(tell_address(listener, host))
        assert address.hostname not in ("0.0.0.0", "::")
        socket.create_connection((address.hostname, address.port), 60).close()


def answers_alone(server: ServerProcess, worker: int) -> bool:
    """Whether a worker answers while the others are stopped."""
    others = server.workers() - {worker}
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        return httpx.get(f"{server.address}/readyz", timeout=1).status_code == 200
    except httpx.TransportError:
        return False
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def wait_for_both(server: ServerProcess) -> set[int]:
    """Return two workers once both have loaded their model."""
    until(lambda: len(server.workers()) == 2)
    workers = server.workers()
    for worker in workers:
        until(lambda worker=worker: answers_alone(server, worker))  # type: ignore[misc]
    return workers


@pytest.mark.slow
@pytest.mark.lengthy
def test_a_replacement_that_cannot_start_is_tried_again_while_the_others_go_on(serve, own_bundle, png):
    server = serve(own_bundle.folder, workers=2, reload_s=0)
    workers = wait_for_both(server)
    graph = own_bundle.folder / "model.onnx"
    sealed = graph.read_bytes()
    graph.write_bytes(sealed + b"damage")
    killed = min(workers)
    os.kill(killed, signal.SIGKILL)
    replacements: set[int] = set()
    statuses: list[int] = []

    def try_twice() -> bool:
        replacements.update(server.workers() - {killed})
        with contextlib.suppress(httpx.ReadError, httpx.RemoteProtocolError):  # it was with the worker that was killed
            statuses.append(httpx.post(f"{server.address}/v1/predict", files={"file": png}, timeout=30).status_code)
        return len(replacements) >= 3  # the one that goes on, and two that could not start

    until(try_twice)
    assert set(statuses) == {200}
    graph.write_bytes(sealed)
    until(lambda: len(server.workers()) == 2)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    log = server.stop()
    assert "next try in 2 s" in log
    assert "model.onnx" in log


def register(root: Path, folder: str) -> None:
    """Write a registry whose champion lies in a folder below it."""
    version = {
        "name": "tiny",
        "version": "1",
        "bundle": folder,
        "digest": Bundle.open(root / folder).digest,
        "metrics": {},
        "promoted_at": "2026-11-23T12:00:00Z",
        "run": None,
    }
    aliases = {"aliases": {"champion": "tiny:1"}, "history": {"champion": ["tiny:1"]}}
    (root / "registry.yaml").write_text(json.dumps({"schema_version": 1, "versions": [version], **aliases}))


@pytest.mark.slow
@pytest.mark.lengthy
def test_a_replacement_serves_what_the_alias_leads_to_now(serve, tmp_path, bundle):
    root = tmp_path / "models"
    shutil.copytree(bundle.folder, root / "old")
    register(root, "old")
    server = serve(Path("champion"), models_dir=root, workers=2, reload_s=0)
    before = wait_for_both(server)
    (root / "old").rename(root / "new")
    register(root, "new")
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len(server.workers() - before) == 1)
    (replacement,) = server.workers() - before
    until(lambda: answers_alone(server, replacement))
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    assert "cannot start" not in server.stop()


@pytest.mark.slow
def test_a_standard_error_that_nobody_reads_stops_neither_the_service_nor_its_end(serve):
    server = serve(log_format="json")
    with httpx.Client(base_url=server.address, timeout=30) as client:
        for _ in range(15_000):  # some hundred fill the pipe, 10,000 the queue
            assert client.get("/v1/nothing").status_code == 404
        text = client.get("/metrics").text
    (dropped,) = re.findall(r"^pneumo_dropped_log_lines_total ([\d.]+)", text, re.MULTILINE)
    assert 3_000 < float(dropped) < 5_000
    server.process.terminate()
    assert server.process.wait(60) == 0
