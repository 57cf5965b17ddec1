import builtins
import io
import json
import logging
import re
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from pathlib import Path

import anyio
import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.responses import StreamingResponse

from serving.app import create_app, from_environment
from serving.predictor import Predictor
from serving.settings import Settings

PROBLEM = "application/problem+json"
LIMITS = Settings(max_bytes=3_000_000, max_pixels=1_000_000, max_images=4, threads=1)


@pytest.fixture(scope="module")
def app(bundle):
    return create_app(bundle, LIMITS)


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def refused(response: httpx.Response, status: int, kind: str | None = None) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["type"] == (f"urn:pneumo:problem:{kind}" if kind else "about:blank")
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


def bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (10_000, 5_000)).save(buffer, "PNG")
    return buffer.getvalue()


def big_png() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (900, 1000, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert buffer.tell() > 2_000_000
    return buffer.getvalue()


def test_a_form_with_one_image_is_answered_as_designed(client, bundle, png):
    response = client.post("/v1/predict", files={"file": ("chest.png", png, "image/png")})
    assert response.status_code == 200
    answer = response.json()
    assert answer.keys() == {"request_id", "model", "predictions", "notice"}
    assert answer["model"] == {"name": "tiny", "version": "1", "positive_class": bundle.info.positive_class}
    assert answer["notice"] == "research software, not a medical device"
    (prediction,) = answer["predictions"]
    expected = Predictor(bundle).predict_bytes(png, "chest.png").model_dump()
    assert prediction.keys() == expected.keys()
    for name in expected.keys() - {"elapsed_ms"}:
        assert prediction[name] == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "application/octet-stream", "IMAGE/PNG; q=1"])
def test_a_raw_body_gets_the_prediction_of_the_form(client, png, media_type):
    raw = client.post("/v1/predict", content=png, headers={"content-type": media_type}).json()["predictions"][0]
    form = client.post("/v1/predict", files={"file": png}).json()["predictions"][0]
    assert raw["filename"] is None
    assert raw["probability"] == pytest.approx(form["probability"], abs=1e-9)


def test_many_images_are_answered_in_the_order_sent(client, pngs):
    files = [("file", (f"{number}.png", data, "image/png")) for number, data in enumerate(pngs[:4])]
    predictions = client.post("/v1/predict", files=files).json()["predictions"]
    assert [prediction["filename"] for prediction in predictions] == ["0.png", "1.png", "2.png", "3.png"]
    for prediction, data in zip(predictions, pngs, strict=False):
        alone = client.post("/v1/predict", files={"file": data}).json()["predictions"][0]
        assert prediction["probability"] == pytest.approx(alone["probability"], abs=1e-6)


@pytest.mark.parametrize("name", ["Röntgen 胸部.png", 'quo"ted.png', "a;b=c.png"])
def test_file_names_come_back_as_sent(client, png, name):
    answer = client.post("/v1/predict", files={"file": (name, png)}).json()
    assert answer["predictions"][0]["filename"].replace("%22", '"') == name


@pytest.mark.parametrize("as_form", [True, False])
@pytest.mark.parametrize(
    ("content", "status", "kind"),
    [
        (b"", 400, "unreadable-image"),
        (b"just some text", 415, "not-an-image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, 400, "unreadable-image"),
        (bomb(), 413, "too-large"),
    ],
)
def test_bad_images_are_problems_not_failures(client, content, status, kind, as_form):
    if as_form:
        response = client.post("/v1/predict", files={"file": ("x.png", content)})
    else:
        response = client.post("/v1/predict", content=content, headers={"content-type": "image/png"})
    refused(response, status, kind)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_image_is_unreadable(client, png, share):
    response = client.post("/v1/predict", files={"file": png[: int(len(png) * share)]})
    refused(response, 400, "unreadable-image")


def test_one_bad_image_of_many_is_named_with_its_place(client, pngs):
    files = [("file", ("good.png", pngs[0])), ("file", ("bad.png", b"text")), ("file", ("good2.png", pngs[1]))]
    problem = refused(client.post("/v1/predict", files=files), 415, "not-an-image")
    assert (problem["filename"], problem["index"]) == ("bad.png", 1)
    assert "image 2 of 3 (bad.png)" in problem["detail"]


@pytest.mark.parametrize("media_type", ["text/plain", "application/json", "application/x-www-form-urlencoded", ""])
def test_other_media_types_are_refused(client, png, media_type):
    response = client.post("/v1/predict", content=png, headers={"content-type": media_type})
    problem = refused(response, 415, "unsupported-media-type")
    assert "multipart/form-data" in problem["detail"]


def test_another_field_is_refused_by_name(client, png):
    problem = refused(client.post("/v1/predict", files={"image": png}), 422, "wrong-fields")
    assert "'image'" in problem["detail"]
    problem = refused(client.post("/v1/predict", files={"file": png}, data={"threshold": "0.1"}), 422, "wrong-fields")
    assert "'threshold'" in problem["detail"]


def test_a_form_without_an_image_is_refused(client):
    content = b"--xyz--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=xyz"}
    refused(client.post("/v1/predict", content=content, headers=headers), 422, "wrong-fields")


