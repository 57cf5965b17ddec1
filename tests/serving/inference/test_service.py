"""The service over its life: loading, failing, overload, another version, the end."""

import logging
import re
import subprocess
import sys
import threading
from typing import Any

import anyio
import httpx
import pytest
from fastapi.testclient import TestClient
from starlette.responses import StreamingResponse

from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app, from_environment
from pneumo.serving.inference.service import State
from pneumo.serving.model.bundle import BundleError
from pneumo.serving.model.predictor import Predictor
from tests.support.paths import ROOT
from tests.support.waiting import until

FAILED = r"request {} failed: RuntimeError at serving/inference/batching\.py:\d+"
LIMITS = Settings(max_bytes=3_000_000, max_images=8, threads=1)


@pytest.fixture
def gate(monkeypatch):
    """Holds every run of a network until it is opened; `gate.entered` is set once one waits."""

    class Gate:
        entered, opened = threading.Event(), threading.Event()
        running, most = 0, 0

    original, guard = Predictor.run, threading.Lock()

    def run(self, batch):
        if batch.any():  # not the warming up
            with guard:
                Gate.running += 1
                Gate.most = max(Gate.most, Gate.running)
            Gate.entered.set()
            assert Gate.opened.wait(20)
            with guard:
                Gate.running -= 1
        return original(self, batch)

    monkeypatch.setattr(Predictor, "run", run)
    yield Gate
    Gate.opened.set()


def ask(client: TestClient, png: bytes, answers: list[Any]) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(client.post("/v1/predict", files={"file": png})))
    thread.start()
    return thread


def test_while_the_model_is_loaded_the_process_lives_but_is_not_ready(bundle, png, monkeypatch, started):
    loaded, original = threading.Event(), Predictor.__init__

    def slow(self, *arguments, **options):
        assert loaded.wait(20)
        original(self, *arguments, **options)

    monkeypatch.setattr(Predictor, "__init__", slow)
    app = create_app(bundle, LIMITS)
    with TestClient(app) as client:
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "loading"})
        for refused in (client.post("/v1/predict", files={"file": png}), client.get("/v1/model")):
            assert refused.status_code == 503
            assert refused.json()["type"] == "urn:pneumo:problem:not-ready"
            assert refused.headers["retry-after"] == "1"
        loaded.set()
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/v1/predict", files={"file": png}).status_code == 200


@pytest.mark.parametrize(("workers", "state"), [(1, State.LOADING), (2, State.READY)])
def test_one_of_several_workers_takes_no_connection_before_it_has_loaded(bundle, workers, state):
    app = create_app(bundle, LIMITS.model_copy(update={"workers": workers}))

    async def enter() -> State:
        async with app.router.lifespan_context(app):  # only then does the server listen
            return app.state.service.state

    assert anyio.run(enter) is state


def test_one_of_several_workers_that_cannot_load_ends_all_the_same(own_bundle):
    app = create_app(own_bundle, LIMITS.model_copy(update={"workers": 2}))
    (own_bundle.folder / "model.onnx").write_bytes(b"no graph")

    async def enter() -> None:
        async with app.router.lifespan_context(app):
            await app.state.service.wait_until_loaded()

    with pytest.raises(BundleError):
        anyio.run(enter)


def test_a_model_that_does_not_run_makes_the_process_unhealthy(own_bundle, png, caplog):
    app = create_app(own_bundle, LIMITS)
    (own_bundle.folder / "model.onnx").write_bytes(b"not what was sealed")
    with TestClient(app) as client:
        until(lambda: client.get("/readyz").json()["status"] != "loading")
        assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (503, {"status": "failed"})
        assert client.get("/healthz").status_code == 503
        assert client.post("/v1/predict", files={"file": png}).status_code == 503
    assert any("changed since the bundle was sealed" in record.getMessage() for record in caplog.records)


def test_once_it_was_told_to_stop_it_is_not_ready_but_still_answers_and_ends_connections(bundle, png, started):
    app = create_app(bundle, LIMITS)
    with started(app) as client:
        app.state.service.state = State.DRAINING
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
        assert client.get("/healthz").status_code == 200
        answer = client.post("/v1/predict", files={"file": png})
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_health_answers_while_the_network_runs_and_batches_follow_each_other(bundle, png, gate, started):
    with started(create_app(bundle, LIMITS)) as client:
        answers: list[httpx.Response] = []
        threads = [ask(client, png, answers) for _ in range(6)]
        assert gate.entered.wait(20)
        assert client.get("/healthz").status_code == 200
        assert answers == []
        gate.opened.set()
        for thread in threads:
            thread.join()
    assert [answer.status_code for answer in answers] == [200] * 6
    assert gate.most == 1


def test_more_than_the_service_can_do_is_refused_at_once_with_the_time_to_come_back(bundle, png, gate, started):
    app = create_app(bundle, LIMITS.model_copy(update={"max_wait_s": 1.0}))
    with started(app) as client:
        answers: list[httpx.Response] = []
        threads = [ask(client, png, answers) for _ in range(3)]
        assert gate.entered.wait(20)
        service = app.state.service
        until(lambda: service.load_shedding.images == 3)
        service.load_shedding.seconds_per_image = 1.0
        refused = client.post("/v1/predict", files={"file": png})
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:pneumo:problem:over-capacity"
        assert refused.headers["retry-after"] == "3"  # 3.03 s of work, of which 1 s may be waited for
        assert refused.headers["x-content-type-options"] == "nosniff"
        assert "connection" not in refused.headers  # what is left of a small body is passed over
        assert client.get("/healthz").status_code == 200
        line = 'http_requests_total{method="POST",route="/v1/predict",status="503"} 1.0'
        assert line in client.get("/metrics").text
        gate.opened.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200] * 3
        assert client.post("/v1/predict", files={"file": png}).status_code == 200
        assert service.load_shedding.images == service.load_shedding.body_bytes == 0


