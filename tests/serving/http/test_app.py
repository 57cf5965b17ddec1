import base64
import builtins
import io
import json
import logging
import re
import struct
import tempfile
import zlib

import anyio
import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.model.predictor import Predictor
from tests.support.dicoms import make_dicom

PROBLEM = "application/problem+json"
LIMITS = Settings(max_bytes=3_000_000, max_pixels=1_000_000, max_images=4, threads=1)


@pytest.fixture(scope="module")
def app(bundle):
    return create_app(bundle, LIMITS)


@pytest.fixture(scope="module")
def client(app, started):
    with started(app) as client:
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
    assert answer.keys() == {"request_id", "model", "predictions", "errors", "notice"}
    assert answer["errors"] == []
    assert answer["model"] == {"name": "tiny", "version": "1", "positive_class": bundle.info.positive_class}
    notice = "research software, not a medical device; trained on images of a population that is not stated"
    assert answer["notice"] == notice
    (prediction,) = answer["predictions"]
    expected = Predictor(bundle).predict_bytes(png, "chest.png").model_dump()
    assert (prediction.pop("index"), prediction["remarks"]) == (0, [])
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


def test_where_it_is_asked_for_the_images_that_can_be_read_are_answered(client, pngs):
    files = [("file", ("good.png", pngs[0])), ("file", ("bad.png", b"text")), ("file", ("good2.png", pngs[1]))]
    answer = client.post("/v1/predict?partial=true", files=files).json()
    assert [(each["index"], each["filename"]) for each in answer["predictions"]] == [(0, "good.png"), (2, "good2.png")]
    (error,) = answer["errors"]
    assert (error["index"], error["filename"], error["status"]) == (1, "bad.png", 415)
    assert error["type"] == "urn:pneumo:problem:not-an-image"
    for each, data in zip(answer["predictions"], pngs, strict=False):
        alone = client.post("/v1/predict", files={"file": data}).json()["predictions"][0]
        assert each["probability"] == pytest.approx(alone["probability"], abs=1e-6)


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
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


def test_a_part_without_a_name_is_no_valid_form(client):
    content = b"--x\r\nContent-Type: image/png\r\n\r\nabc\r\n--x--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=x"}
    refused(client.post("/v1/predict", content=content, headers=headers), 400, "unreadable-body")


@given(st.binary(max_size=600), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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

    def watched_open(*given, **options):
        opened.append(given[:2])
        return real_open(*given, **options)

    monkeypatch.setattr(builtins, "open", watched_open)
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


@pytest.mark.parametrize("route", ["/v1/predict?partial=perhaps", "/v1/explain?format=gif"])
def test_a_parameter_that_cannot_be_is_a_problem_that_names_it(client, png, route):
    problem = refused(client.post(route, files={"file": png}), 422, "wrong-fields")
    assert route.partition("?")[2].partition("=")[0] in problem["detail"]


def test_the_documentation_says_what_to_send_and_what_it_is(client):
    assert client.get("/docs").status_code == 200
    document = client.get("/openapi.json").json()
    content = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert content.keys() >= {
        "multipart/form-data",
        "application/json",
        "application/zip",
        "application/dicom",
        "image/*",
    }
    assert document["paths"]["/v1/predict"]["post"]["responses"].keys() >= {"200", "400", "408", "413", "415", "503"}
    assert "not a medical device" in document["info"]["description"]


def test_the_documentation_knows_no_error_that_is_never_given(client):
    document = client.get("/openapi.json").json()
    wrong = {
        path: operation["responses"]["422"]["content"].keys()
        for path, operations in document["paths"].items()
        for operation in operations.values()
        if "422" in operation["responses"]
    }
    assert {path for path in wrong if path.startswith("/v1")} == {*wrong}
    assert set(map(frozenset, wrong.values())) == {frozenset({"application/problem+json"})}
    assert not {name for name in document["components"]["schemas"] if "ValidationError" in name}
    assert "ValidationError" not in json.dumps(document)


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


def test_a_heat_map_comes_as_an_overlay_or_apart_with_the_prediction(client, png):
    overlay = client.post("/v1/explain", files={"file": ("Jane Doe.png", png)})
    assert (overlay.status_code, overlay.headers["content-type"]) == (200, "image/png")
    with Image.open(io.BytesIO(overlay.content)) as image:
        assert image.size == (40, 50)
    apart = client.post("/v1/explain?format=json", files={"file": png}).json()
    alone = client.post("/v1/predict", files={"file": png}).json()["predictions"][0]
    assert apart["prediction"]["probability"] == pytest.approx(alone["probability"], abs=1e-6)
    assert apart["class_name"] == "PNEUMONIA"
    for name, mode in (("film", "L"), ("heat", "P")):
        with Image.open(io.BytesIO(base64.b64decode(apart[name]))) as image:
            assert (image.size, image.mode) == ((40, 50), mode)


def test_an_image_alone_comes_as_the_model_sees_it_and_is_not_logged(client, png):
    film = client.post("/v1/explain?format=film", files={"file": ("Jane Doe.png", png)})
    assert (film.status_code, film.headers["content-type"]) == (200, "image/png")
    apart = client.post("/v1/explain?format=json", files={"file": png}).json()
    assert film.content == base64.b64decode(apart["film"])
    refused(client.post("/v1/explain?format=film", files=[("file", png), ("file", png)]), 422, "wrong-fields")
    refused(client.post("/v1/explain?format=film", files={"file": b"text"}), 415, "not-an-image")


def test_a_heat_map_is_of_one_image_and_of_a_class_that_there_is(client, png):
    refused(client.post("/v1/explain", files=[("file", png), ("file", png)]), 422, "wrong-fields")
    problem = refused(client.post("/v1/explain?class=FRACTURE", files={"file": png}), 422, "wrong-fields")
    assert "NORMAL, PNEUMONIA" in problem["detail"]
    refused(client.post("/v1/explain", files={"file": b"text"}), 415, "not-an-image")
    assert client.post("/v1/explain?class=NORMAL", files={"file": png}).status_code == 200


def test_how_a_heat_map_is_made_can_be_chosen_where_the_model_can(client, app, png):
    answer = client.post("/v1/explain?format=json&method=occlusion", files={"file": png})
    assert answer.json()["method"] == "occlusion"
    assert not app.state.service.slots.champion.predictor.has_maps
    problem = refused(client.post("/v1/explain?method=cam", files={"file": png}), 422, "wrong-fields")
    assert "ask for method=occlusion" in problem["detail"]


def test_what_is_odd_about_a_file_is_said_with_its_answer(client, png):
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    scan = make_dicom(pixels, Modality="CT", PatientName="Doe^Jane", WindowCenter=2048, WindowWidth=4096)
    answer = client.post("/v1/predict", files=[("file", scan), ("file", png)])
    assert [each["remarks"] for each in answer.json()["predictions"]] == [
        ["modality CT; a radiograph has modality CR or DX"],
        [],
    ]
    assert "Jane" not in answer.text
