"""`pneumo.serving.client` against real servers on this machine."""

import asyncio
import email.utils
import io
import json
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pneumo.serving import client as client_module
from pneumo.serving.client import Client, ServiceError
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.schemas import ImageProblem, ServedPrediction
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.model.predictor import Predictor
from tests.support.paths import ROOT
from tests.support.servers import served

Answer = Callable[[dict, bytes], Awaitable[tuple[int, dict[str, str], bytes]]]


class Recorder:
    """Stands before an application, keeps what it was sent, and answers itself as long as it has answers.

    Attributes:
        seen: Path, headers and body of each request.
        answers: Status and headers of the next answers; then the application's turn comes.
    """

    def __init__(self, app, *answers: tuple[int, dict[str, str]]) -> None:
        self.app = app
        self.answers = list(answers)
        self.seen: list[tuple[str, dict[bytes, bytes], bytes]] = []

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.seen.append((scope["path"], dict(scope["headers"]), body))
        if self.answers:
            status, headers = self.answers.pop(0)
            await reply(send, status, headers, b"")
            return

        async def again():
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


async def reply(send, status: int, headers: dict[str, str], body: bytes) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def stub(answer: Answer) -> Callable:
    """An application that answers each request by a function of its scope and body."""

    async def app(scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            for name in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{name}.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await reply(send, *await answer(scope, body))

    return app


@pytest.fixture(scope="module")
def recorder(bundle) -> Recorder:
    return Recorder(create_app(bundle, Settings(threads=1, max_images=32)))


@pytest.fixture(scope="module")
def url(recorder) -> Iterator[str]:
    with served(recorder) as url:
        with Client(url) as client:
            client.wait_until_ready(30)
        yield url


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def client(url, recorder, slept) -> Iterator[Client]:
    recorder.seen.clear()
    recorder.answers.clear()
    with Client(url, sleep=slept.append, jitter=lambda: 0.5) as client:
        yield client


@pytest.fixture(scope="module")
def folder(pngs, tmp_path_factory) -> Path:
    """Twelve images in two folders, and a file that is none."""
    folder = tmp_path_factory.mktemp("images")
    for index, data in enumerate(pngs):
        path = folder / ("a" if index < 6 else "b") / f"MUELLER_{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (folder / "notes.txt").write_text("no image")
    return folder


def same(found: list[ServedPrediction], bundle, datas: list[bytes]) -> None:
    expected = [Predictor(bundle, threads=1).predict_bytes(data) for data in datas]
    assert [each.probability for each in found] == pytest.approx([each.probability for each in expected], abs=1e-6)
    assert [each.label for each in found] == [each.label for each in expected]
    assert [each.index for each in found] == list(range(len(datas)))


def test_bytes_a_path_and_its_name_as_text_give_the_same(client, bundle, folder, pngs):
    path = folder / "a" / "MUELLER_00.png"
    found = client.predict([pngs[0], path, str(path)])

    same(found, bundle, [pngs[0]] * 3)
    assert [each.filename for each in found] == [None, str(path), str(path)]


def test_one_image_gives_a_list_of_one(client, bundle, pngs):
    same(client.predict(pngs[3]), bundle, [pngs[3]])


def test_a_folder_gives_its_images_in_their_order(client, bundle, folder, pngs):
    found = client.predict(folder)

    same(found, bundle, pngs)
    assert [Path(each.filename or "").name for each in found] == [f"MUELLER_{index:02}.png" for index in range(12)]


def test_a_list_may_hold_folders_and_one_file_twice(client, bundle, folder, pngs):
    path = folder / "a" / "MUELLER_01.png"
    same(client.predict([path, folder / "b", path]), bundle, [pngs[1], *pngs[6:], pngs[1]])


def test_nothing_asked_is_nothing_answered(client, recorder):
    assert client.predict([]) == []
    assert recorder.seen == []


def test_names_of_files_stay_here(client, recorder, folder):
    client.predict(folder)
    client.predict(folder / "a" / "MUELLER_00.png")

    assert len(recorder.seen) == 2
    assert not any(b"MUELLER" in body for _, _, body in recorder.seen)


def test_many_images_go_in_several_requests_and_come_back_in_order(client, recorder, bundle, folder, pngs, monkeypatch):
    monkeypatch.setattr(client_module, "IMAGES", 5)
    same(client.predict([folder, folder]), bundle, pngs * 2)
    assert len(recorder.seen) == 5


def test_requests_stay_under_their_bytes(client, recorder, bundle, folder, pngs, monkeypatch):
    monkeypatch.setattr(client_module, "BYTES", 3 * max(map(len, pngs)))
    same(client.predict(folder), bundle, pngs)
    assert len(recorder.seen) >= 4


@pytest.mark.parametrize("limits", [{"max_images": 2}, {"max_bytes": 5_000}])
def test_a_service_with_narrower_limits_gets_smaller_requests(bundle, folder, pngs, limits):
    assert max(map(len, pngs)) < 2_500
    with served(create_app(bundle, Settings(threads=1, **limits))) as url, Client(url) as client:
        client.wait_until_ready(30)
        same(client.predict(folder), bundle, pngs)


def test_one_file_over_the_limit_is_too_large(bundle, pngs):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300)).astype(np.uint8)).save(buffer, "PNG")
    with served(create_app(bundle, Settings(threads=1, max_bytes=20_000))) as url, Client(url) as client:
        client.wait_until_ready(30)
        with pytest.raises(ServiceError, match="20,000 bytes") as caught:
            client.predict([pngs[0], buffer.getvalue()])
    assert caught.value.status == 413


