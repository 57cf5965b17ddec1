"""The Open Inference Protocol under /v2."""

import json
import subprocess
import sys
import tarfile
import threading
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.http.routes import protocol
from pneumo.serving.http.tensors import OUTPUTS
from pneumo.serving.model.bundle import BundleError
from pneumo.serving.telemetry.tracing import Span
from tests.support.bundles import make_bundle
from tests.support.paths import ROOT

LIMITS = Settings(max_bytes=3_000_000, max_images=4, threads=1)
INFER = "/v2/models/tiny/infer"
LENGTH = "Inference-Header-Content-Length"
SHAPE = (1, 28, 28)


@pytest.fixture(scope="module")
def client(bundle, started):
    with started(create_app(bundle, LIMITS)) as client:
        yield client


def images(count: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (count, *SHAPE)).astype(np.float32)


def asked(tensor: np.ndarray, **changes: object) -> dict:
    given: dict[str, Any] = {
        "name": "image",
        "shape": list(tensor.shape),
        "datatype": "FP32",
        "data": tensor.ravel().tolist(),
    }
    return {"inputs": [given | changes]}


def tensors(answer: dict) -> dict[str, np.ndarray]:
    assert all(each["datatype"] == "FP32" for each in answer["outputs"])
    return {each["name"]: np.array(each["data"], np.float32).reshape(each["shape"]) for each in answer["outputs"]}


def refused(response, status: int = 400) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error"}
    return response.json()["error"]


def binary(tensor: np.ndarray, **changes: object) -> dict:
    """A request whose tensor stands behind the document."""
    raw = tensor.astype("<f4").tobytes()
    given: dict[str, Any] = {"name": "image", "shape": list(tensor.shape), "datatype": "FP32"}
    given["parameters"] = {"binary_data_size": len(raw)}
    document = json.dumps({"inputs": [given]} | changes).encode()
    return {"content": document + raw, "headers": {LENGTH: str(len(document))}}


def test_the_server_tells_of_itself(client):
    answer = client.get("/v2").json()

    assert answer["name"] == "pneumo"
    assert answer["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_a_service_that_drains_lives_and_is_not_ready(bundle, started):
    from pneumo.serving.inference.service import State

    app = create_app(bundle, LIMITS)
    with started(app) as client:
        app.state.service.state = State.DRAINING
        assert client.get("/v2/health/live").status_code == 200
        for path in ("/v2/health/ready", "/v2/models/tiny/ready"):
            response = client.get(path)
            assert response.status_code == 503
            assert response.json()["ready"] is False


def test_the_model_tells_of_its_tensors(client):
    answer = client.get("/v2/models/tiny").json()

    assert answer["versions"] == ["1"]
    assert answer["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 28, 28]}]
    assert {each["name"]: each["shape"] for each in answer["outputs"]} == {
        "logits": [-1, 2],
        "embedding": [-1, 6],
        "probabilities": [-1, 2],
    }
    assert client.get("/v2/models/tiny/versions/1").json() == answer
    assert client.get("/v2/models/tiny/versions/1/ready").json() == {"name": "tiny", "ready": True}


@pytest.mark.parametrize(
    "path", ["/v2/models/other", "/v2/models/tiny/versions/2", "/v2/models/other/ready", "/v2/models/champion"]
)
def test_an_unknown_model_is_not_found(client, path):
    assert "tiny:1" in refused(client.get(path), 404)


def test_every_version_that_answers_can_be_asked_for_and_the_shadow_cannot(bundle, started, tmp_path):
    app = create_app(bundle, LIMITS)
    with started(app) as client:
        slots = app.state.service.slots
        slots._put("challenger", make_bundle(tmp_path / "2", seed=1, version="2"))
        slots._put("shadow", make_bundle(tmp_path / "3", seed=2, version="3"))

        assert client.get("/v2/models/tiny").json()["versions"] == ["1", "2"]
        answers = [client.post(f"/v2/models/tiny/versions/{number}/infer", json=asked(images())) for number in (1, 2)]
        assert [each.json()["model_version"] for each in answers] == ["1", "2"]
        assert answers[0].json()["outputs"] != answers[1].json()["outputs"]
        refused(client.get("/v2/models/tiny/versions/3"), 404)


def test_an_unknown_model_cannot_be_asked(client):
    refused(client.post("/v2/models/tiny/versions/2/infer", json=asked(images())), 404)


def test_a_prepared_image_gets_the_prediction_of_its_file(client, bundle, pngs):
    from pneumo.serving.images.decode import prepare

    prepared = np.stack([prepare(data, bundle.info.preparation) for data in pngs[:4]])
    found = tensors(client.post(INFER, json=asked(prepared)).json())
    files = [("file", (f"{index}.png", data)) for index, data in enumerate(pngs[:4])]
    said = client.post("/v1/predict", files=files).json()["predictions"]

    expected = [[each["probabilities"][name] for name in bundle.info.classes] for each in said]
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)
    assert found["logits"].shape == (4, 2)
    assert found["embedding"].shape == (4, 6)


def test_nested_values_are_those_of_a_flat_list(client):
    tensor = images(3)
    flat = client.post(INFER, json=asked(tensor)).json()
    assert client.post(INFER, json=asked(tensor, data=tensor.tolist())).json() == flat


def test_only_the_outputs_asked_for_come_in_their_order(client):
    request = asked(images()) | {"outputs": [{"name": "probabilities"}, {"name": "logits"}], "id": "42"}
    answer = client.post("/v2/models/tiny/versions/1/infer", json=request).json()

    assert [each["name"] for each in answer["outputs"]] == ["probabilities", "logits"]
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "tiny", "1")
    notice = "research software, not a medical device; trained on images of a population that is not stated"
    assert answer["parameters"] == {"notice": notice}


