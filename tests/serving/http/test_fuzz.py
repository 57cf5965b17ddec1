"""Thousands of requests made up from the OpenAPI document: no 5xx, no hang, no growth of memory, no contradiction.

All checks of schemathesis are on; `fuzzing/schemathesis.toml` says which requests no schema can tell apart.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from pneumo.serving.access.api_keys import add_key
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.lengthy]

CASES = 150
"""Of each route and phase; with the phases and routes that there are, some thousand requests."""

HERE = Path(__file__).parent / "fuzzing"

SERVER = """
import json, sys
from pneumo.serving.telemetry import logs
from pneumo.serving.process.server import serve
from pneumo.serving.access import authentication
from pneumo.serving.contracts.setting_types import Rate
from pneumo.serving.contracts.settings import Settings

logs.configure("json")
authentication.WRONG_KEYS = Rate(1_000_000, 60)  # a wrong key must be refused as such, not as the twentieth
options = json.loads(sys.argv[1])
settings = Settings(port=0, threads=1, max_bytes=3_000_000, max_pixels=1_000_000, **options)
serve(settings, lambda _, address: print(address, flush=True))
"""


def memory(pid: int) -> float:
    """Resident, in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1000


@pytest.fixture
def serve(bundle, tmp_path):
    """Starts a server in a process of its own."""
    processes = []

    def start(**options: object) -> Any:
        options |= {"model": str(bundle.folder), "log_url": f"sqlite:///{tmp_path / 'log.sqlite3'}"}
        options |= {"log_spool": str(tmp_path / "spool")}
        with (tmp_path / "log").open("w") as log:  # a pipe that nobody reads would fill up and stop it
            command = [sys.executable, "-c", SERVER, json.dumps(options)]
            process: Any = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        processes.append(process)
        process.address = process.stdout.readline().strip()
        return process

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=30)


def fuzz(address: str, folder: Path, seed: int, *options: str, cases: int = CASES) -> str:
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{address}/openapi.json", *options),
        *("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", str(cases), "--seed", str(seed)),
        *("--checks", "all", "--max-response-time", "5"),
        *("--request-timeout", "20", "--suppress-health-check", "all", "--no-color", "--workers", "2"),
        *("--generation-database", "none", "--continue-on-failure"),
    ]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_no_made_up_request_breaks_the_service_slows_it_or_fills_its_memory(serve, png, tmp_path):
    pytest.importorskip("schemathesis")
    server = serve()
    fuzz(server.address, tmp_path, seed=1)
    warm = memory(server.pid)
    told = fuzz(server.address, tmp_path, seed=2)
    assert memory(server.pid) - warm < 60
    cases = re.search(r"(\d+) generated", told)
    assert cases, told[-2000:]
    assert int(cases[1]) > 1500
    answer = httpx.post(f"{server.address}/v1/predict", files={"file": png}, timeout=20)
    assert answer.status_code == 200


def test_with_keys_the_document_says_where_one_is_needed(serve, tmp_path):
    """The key goes in one header; schemathesis puts wrong ones into the other, which is looked at first."""
    pytest.importorskip("schemathesis")
    _, key = add_key(tmp_path / "keys.yaml", "fuzz")
    server = serve(auth="on", keys=str(tmp_path / "keys.yaml"))
    fuzz(server.address, tmp_path, 3, "--header", f"Authorization: Bearer {key}", cases=20)