def test_more_images_than_allowed_are_refused(client, png):
    response = client.post("/v1/predict", files=[("file", (f"{n}.png", png)) for n in range(5)])
    refused(response, 413, "too-many-images")


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ("multipart/form-data", b"--x\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x", b"no form at all"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=" + "x" * 1000, b"--x"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'),
        ("multipart/form-data; boundary=x", b"--x\r\n: bad header\r\n\r\n--x--"),
    ],
)
def test_a_damaged_form_is_unreadable(client, headers, content):
    response = client.post("/v1/predict", content=content, headers={"content-type": headers})
    refused(response, 400, "unreadable-body")


def test_a_part_without_a_name_is_a_wrong_field(client):
    content = b"--x\r\nContent-Type: image/png\r\n\r\nabc\r\n--x--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=x"}
    refused(client.post("/v1/predict", content=content, headers=headers), 422, "wrong-fields")


@given(st.binary(max_size=600), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arbitrary_bodies_never_fail_the_service(client, body, framed):
    if framed:
        body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n' + body + b"\r\n--x--\r\n"
    for media_type in ("multipart/form-data; boundary=x", "image/png"):
        response = client.post("/v1/predict", content=body, headers={"content-type": media_type})
        assert response.status_code in (400, 413, 415, 422)
        assert response.headers["content-type"] == PROBLEM


def test_a_declared_length_beyond_the_limit_is_refused_without_reading(app):
    read = count_reads(app, total=3_000_001, declared=True)
    assert read == (413, 0)


def test_an_undeclared_body_is_refused_as_soon_as_it_passes_the_limit(app):
    status, chunks = count_reads(app, total=300_000_000, declared=False)
    assert status == 413
    assert chunks <= 3_000_000 // 100_000 + 1


def count_reads(app, *, total: int, declared: bool) -> tuple[int, int]:
    """Send `total` zeros in chunks of 100,000 to the bare application: the status, and the chunks it took."""
    headers = [(b"content-type", b"image/png")]
    headers += [(b"content-length", str(total).encode())] if declared else []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/predict",
        "raw_path": b"/v1/predict",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "server": ("test", 80),
        "client": ("test", 1),
    }
    taken, statuses = [], []

    async def receive():
        taken.append(1)
        return {"type": "http.request", "body": bytes(100_000), "more_body": len(taken) * 100_000 < total}

    async def send(message):
        statuses.append(message.get("status"))

    anyio.run(app, scope, receive, send)
    return statuses[0], len(taken)


def test_a_client_that_goes_away_does_not_fail_the_service(app):
    async def receive():
        return {"type": "http.disconnect"}

    statuses = []

    async def send(message):
        statuses.append(message.get("status"))

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=x")],
    }
    anyio.run(app, scope, receive, send)
    assert statuses[0] == 400


def test_uploads_never_touch_the_disk(client, monkeypatch, tmp_path):
    def no_disk(*_args, **_options):
        raise AssertionError("a temporary file was made")

    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, no_disk)
    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", no_disk)
    opened = []
    real_open = builtins.open
    monkeypatch.setattr(builtins, "open", lambda *a, **k: (opened.append(a[:2]), real_open(*a, **k))[1])
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    response = client.post("/v1/predict", files={"file": ("big.png", big_png())})
    assert response.status_code == 200
    assert [call for call in opened if len(call) > 1 and set(str(call[1])) & set("wax+")] == []


def test_logs_hold_no_file_name_no_made_up_path_and_no_content(client, png, caplog):
    with caplog.at_level(logging.DEBUG):
        client.post("/v1/predict", files={"file": ("Jane_Doe_1950.png", png)})
        client.post("/v1/predict", files={"file": ("Jane_Doe_1950.png", b"Jane Doe")})
        client.get("/patients/Jane_Doe_1950?name=Jane")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith(("pneumo", "uvicorn"))]
    assert [re.sub(r"^\w+ | [\d.]+ ms$", "", line) for line in lines] == [
        "POST /v1/predict 200",
        "POST /v1/predict 415",
        "GET - 404",
    ]
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert not [record for record in ours if "Jane" in record.getMessage()]


@pytest.mark.parametrize("given_id", ["abc-123", "A.b_c", "x" * 64])
def test_a_sane_request_id_is_kept(client, png, given_id):
    response = client.post("/v1/predict", files={"file": png}, headers={"x-request-id": given_id})
    assert response.headers["x-request-id"] == response.json()["request_id"] == given_id


@pytest.mark.parametrize("given_id", ["", "x" * 65, "two words", "<script>", "a/b"])
def test_another_request_id_is_replaced(client, png, given_id):
    response = client.post("/v1/predict", files={"file": png}, headers={"x-request-id": given_id})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_every_request_has_an_id_of_its_own(client):
    assert len({client.get("/healthz").headers["x-request-id"] for _ in range(3)}) == 3


def test_the_model_route_answers_with_bundle_json(client, bundle):
    response = client.get("/v1/model")
    assert response.status_code == 200
    assert response.json() == json.loads((bundle.folder / "bundle.json").read_text())