def test_bytes_give_the_answer_of_json(client):
    tensor = images(4)
    plain = client.post(INFER, json=asked(tensor)).json()
    assert client.post(INFER, **binary(tensor)).json() == plain


def test_outputs_come_as_bytes_where_asked_for(client):
    plain = tensors(client.post(INFER, json=asked(images(4))).json())
    outputs = [{"name": "embedding", "parameters": {"binary_data": True}}, {"name": "logits"}]
    outputs.append({"name": "probabilities", "parameters": {"binary_data": True}})
    response = client.post(INFER, **binary(images(4), outputs=outputs))

    length = int(response.headers[LENGTH])
    assert response.headers["content-type"] == "application/octet-stream"
    document, raw = json.loads(response.content[:length]), response.content[length:]
    embedding, logits, probabilities = document["outputs"]
    size = embedding["parameters"]["binary_data_size"]
    np.testing.assert_array_equal(np.frombuffer(raw[:size], "<f4").reshape(4, 6), plain["embedding"])
    np.testing.assert_array_equal(np.frombuffer(raw[size:], "<f4").reshape(4, 2), plain["probabilities"])
    assert "data" not in embedding
    assert probabilities["parameters"]["binary_data_size"] == len(raw) - size
    np.testing.assert_array_equal(np.array(logits["data"], np.float32).reshape(4, 2), plain["logits"])


def test_all_outputs_come_as_bytes_where_the_request_says_so(client):
    response = client.post(INFER, **binary(images(), parameters={"binary_data_output": True}))

    document = json.loads(response.content[: int(response.headers[LENGTH])])
    assert all("binary_data_size" in each["parameters"] for each in document["outputs"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "x"}, "'image'"),
        ({"datatype": "FP64"}, "FP32"),
        ({"shape": [2, 1, 28, 27]}, "[N, 1, 28, 28]"),
        ({"shape": [2, 784]}, "[N, 1, 28, 28]"),
        ({"shape": [0, 1, 28, 28], "data": []}, "N from 1 to 4"),
        ({"shape": [5, 1, 28, 28], "data": [0.5] * 784 * 5}, "N from 1 to 4"),
        ({"shape": [10**30, 1, 28, 28]}, "N from 1 to 4"),
        ({"data": [0.5] * 783}, "783 values"),
        ({"data": [0.5] * 1567 + ["0.5"]}, "numbers"),
        ({"data": [0.5] * 1567 + [True]}, "numbers"),
        ({"data": [0.5] * 1567 + [None]}, "numbers"),
        ({"data": [0.5] * 1567 + [1.01]}, "[0, 1]"),
        ({"data": [0.5] * 1567 + [-0.01]}, "[0, 1]"),
        ({"data": [0.5] * 1567 + [10**400]}, "too large"),
        ({"data": [[0.5] * 784] * 2}, "nested"),
        ({"data": [[[[0.5] * 28] * 28], [[[0.5] * 28] * 27 + [0.5]]]}, "nested"),
        ({"data": None}, "either data or"),
        ({"parameters": {"binary_data_size": 6272}}, "either data or"),
        ({"data": None, "parameters": {"binary_data_size": 6272}}, "binary_data_size"),
        ({"shape": "2"}, "inputs.0.shape"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_with_the_mend(client, change, said):
    assert said in refused(client.post(INFER, json=asked(images(), **change)))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "1e39"])
