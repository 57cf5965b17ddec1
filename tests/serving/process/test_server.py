"""Real servers in processes of their own: signals under load, several workers, processes that are killed."""

import os
import re
import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest

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
    server.process.wait(30)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "localhost"])
def test_the_address_that_is_told_opens(serve, host):
    if ":" in host and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    server = serve(host=host, auth="off")
    assert "0.0.0.0" not in server.address
    assert "[::]" not in server.address
    assert httpx.get(f"{server.address}/healthz", timeout=30).status_code == 200