def test_a_bad_image_is_an_error_that_names_it(client, folder, pngs, tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "IMAGES", 2)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"just text")
    with pytest.raises(ServiceError) as caught:
        client.predict([*pngs[:3], bad, pngs[4]])

    error = caught.value
    assert (error.status, error.type, error.index) == (415, "urn:pneumo:problem:not-an-image", 3)
    assert error.filename == str(bad)
    assert str(error).startswith(f"{bad}: 415 Not an image: ")
    assert "image 2 of 2" not in error.detail


def test_with_partial_a_bad_image_is_told_of_in_its_place(client, bundle, pngs, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(pngs[0][:60])
    first, problem, last = client.predict([pngs[0], bad, pngs[1]], partial=True)

    assert isinstance(problem, ImageProblem)
    assert (problem.index, problem.filename, problem.status) == (1, str(bad), 400)
    assert isinstance(first, ServedPrediction)
    assert isinstance(last, ServedPrediction)
    assert last.index == 2


def test_a_file_that_is_not_there_is_the_callers_mistake(client, tmp_path, recorder):
    with pytest.raises(InputError, match="no such file"):
        client.predict(tmp_path / "none.png")
    with pytest.raises(InputError, match="no images in this folder"):
        client.predict(tmp_path)
    assert recorder.seen == []


def test_a_zip_is_refused_before_it_is_sent(client, pngs, tmp_path, recorder):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.png", pngs[0])
    for source in (path, path.read_bytes()):
        with pytest.raises(InputError, match="unpack it"):
            client.predict([source])
    assert recorder.seen == []


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_sheds_twice_is_asked_a_third_time_when_it_said(client, recorder, slept, pngs, bundle, status):
    recorder.answers = [(status, {"Retry-After": "3"}), (status, {"Retry-After": "2"})]
    same(client.predict(pngs[0]), bundle, [pngs[0]])

    assert len(recorder.seen) == 3
    assert slept == [pytest.approx(3 + 0.5 * 0.25), pytest.approx(2 + 0.5 * 0.5)]


def test_without_a_word_when_it_waits_a_little_longer_each_time(client, recorder, slept):
    recorder.answers = [(503, {})] * 3
    client.model()
    assert slept == [pytest.approx(each) for each in (0.125, 0.25, 0.5)]


def test_a_date_to_come_again_is_honoured(client, recorder, slept):
    recorder.answers = [(503, {"Retry-After": email.utils.formatdate(time.time() + 20, usegmt=True)})]
    client.model()
    assert slept == [pytest.approx(20, abs=2.5)]


@pytest.mark.parametrize("text", ["", "soon", "-5", "²", "Thu, 99 Nov 2026 99:99:99 GMT"])
def test_what_is_no_time_to_come_again_is_passed_over(client, recorder, slept, text):
    recorder.answers = [(503, {"Retry-After": text.encode("utf-8").decode("latin-1")})]
    client.model()
    assert slept == [pytest.approx(0.125)]


def test_it_gives_up_after_so_many_retries(client, recorder, slept):
    recorder.answers = [(503, {"Retry-After": "1"})] * 4
    with pytest.raises(ServiceError) as caught:
        client.model()
    assert caught.value.status == 503
    assert (len(recorder.seen), len(slept)) == (4, 3)


def test_it_does_not_wait_for_hours(client, recorder, slept):
    recorder.answers = [(429, {"Retry-After": "86400"})]
    with pytest.raises(ServiceError):
        client.model()
    assert slept == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 415, 422, 500, 502])