def test_values_that_are_not_finite_are_refused(client, value):
    body = json.dumps(asked(images(1), data=[0.5] * 783 + ["@"])).replace('"@"', value)
    assert "finite" in refused(client.post(INFER, content=body))


def test_bytes_that_are_not_finite_are_refused(client):
    tensor = images(1)
    tensor[0, 0, 3, 3] = np.nan
    assert "finite" in refused(client.post(INFER, **binary(tensor)))


@pytest.mark.parametrize("outputs", [[{"name": "softmax"}], [{"name": "logits"}] * 2, [{}], [3]])
def test_other_outputs_are_refused(client, outputs):
    assert "outputs" in refused(client.post(INFER, json=asked(images()) | {"outputs": outputs}))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'{"inputs": []}', b"\xff\xfe", b"[" * 200_000, b"9" * 9000])
def test_what_is_no_request_is_refused(client, body):
    refused(client.post(INFER, content=body))


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "²", "99999999", "9" * 5000, "10"])
def test_a_wrong_length_of_the_document_is_refused(client, length):
    request = binary(images())
    request["headers"] = [(LENGTH.encode(), length.encode())]
    refused(client.post(INFER, **request))


def test_bytes_behind_json_values_are_refused(client):
    document = json.dumps(asked(images())).encode()
    refused(client.post(INFER, content=document + b"1234", headers={LENGTH: str(len(document))}))


def test_a_body_over_the_limit_is_too_large(client):
    refused(client.post(INFER, content=b" " * 3_000_001), 413)
    refused(client.post(INFER, content=iter([b" " * 2_000_000] * 2)), 413)


def test_a_document_of_more_values_than_images_hold_is_refused_unparsed(client, monkeypatch):
    monkeypatch.setattr("pneumo.serving.http.tensors.pydantic_core", None)
    for item in (b"0,", b"[],", b"{},"):
        body = b'{"x": [' + item * 5_000 + b"0]}"
        assert "more than 4 images" in refused(client.post(INFER, content=body))


