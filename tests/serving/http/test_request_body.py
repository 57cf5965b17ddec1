"""Bodies that come compressed, slowly, or in greater number than memory holds."""

import gzip
import json
import resource
import zlib

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.http.request_body import _decompress

MAX_BYTES = 3_000_000
INFER = "/v2/models/tiny/infer"
ROUTES = ("/v1/predict", "/v1/explain", "/v1/feedback", INFER)


@pytest.fixture(scope="module")
def app(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    url = f"sqlite:///{folder / 'log.sqlite3'}"
    return create_app(bundle, Settings(max_bytes=MAX_BYTES, threads=1, log_url=url, log_spool=folder / "spool"))


@pytest.fixture(scope="module")
def client(app, started):
    with started(app) as client:
        yield client


@pytest.fixture
def bodies(png, client) -> dict[str, tuple[str, bytes]]:
    """A media type and a good body for each route."""
    request_id = client.post("/v1/predict", files={"file": png}).json()["request_id"]
    values = np.zeros((1, 1, 28, 28)).tolist()
    tensor = {"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": values}
    return {
        "/v1/predict": ("image/png", png),
        "/v1/explain": ("image/png", png),
        "/v1/feedback": ("application/json", json.dumps({"request_id": request_id, "label": "NORMAL"}).encode()),
        INFER: ("application/json", json.dumps({"inputs": [tensor]}).encode()),
    }


def deflate(data: bytes) -> bytes:
    return zlib.compress(data)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", deflate),
        ("identity", bytes),
        ("", bytes),
        ("identity, gzip", gzip.compress),
    ],
)
def test_a_compressed_body_is_read_as_the_plain_one(client, bodies, route, coding, compress):
    media_type, body = bodies[route]
    headers = {"content-type": media_type, "content-encoding": coding}
    response = client.post(route, content=compress(body), headers=headers)
    assert response.status_code == 200, response.text
    assert "accept-encoding" not in response.headers


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip;q=1", "deflate, br"])
def test_other_codings_are_refused_with_those_that_are_read(client, bodies, route, coding):
    media_type, body = bodies[route]
    response = client.post(route, content=body, headers={"content-type": media_type, "content-encoding": coding})
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "gzip, deflate"
    document = response.json()
    assert "gzip, deflate" in document.get("detail", document.get("error"))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("coding", "damage"),
    [
        ("gzip", lambda body: body),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("gzip", lambda body: gzip.compress(body)[:-1]),
        ("deflate", lambda body: zlib.compress(body)[:-5]),
        ("deflate", lambda body: zlib.compress(body) + b"more"),
        ("gzip", lambda body: gzip.compress(body) + b"more"),
        ("gzip", lambda body: gzip.compress(body)[:-8] + b"checksum"),
        ("gzip", lambda _: b""),
    ],
)
def test_what_is_not_compressed_as_declared_is_unreadable(client, bodies, route, coding, damage):
    media_type, body = bodies[route]
    headers = {"content-type": media_type, "content-encoding": coding}
    response = client.post(route, content=damage(body), headers=headers)
    assert response.status_code == 400
    assert coding in response.text


@pytest.fixture(scope="module")
def bomb() -> bytes:
    return gzip.compress(bytes(100_000_000), 9)


@pytest.mark.parametrize("route", ROUTES)
def test_a_body_counts_as_large_as_it_is_decompressed(client, bodies, bomb, route):
    media_type, _ = bodies[route]
    client.post(route, content=bomb[:1000], headers={"content-type": media_type, "content-encoding": "gzip"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    response = client.post(route, content=bomb, headers={"content-type": media_type, "content-encoding": "gzip"})
    assert response.status_code == 413, response.text
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kilobytes


def test_the_length_of_the_document_counts_in_the_decompressed_body(client):
    values = np.zeros((1, 1, 28, 28), "<f4").tobytes()
    parameters = {"binary_data_size": len(values)}
    tensor = {"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "parameters": parameters}
    document = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(document)), "content-encoding": "gzip"}
    response = client.post(INFER, content=gzip.compress(document + values), headers=headers)
    assert response.status_code == 200, response.text


def decompressed(coding: str, pieces: list[bytes], max_bytes: int = MAX_BYTES) -> bytes:
    left = list(pieces)

    async def receive():
        return {"type": "http.request", "body": left.pop(0) if left else b"", "more_body": bool(left)}

    async def read() -> bytes:
        receive_decompressed, body = _decompress(receive, coding, max_bytes), b""
        while True:
            message = await receive_decompressed()
            assert len(message["body"]) <= 65536
            body += message["body"]
            if not message["more_body"]:
                return body

    return anyio.run(read)


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=4), st.integers(1, 400), st.integers(1, 300))
def test_a_stream_is_the_same_however_it_is_cut(members, cut, times):
    members = [member * times for member in members]
    for coding, whole in (("gzip", b"".join(map(gzip.compress, members))), ("deflate", deflate(b"".join(members)))):
        pieces = [whole[start : start + cut] for start in range(0, len(whole), cut)]
        assert decompressed(coding, pieces) == b"".join(members)


def test_bytes_that_become_nothing_are_bounded_too():
    empty = gzip.compress(b"")
    with pytest.raises(ProblemError) as caught:
        decompressed("gzip", [empty * 100] * 1000, max_bytes=100_000)
    assert caught.value.kind == "too-large"


def test_the_memory_of_bodies_is_what_arrived(bundle, png, started):
    app = create_app(bundle, Settings(max_bytes=1_000_000, max_pending_bytes=1_000_000, threads=1))
    with started(app) as client:
        shedding = app.state.service.load_shedding
        with shedding.hold_body() as reserve:
            reserve(300_000, 0)
            assert client.post("/v1/predict", files={"file": png}).status_code == 200
            large = gzip.compress(bytes(800_000))
            headers = {"content-type": "image/png", "content-encoding": "gzip"}
            refused = client.post("/v1/predict", content=large, headers=headers)
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:pneumo:problem:over-capacity")
            assert shedding.body_bytes == 300_000
        assert shedding.body_bytes == 0