def test_another_refusal_is_final(client, recorder, slept, status, pngs):
    recorder.answers = [(status, {})]
    with pytest.raises(ServiceError) as caught:
        client.predict(pngs[0])
    assert caught.value.status == status
    assert (len(recorder.seen), slept) == (1, [])


def test_an_error_has_the_fields_of_the_problem(client, pngs, recorder):
    with pytest.raises(ServiceError) as caught:
        client._request(
            "POST", "/v1/predict", content=b"x", headers={"Content-Type": "text/plain", "X-Request-ID": "abc"}
        )
    error = caught.value
    assert (error.status, error.type) == (415, "urn:pneumo:problem:unsupported-media-type")
    assert (error.title, error.request_id) == ("Unsupported media type", "abc")
    assert "multipart/form-data" in error.detail
    assert "\n" not in str(error)


def test_an_error_of_a_proxy_is_told_without_its_page():
    async def answer(_scope, _body):
        return 502, {"content-type": "text/html"}, b"<html>bad gateway</html>"

    with served(stub(answer)) as url, Client(url) as client, pytest.raises(ServiceError) as caught:
        client.model()
    assert str(caught.value) == "502 Bad Gateway"


def test_something_else_at_the_address_is_told():
    async def answer(_scope, _body):
        return 200, {"content-type": "text/html"}, b"<html>hello</html>"

    with served(stub(answer)) as url, Client(url) as client:
        with pytest.raises(ServiceError, match="pneumo service"):
            client.model()
        with pytest.raises(ServiceError, match="pneumo service"):
            client.predict(b"x")
        assert not client.ready()