BOMBS = """
import resource
from pneumo.serving.http.tensors import Message, Shape, TensorError, read_request

shape, commas = Shape(1, 224, 224, 32), 1_600_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for body in (
    b'{"inputs": [' + b"0," * commas + b"0]}",
    b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [' + b"-1," * commas + b"1]}]}",
    b'{"inputs": [{"name": "image", "datatype": "FP32", "shape": [' + b"1," * commas + b"1]}]}",
    b'{"inputs": [], "outputs": [' + b'"x",' * commas + b"1]}",
    b'{"inputs": [], "outputs": [' + b'{"name": "logits"},' * 1_000_000 + b"1]}",
    b'{"inputs": [], "outputs": [' + b"[[[[]]]]," * commas + b"1]}",
    b'{"inputs": [], "parameters": {' + b'"a":1,' * commas + b'"b":1}}',
    b"[" * 20_000_000,
):
    try:
        read_request(Message(body, b""), shape)
    except TensorError:
        continue
    raise SystemExit("taken")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_document_of_twenty_megabytes_takes_a_few_times_its_size():
    done = subprocess.run([sys.executable, "-c", BOMBS], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) < 200_000  # kilobytes


def test_a_service_over_capacity_says_when_to_come_again(bundle, started):
    app = create_app(bundle, LIMITS.model_copy(update={"max_wait_s": 0.5}))
    with started(app) as client:
        shedding = app.state.service.load_shedding
        shedding.work, shedding.seconds_per_image = 100, 1.0
        response = client.post(INFER, json=asked(images()))
        refused(response, 503)
        assert int(response.headers["retry-after"]) >= 1


def test_what_takes_too_long_is_given_up(bundle, started, monkeypatch):
    hold = threading.Event()
    app = create_app(bundle, LIMITS.model_copy(update={"timeout_s": 0.2}))
    with started(app) as client:
        monkeypatch.setattr(protocol, "_run", lambda *_: hold.wait(20))
        try:
            assert "0.2 s" in refused(client.post(INFER, json=asked(images())), 503)
        finally:
            hold.set()
        service = app.state.service
        assert (service.load_shedding.images, service.load_shedding.body_bytes) == (0, 0)


def test_predictions_are_counted(client):
    def counted() -> float:
        (line,) = [
            line
            for line in client.app.state.service.metrics.exposition()[0].decode().splitlines()
            if line.startswith('pneumo_images_total{lane="champion",result="predicted"}')
        ]
        return float(line.rpartition(" ")[2])

    before = counted()
    client.post(INFER, json=asked(images(3)))
    assert counted() == before + 3


def test_a_network_that_breaks_is_a_failure_of_the_service_and_counted(client, monkeypatch):
    def broken(*_args: object) -> None:
        raise BundleError("gave values that are not finite")

    monkeypatch.setattr("pneumo.serving.model.predictor.Predictor.run", broken)
    response = client.post(INFER, json=asked(images(3)))

    assert response.status_code == 500
    assert "finite" not in response.text
    exposed = client.app.state.service.metrics.exposition()[0].decode()
    assert 'pneumo_images_total{lane="champion",result="failed"} 3.0' in exposed


leaves: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything: st.SearchStrategy[Any] = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
numbers: st.SearchStrategy[Any] = st.lists(st.floats(0, 1, width=32) | leaves, min_size=784, max_size=784) | anything
inputs: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {
        "name": st.just("image") | anything,
        "shape": st.just([1, 1, 28, 28]) | st.lists(st.integers(-1, 2**70), max_size=5) | anything,
        "datatype": st.just("FP32") | anything,
    },
    optional={"data": numbers, "parameters": anything},
)
requests: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"inputs": st.lists(inputs, min_size=1, max_size=2) | anything},
    optional={
        "id": anything,
        "parameters": anything | st.fixed_dictionaries({"binary_data_output": anything}),
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(OUTPUTS) | anything}), max_size=3)
        | anything,
    },
)


@settings(suppress_health_check=list(HealthCheck))
@given(requests | anything, st.none() | st.integers(0, 200))
def test_any_json_is_answered_or_refused(client, document, length):
    headers = {} if length is None else {LENGTH: str(length)}
    response = client.post(INFER, content=json.dumps(document), headers=headers)

    assert response.status_code == 200 or 400 <= response.status_code < 500
    if response.status_code != 200:
        refused(response, response.status_code)


@settings(suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=2000), st.none() | st.integers(0, 2000))
def test_any_bytes_are_refused(client, body, length):
    headers = {} if length is None else {LENGTH: str(length)}
    refused(client.post(INFER, content=body, headers=headers))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", path, 404) for path in ("/v2/", "/v2/nothing", "/v2/models", "/v2/models/tiny/infer/x")),
        *(("GET", "/v2/models/tiny/infer", 405), ("DELETE", "/v2", 405), ("POST", "/v2/health/live", 405)),
    ],
)
def test_unknown_routes_and_methods_are_errors_of_the_protocol(client, method, path, status):
    response = client.request(method, path)
    refused(response, status)
    assert ("allow" in response.headers) is (status == 405)


def test_what_is_refused_before_the_route_is_an_error_of_the_protocol(bundle, tmp_path):
    from pneumo.serving.access.api_keys import add_key

    add_key(tmp_path / "keys.yaml", "ward")
    app = create_app(bundle, LIMITS.model_copy(update={"auth": "on", "keys": tmp_path / "keys.yaml"}))
    with TestClient(app) as guarded:
        response = guarded.post(INFER, json={})
    assert "API key" in refused(response, 401)
    assert response.headers["www-authenticate"].startswith("Bearer")
    with TestClient(create_app(bundle, LIMITS)) as local:
        refused(local.post(INFER, json={}, headers={"Origin": "https://evil.example"}), 403)
        refused(local.get("/v2", headers={"Host": "evil.example"}), 421)


@pytest.mark.parametrize(
    "change",
    [{"x": 1}, {"model_name": "tiny"}, {"outputs": [{"name": "logits", "x": 1}]}, {"parameters": {"x": [1]}}],
)
def test_unknown_fields_are_refused(client, change):
    assert next(iter(change)) in refused(client.post(INFER, json=asked(images()) | change))
    assert "inputs.0.x" in refused(client.post(INFER, json=asked(images(), x=1)))


def test_parameters_of_other_servers_pass_unless_they_change_the_answer(client):
    request = asked(images(), parameters={"content_type": "np"}) | {"parameters": {"priority": 1, "timeout": 0.5}}
    assert client.post(INFER, json=request).status_code == 200
    for name in ("classification", "shared_memory_region"):
        outputs = [{"name": "logits", "parameters": {name: 2}}]
        assert name in refused(client.post(INFER, json=asked(images()) | {"outputs": outputs}))
    many = {f"p{number}": 1 for number in range(17)}
    assert "16 parameters" in refused(client.post(INFER, json=asked(images()) | {"parameters": many}))


def test_images_are_in_the_prediction_log_as_those_of_files_without_descriptors(bundle, started, pngs, tmp_path):
    from pneumo.serving.images.decode import prepare
    from pneumo.serving.predictions.store import LogStore
    from pneumo.serving.predictions.windows import Window, read_window

    url = f"sqlite:///{tmp_path / 'log.sqlite3'}"
    prepared = np.stack([prepare(data, bundle.info.preparation) for data in pngs[:3]])
    settings = LIMITS.model_copy(update={"log_url": url, "log_spool": tmp_path / "spool"})
    with started(create_app(bundle, settings)) as client:
        files = [("file", (f"{index}.png", data)) for index, data in enumerate(pngs[:3])]
        client.post("/v1/predict", files=files, headers={"X-Request-ID": "files"})
        client.post(INFER, json=asked(prepared), headers={"X-Request-ID": "tensors"})
    rows = read_window(LogStore(url), Window())
    of_files, of_tensors = rows[:3], rows[3:]
    assert len(of_tensors) == 3
    for file, tensor in zip(of_files, of_tensors, strict=True):
        for name in ("label", "certain", "in_distribution"):
            assert file[name] == tensor[name]
        for name in ("probability", "outlier_score"):
            assert file[name] == pytest.approx(tensor[name], abs=1e-6)
        np.testing.assert_allclose(
            np.frombuffer(file["embedding"], "<f4"), np.frombuffer(tensor["embedding"], "<f4"), atol=1e-4
        )
        assert (tensor["width"], tensor["mean"]) == (0, 0)
        assert file["width"] > 0


def test_the_steps_of_a_request_are_children_of_its_span(bundle, started, monkeypatch):
    import contextlib
    import contextvars

    request, steps = contextvars.ContextVar("request", default=None), []

    @contextlib.contextmanager
    def enter(scope):
        token = request.set(scope["path"])
        yield Span()
        request.reset(token)

    @contextlib.contextmanager
    def step(name, **attributes):
        steps.append((request.get(), name, attributes))
        yield Span()

    app = create_app(bundle, LIMITS)
    monkeypatch.setattr(app.state.service.tracer, "request", enter)
    monkeypatch.setattr(app.state.service.tracer, "span", step)
    with started(app) as client:
        body = binary(images(3))
        client.post(INFER, **body)
    assert steps == [(INFER, "decode", {"bytes": len(body["content"])}), (INFER, "inference", {"batch_size": 3})]


@pytest.mark.real
def test_real_files_get_the_answer_of_their_tensors(bundle, started, real_data):
    from pneumo.serving.images.decode import prepare

    with tarfile.open(real_data / "chest_xray_224_train.tar") as tar:
        members = [member for member in tar.getmembers() if member.isfile() and member.name.endswith(("jpeg", "png"))]
        files = [tar.extractfile(member).read() for member in members[:: max(1, len(members) // 32)]][:32]
    assert len(files) == 32
    prepared = np.stack([prepare(data, bundle.info.preparation) for data in files])
    with started(create_app(bundle, Settings(threads=1))) as client:
        for start in range(0, len(files), 8):
            chosen = files[start : start + 8]
            form = [("file", data) for data in chosen]
            said = client.post("/v1/predict", files=form).json()["predictions"]
            found = tensors(client.post(INFER, **binary(prepared[start : start + 8])).json())
            expected = [[each["probabilities"][name] for name in bundle.info.classes] for each in said]
            np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)
