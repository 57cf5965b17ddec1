"""Thousands of requests made up from the OpenAPI document: no 5xx, no hang, no growth of memory."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.lengthy]

CASES = 150
"""Of each route and phase; with the phases and routes that there are, some thousand requests."""

SERVER = """
import sys
from pneumo.serving.telemetry import logs
from pneumo.serving.process.server import serve
from pneumo.serving.contracts.settings import Settings

logs.configure("json")
settings = Settings(model=sys.argv[1], port=0, threads=1, max_bytes=3_000_000, max_pixels=1_000_000)
serve(settings, lambda bundle, address: print(address, flush=True))
"""


def memory(pid: int) -> float:
    """Resident, in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1000


@pytest.fixture
def server(bundle, tmp_path):
    with (tmp_path / "log").open("w") as log:  # a pipe that nobody reads would fill up and stop it
        process: Any = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(bundle.folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        process.address = process.stdout.readline().strip()
        yield process
        process.terminate()
        process.communicate(timeout=30)


def fuzz(address: str, folder: Path, seed: int) -> str:
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{address}/openapi.json"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(CASES), "--seed", str(seed)),
        *("--checks", "not_a_server_error,content_type_conformance", "--max-response-time", "5"),
        *("--request-timeout", "20", "--suppress-health-check", "all", "--no-color", "--workers", "2"),
        *("--generation-database", "none", "--continue-on-failure"),
    ]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"SCHEMATHESIS_HOOKS": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_no_made_up_request_breaks_the_service_slows_it_or_fills_its_memory(server, png, tmp_path):
    pytest.importorskip("schemathesis")
    fuzz(server.address, tmp_path, seed=1)
    warm = memory(server.pid)
    told = fuzz(server.address, tmp_path, seed=2)
    assert memory(server.pid) - warm < 60
    cases = re.search(r"(\d+) generated", told)
    assert cases, told[-2000:]
    assert int(cases[1]) > 1500
    answer = httpx.post(f"{server.address}/v1/predict", files={"file": png}, timeout=20)
    assert answer.status_code == 200
