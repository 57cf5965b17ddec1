"""The Locust file asks as it says. It runs in processes of its own: Locust replaces Python's sockets by gevent's."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pneumo.serving.client import Client
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from tests.support.paths import ROOT
from tests.support.servers import served

if importlib.util.find_spec("locust") is None:
    pytest.skip("Locust is not installed (extra `load`)", allow_module_level=True)

LOCUSTFILE = ROOT / "tests" / "load" / "locustfile.py"

EACH_TASK_ONCE = """
import json, runpy, sys, warnings
warnings.simplefilter("ignore")
import locust
from locust.env import Environment

Ward = runpy.run_path(sys.argv[1])["Ward"]
for url in sys.argv[2:]:
    Ward.host = url
    environment = Environment(user_classes=[Ward])
    stats = environment.create_local_runner().stats
    user = Ward(environment)
    user.on_start()
    for task in dict.fromkeys(Ward.tasks):
        task(user)
    print(json.dumps({name: [entry.num_requests, entry.num_failures] for (name, _), entry in stats.entries.items()}))
"""


def run_tasks(*urls: str, **environment: str) -> list[dict[str, list[int]]]:
    """Requests and failures of each kind at each service, where a user does each of its tasks once."""
    done = subprocess.run(
        [sys.executable, "-c", EACH_TASK_ONCE, str(LOCUSTFILE), *urls],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, list[int]]] = [json.loads(line) for line in done.stdout.splitlines()[-len(urls) :]]
    return found


def answering(status: int, headers: dict[str, str], keys: list[str | None]) -> Starlette:
    """A service that gives one answer to everything, and keeps the keys it is sent."""

    async def answer(request: Request) -> Response:
        keys.append(request.headers.get("authorization"))
        return Response(status_code=status, headers=headers)

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])


@pytest.fixture(scope="module")
def url(bundle) -> Iterator[str]:
    with served(create_app(bundle, Settings(threads=1))) as url:
        with Client(url) as client:
            client.wait_until_ready(30)
        yield url


def test_tasks_are_answered_shed_or_failed_and_the_key_is_sent(url):
    keys: list[str | None] = []
    with (
        served(answering(503, {"Retry-After": "0"}, [])) as full,
        served(answering(500, {}, keys)) as broken,
    ):
        answered, shed, failed = run_tasks(url, full, broken, PNEUMO_KEY="pneumo_secret")
    assert answered == {"/v1/predict 224 x 224": [1, 0], "/v1/predict 1500 x 1200": [1, 0], "/": [1, 0]}
    assert shed["/v1/predict 224 x 224 (shed)"] == [1, 0]
    assert shed["/v1/predict 1500 x 1200 (shed)"] == [1, 0]
    assert list(failed.values()) == [[1, 1]] * 3
    assert keys.count("Bearer pneumo_secret") == 2


def test_the_line_that_is_documented_runs(url):
    text = LOCUSTFILE.read_text(encoding="utf-8")
    (line,) = (line.strip() for line in text.splitlines() if line.strip().startswith("locust -f"))
    line = line.replace("http://127.0.0.1:8000", url).replace("-u 100 -r 20 -t 60s", "-u 4 -r 4 -t 4s")
    done = subprocess.run(
        [sys.executable, "-m", *line.split()],
        cwd=LOCUSTFILE.parents[2],
        env=os.environ | {"PNEUMO_LOAD_WAIT": "0.1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Aggregated" in done.stdout + done.stderr