def test_images_are_turned_away_before_a_route_is_looked_for(bundle, png, monkeypatch, started):
    app = create_app(bundle, LIMITS)
    with started(app) as client:
        monkeypatch.setattr(app.router, "routes", [])
        assert client.post("/v1/explain", content=png).status_code == 404
        shedding = app.state.service.load_shedding
        shedding.work, shedding.seconds_per_image = 100, 1.0
        assert [client.post(path, content=png).status_code for path in ("/v1/predict", "/v1/explain")] == [503, 503]
        assert client.get("/v1/predict").status_code == 404


def test_a_worker_with_one_core_answers_as_others_do(bundle, pngs, started):
    answers = []
    for workers in (1, available_cores()):  # with a worker a core, the network's thread decodes
        with started(create_app(bundle, LIMITS.model_copy(update={"workers": workers}))) as client:
            files = [("file", png) for png in [*pngs[:3], b"no image", *pngs[3:6]]]
            answer = client.post("/v1/predict?partial=true", files=files).json()
        assert [error["index"] for error in answer["errors"]] == [3]
        answers.append([each["probability"] for each in answer["predictions"]])
    assert len(answers[0]) == 6
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


def test_a_request_that_takes_too_long_is_given_up_and_its_image_not_run(bundle, png, gate, started):
    app = create_app(bundle, LIMITS.model_copy(update={"timeout_s": 0.3}))
    with started(app) as client:
        refused = client.post("/v1/predict", files={"file": png})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        gate.opened.set()
        assert client.post("/v1/predict", files={"file": png}).status_code == 200
        assert app.state.service.load_shedding.images == 0


def test_a_body_that_comes_too_slowly_is_given_up(bundle, started):
    app = create_app(bundle, LIMITS.model_copy(update={"timeout_s": 0.2}))
    statuses = []

    async def receive():
        await anyio.sleep(5)

    async def send(message):
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"image/png"), (b"content-length", b"1000")],
    }
    with started(app) as client:
        client.portal.call(app, scope, receive, send)
        assert statuses == [408]
        assert app.state.service.load_shedding.body_bytes == 0


def test_a_bug_is_a_problem_that_tells_nothing_of_its_insides(bundle, png, monkeypatch, caplog, started):
    def fail(*_args, **_options):
        raise RuntimeError("secret inside")

    with started(create_app(bundle, LIMITS), raises=True) as client:  # raises what would reach the server
        monkeypatch.setattr(Predictor, "interpret_outputs", fail)
        response = client.post("/v1/predict", files={"file": png})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text
    (failure,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert re.fullmatch(
        rf"request {response.json()['request_id']} failed: RuntimeError at serving/inference/batching\.py:\d+",
        failure.getMessage(),
    )
    assert failure.exc_info is None


def test_a_bug_after_the_answer_began_sends_no_second_answer(bundle):
    app = create_app(bundle, LIMITS)

    async def half(request):
        async def content():
            yield b"half"
            raise RuntimeError("secret inside")

        return StreamingResponse(content())

    app.add_route("/half", half)
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append((message["type"], message.get("status"), message.get("body")))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "GET",
        "path": "/half",
        "query_string": b"",
        "headers": [],
    }
    anyio.run(app, scope, receive, send)
    assert sent == [("http.response.start", 200, None), ("http.response.body", None, b"half")]


SERVER = """
import logging, pathlib, sys
from pneumo.serving.model.predictor import Predictor
from pneumo.serving.process.server import serve
from pneumo.serving.contracts.settings import Settings

def fail(self, outputs, *, elapsed_ms):
    try:
        raise ValueError("Jane Doe, cause")
    except ValueError as cause:
        raise RuntimeError("Jane Doe, born 1950") from cause

Predictor.interpret_outputs = fail
logging.basicConfig(level=logging.DEBUG)
serve(Settings(model=sys.argv[1], port=0), lambda bundle, address: print(address, flush=True))
"""


def test_a_running_server_writes_nothing_of_an_exceptions_message(bundle, png):
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(bundle.folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = server.stdout.readline().strip()
        response = httpx.post(f"{address}/v1/predict", files={"file": ("Jane Doe.png", png)}, timeout=20)
    finally:
        server.terminate()
        out, err = server.communicate(timeout=20)
    assert response.status_code == 500
    assert "Jane" not in response.text + out + err
    assert "Traceback" not in err
    assert re.search(
        rf"request {response.headers['x-request-id']} failed: RuntimeError at serving/inference/batching\.py:\d+", err
    )


def test_the_factory_reads_the_environment(bundle, png, monkeypatch, started):
    monkeypatch.setenv("PNEUMO_MODEL", str(bundle.folder))
    monkeypatch.setenv("PNEUMO_MAX_BYTES", "10")
    with started(from_environment()) as client:
        assert client.get("/v1/model").json()["name"] == "tiny"
        assert client.post("/v1/predict", files={"file": png}).status_code == 413


def test_the_factory_ends_with_one_line_where_there_is_no_model(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PNEUMO_MODELS_DIR", str(tmp_path))
    monkeypatch.delenv("PNEUMO_MODEL", raising=False)
    with pytest.raises(SystemExit) as caught:
        from_environment()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("pneumo: champion: no model is promoted")
