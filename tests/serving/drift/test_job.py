"""The drift job with a real server, real images and real judging."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.support import references as _made
from tests.support.paths import ROOT
from tests.support.waiting import until

make_judged, gray, png = _made.make_judged, _made.gray, _made.png

SERVER = """
from pneumo.serving.process.server import serve
from pneumo.serving.contracts.settings import Settings

if __name__ == "__main__":
    serve(Settings.from_environment(), lambda bundle, address: print(address, flush=True))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Address and process id of a service that checks its last 200 images every 200 images."""
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    variables = {
        "PYTHONPATH": str(ROOT),
        "PNEUMO_MODEL": str(make_judged(tmp_path / "bundle").folder),
        "PNEUMO_PORT": "0",
        "PNEUMO_LOG_URL": f"sqlite:///{tmp_path / 'log.sqlite3'}",
        "PNEUMO_LOG_SPOOL": str(tmp_path / "spool"),
        "PNEUMO_DRIFT_ROWS": "200",
        "PNEUMO_DRIFT_WINDOW": "200",
    }
    process = subprocess.Popen(
        [sys.executable, str(script)], env=os.environ | variables, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    yield process.stdout.readline().strip(), process.pid
    process.terminate()
    process.wait(60)


def job_runs(server: int) -> bool:
    """Whether a drift job is under way."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == server and b"pneumo.serving.drift.job" in stat.with_name("cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


@dataclass
class Client:
    """Asks all the time, and counts the answers that came while a job ran."""

    address: str
    server: int
    darker: int = 0
    beside: int = 0
    failures: list[object] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        """Until it is told to stop."""
        with httpx.Client(timeout=30) as client:
            for seed in range(1000, 10**6):
                if self.stop.is_set():
                    return
                image = png(gray(seed, darker=self.darker))
                before = job_runs(self.server)
                answer = client.post(f"{self.address}/v1/predict", content=image, headers={"content-type": "image/png"})
                if answer.status_code != 200:
                    self.failures.append(answer.status_code)
                self.beside += before and job_runs(self.server)


@pytest.mark.lengthy
@pytest.mark.slow
def test_a_job_judges_what_was_served_while_requests_are_answered(server):
    address, process = server
    client = Client(address, process)
    thread = threading.Thread(target=client.ask)

    def verdict() -> str | None:
        answer = httpx.get(f"{address}/v1/drift")
        return answer.json()["verdict"] if answer.status_code == 200 else None

    until(lambda: httpx.get(f"{address}/readyz").status_code == 200)
    thread.start()
    try:
        until(lambda: verdict() == "ok", timeout=240)
        client.darker = 40
        until(lambda: verdict() == "drift", timeout=240)
        until(lambda: client.beside >= 100, timeout=240)
    finally:
        client.stop.set()
        thread.join()

    check = httpx.get(f"{address}/v1/drift").json()
    assert check["columns"][0]["verdict"] == "drift"
    (report, *_) = re.findall(r"report=([0-9a-f]+)", httpx.get(f"{address}/drift").text)
    assert "root_metric" in httpx.get(f"{address}/drift/reports/{report}").text  # Evidently's page
    assert not client.failures