def test_a_broken_connection_is_tried_again(bundle, slept):
    """The first two connections are closed as soon as the request came."""
    answer = json.dumps(bundle.info.model_dump(mode="json")).encode()
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(answer), answer)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for content in (b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", whole):
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(content)
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", sleep=slept.append) as client:
        assert client.model() == bundle.info
    thread.join(10)
    listener.close()
    assert len(slept) == 2


def test_where_nothing_answers_the_error_says_so(slept):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", retries=2, sleep=slept.append) as client:
        with pytest.raises(ServiceError, match="No connection") as caught:
            client.model()
        assert caught.value.status is None
        assert len(slept) == 2
        assert not client.ready()
        with pytest.raises(ServiceError, match="no answer after 0 s"):
            client.wait_until_ready(0)


def test_a_slow_answer_is_not_asked_for_again(slept):
    asked = []

    async def answer(_scope, _body):
        asked.append(1)
        await asyncio.sleep(1)
        return 200, {}, b""

    with served(stub(answer)) as url, Client(url, timeout=0.2, sleep=slept.append) as client:
        with pytest.raises(ServiceError, match="No answer"):
            client.model()
        assert slept == []
        assert len(asked) <= 1  # on a busy machine the time is over before the question arrives


def test_four_requests_are_under_way_at_once(pngs, monkeypatch):
    monkeypatch.setattr(client_module, "IMAGES", 1)
    running, most = 0, 0

    async def answer(_scope, _body):
        nonlocal running, most
        running += 1
        most = max(most, running)
        while most < client_module.CONCURRENCY:
            await asyncio.sleep(0.005)
        running -= 1
        prediction = {"filename": None, "label": "A", "probability": 0.5, "probabilities": {}, "threshold": None}
        prediction |= {"certainty": "certain", "in_distribution": True, "outlier_score": 0, "elapsed_ms": 1, "index": 0}
        model = {"name": "m", "version": "1", "positive_class": None}
        return 200, {}, json.dumps({"request_id": "1", "model": model, "predictions": [prediction]}).encode()

    with served(stub(answer)) as url, Client(url) as client:
        assert len(client.predict(pngs)) == 12
    assert most == client_module.CONCURRENCY


def test_after_an_error_no_more_is_sent(client, recorder, pngs, monkeypatch):
    monkeypatch.setattr(client_module, "IMAGES", 1)
    recorder.answers = [(401, {})] * 100
    with pytest.raises(ServiceError):
        client.predict(pngs * 8)
    assert len(recorder.seen) < 90


def test_the_model_is_the_bundle(client, bundle):
    assert client.model() == bundle.info


def test_the_key_is_sent_with_every_request(url, recorder, pngs):
    recorder.seen.clear()
    with Client(url, key="pneumo_secret") as client:
        client.predict(pngs[0])
        client.model()
        client.ready()
    assert [headers[b"authorization"] for _, headers, _ in recorder.seen] == [b"Bearer pneumo_secret"] * 3


def test_an_explanation_is_the_bytes_of_the_answer(pngs):
    async def answer(scope, body):
        assert (scope["method"], scope["path"], body) == ("POST", "/v1/explain", pngs[0])
        return 200, {"content-type": "image/png"}, b"\x89PNG"

    with served(stub(answer)) as url, Client(url) as client:
        assert client.explain(pngs[0]) == b"\x89PNG"


def test_the_service_draws_where_it_looked(client, folder):
    picture = Image.open(io.BytesIO(client.explain(folder / "a" / "MUELLER_00.png")))
    assert picture.format == "PNG"


def test_a_folder_of_many_cannot_be_explained(client, folder):
    with pytest.raises(InputError, match="one of 12 images"):
        client.explain(folder)


def test_it_waits_until_the_service_is_ready():
    states = iter(["loading", "loading", "ready"])

    async def answer(_scope, _body):
        state = next(states)
        return 200 if state == "ready" else 503, {}, json.dumps({"status": state}).encode()

    with served(stub(answer)) as url, Client(url) as client:
        client.wait_until_ready(10)
    assert next(states, None) is None


def test_it_does_not_wait_for_a_service_that_failed(slept):
    async def answer(_scope, _body):
        return 503, {}, b'{"status": "failed"}'

    with (
        served(stub(answer)) as url,
        Client(url, sleep=slept.append) as client,
        pytest.raises(ServiceError, match="failed to load"),
    ):
        client.wait_until_ready(60)
    assert slept == []


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://here", "http://", "", "http://[::1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InputError, match="not an address"):
        Client(address)


def test_the_client_needs_neither_runtime_nor_framework():
    unwanted = {"onnxruntime", "fastapi", "starlette", "uvicorn"}
    program = f"import sys, pneumo.serving.client; print(*{unwanted} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@given(st.lists(st.integers(0, client_module.BYTES * 2), max_size=60))
def test_requests_hold_every_image_once_in_order_and_within_limits(sizes):
    images = [client_module._Image(index, b"", size) for index, size in enumerate(sizes)]
    batches = list(client_module._split_batches(images))

    assert [image for batch in batches for image in batch] == images
    for batch in batches:
        assert 1 <= len(batch) <= client_module.IMAGES
        assert len(batch) == 1 or sum(image.size for image in batch) <= client_module.BYTES