def test_health_and_readiness_answer(client):
    assert (client.get("/healthz").status_code, client.get("/healthz").json()) == (200, {"status": "ok"})
    assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (200, {"status": "ready"})


def test_unknown_routes_and_methods_are_problems(client):
    refused(client.get("/v1/nothing"), 404)
    response = client.get("/v1/predict")
    refused(response, 405)
    assert response.headers["allow"] == "POST"


def test_the_documentation_says_what_to_send_and_what_it_is(client):
    assert client.get("/docs").status_code == 200
    document = client.get("/openapi.json").json()
    content = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert content.keys() == {"multipart/form-data", "image/*", "application/octet-stream"}
    assert "413" in document["paths"]["/v1/predict"]["post"]["responses"]
    assert "not a medical device" in document["info"]["description"]


def test_a_bug_is_a_problem_that_tells_nothing_of_its_insides(bundle, png, monkeypatch, caplog):
    def fail(*_args, **_options):
        raise RuntimeError("secret inside")

    monkeypatch.setattr(Predictor, "predict", fail)
    with TestClient(create_app(bundle, LIMITS)) as client:  # raises what would reach the server
        response = client.post("/v1/predict", files={"file": png})
    assert "secret" not in response.text
    refused(response, 500)
    (failure,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert re.fullmatch(
        rf"request {response.json()['request_id']} failed: RuntimeError at serving/app\.py:\d+", failure.getMessage()
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
from serving.predictor import Predictor
from serving.server import serve
from serving.settings import Settings

def fail(self, inputs):
    try:
        raise ValueError("Jane Doe, cause")
    except ValueError as cause:
        raise RuntimeError("Jane Doe, born 1950") from cause

Predictor.predict = fail
logging.basicConfig(level=logging.DEBUG)
serve(Settings(model=sys.argv[1], port=0), lambda bundle, address: print(address, flush=True))
"""


def test_a_running_server_writes_nothing_of_an_exceptions_message(bundle, png):
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(bundle.folder)],
        cwd=Path(__file__).parents[2],
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
    refused(response, 500)
    assert "Jane" not in response.text + out + err
    assert "Traceback" not in err
    assert re.search(rf"request {response.headers['x-request-id']} failed: RuntimeError at serving/app\.py:\d+", err)


def test_health_answers_while_a_prediction_runs(bundle, png, monkeypatch):
    entered, release = threading.Event(), threading.Event()
    original = Predictor.predict

    def slow(self, inputs):
        entered.set()
        assert release.wait(20)
        return original(self, inputs)

    app = create_app(bundle, LIMITS)
    monkeypatch.setattr(Predictor, "predict", slow)
    with TestClient(app) as client:
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(client.post("/v1/predict", files={"file": png}).status_code)
        )
        thread.start()
        assert entered.wait(20)
        assert client.get("/healthz").status_code == 200
        assert answers == []
        release.set()
        thread.join()
    assert answers == [200]


def test_predictions_run_one_at_a_time(bundle, png, monkeypatch):
    running, most = [0], [0]
    guard = threading.Lock()
    original = Predictor.predict

    def counted(self, inputs):
        with guard:
            running[0] += 1
            most[0] = max(most[0], running[0])
        try:
            threading.Event().wait(0.02)
            return original(self, inputs)
        finally:
            with guard:
                running[0] -= 1

    app = create_app(bundle, LIMITS)
    monkeypatch.setattr(Predictor, "predict", counted)
    with TestClient(app) as client:
        threads = [threading.Thread(target=lambda: client.post("/v1/predict", files={"file": png})) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1]


def test_the_factory_reads_the_environment(bundle, png, monkeypatch):
    monkeypatch.setenv("PNEUMO_MODEL", str(bundle.folder))
    monkeypatch.setenv("PNEUMO_MAX_BYTES", "10")
    with TestClient(from_environment()) as client:
        assert client.get("/v1/model").json()["name"] == "tiny"
        refused(client.post("/v1/predict", files={"file": png}), 413, "too-large")


def test_the_factory_ends_with_one_line_where_there_is_no_model(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PNEUMO_MODELS_DIR", str(tmp_path))
    monkeypatch.delenv("PNEUMO_MODEL", raising=False)
    with pytest.raises(SystemExit) as caught:
        from_environment()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("pneumo: champion: no model is promoted")


def test_a_png_with_a_text_bomb_is_refused(client):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
        + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000_000), 9))
        + chunk(b"IDAT", zlib.compress(bytes(72)))
        + chunk(b"IEND", b"")
    )
    refused(client.post("/v1/predict", files={"file": content}), 400, "unreadable-image")


def test_the_page_of_docs_needs_no_other_host(client: TestClient) -> None:
    page = client.get("/docs")

    assert page.status_code == 200
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page.text)
    scripts = re.findall(r"(?:src|href)=\"(/[^\"]+)\"", page.text)
    assert scripts
    assert all(client.get(script).status_code == 200 for script in scripts)
