"""The OpenAPI document says what the server does."""

import json
import re

import pytest
from fastapi.testclient import TestClient

from pneumo.serving.access.api_keys import add_key
from pneumo.serving.access.security import METRICS, OPEN, PROBES
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app

PROBLEM = {"$ref": "#/components/schemas/Problem"}
REQUESTS = (
    "JsonImages",
    "JsonImage",
    "InferenceRequest",
    "RequestInput",
    "RequestOutput",
    "FeedbackItems",
    "FeedbackItem",
)


@pytest.fixture(scope="module")
def document(bundle) -> dict:
    return create_app(bundle, Settings(threads=1)).openapi()


@pytest.fixture(scope="module")
def keyed(bundle, tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    add_key(path, "ward")
    return create_app(bundle, Settings(threads=1, auth="on", keys=path))


def operations(document: dict):
    return [(path, each) for path, methods in document["paths"].items() for each in methods.values()]


def test_there_is_one_problem_and_every_reference_leads_somewhere(document):
    text = json.dumps(document)
    assert text.count('"about:blank"') == 1
    for name in re.findall(r'"#/components/(\w+/\w+)"', text):
        kind, _, name = name.partition("/")
        assert name in document["components"][kind]
    for path, operation in operations(document):
        for status, answer in operation["responses"].items():
            problem = answer.get("content", {}).get("application/problem+json")
            assert problem in (None, {"schema": PROBLEM}), (path, status)


def test_every_status_that_can_come_is_declared(document):
    for path, operation in operations(document):
        expected = {"400", "408", "414", "431", "500", "503"}
        expected |= set() if path in PROBES else {"403", "421"}
        expected |= set() if path in OPEN else {"401", "429"}
        expected |= {"413", "415"} if "requestBody" in operation else set()
        assert expected <= operation["responses"].keys(), path
    assert document["paths"]["/readyz"]["get"]["responses"]["503"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Status"
    }


def test_security_stands_where_a_key_is_asked_for_and_nowhere_else(document, keyed):
    assert "security" not in json.dumps(document)
    guarded = keyed.openapi()
    assert guarded["components"]["securitySchemes"].keys() == {"Key", "KeyHeader"}
    client = TestClient(keyed, raise_server_exceptions=False, client=("203.0.113.7", 1))
    for path, methods in guarded["paths"].items():
        for method, operation in methods.items():
            answer = client.request(method, path.format(name="tiny", version="1"))
            assert (answer.status_code == 401) is ("security" in operation), path
            assert ({} in operation.get("security", [])) is (path == METRICS)


def test_requests_refuse_fields_that_the_document_does_not_name(document):
    schemas = document["components"]["schemas"]
    assert all(schemas[name]["additionalProperties"] is False for name in REQUESTS)
    form = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["additionalProperties"] is False


def test_bytes_are_binary(document):
    binary = {"schema": {"type": "string", "format": "binary"}}
    for path in ("/v1/predict", "/v1/explain"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        for media_type in ("image/*", "application/dicom", "application/zip", "application/octet-stream"):
            assert content[media_type] == binary
    infer = document["paths"]["/v2/models/{name}/infer"]["post"]
    assert infer["requestBody"]["content"]["application/octet-stream"] == binary
    assert infer["responses"]["200"]["content"]["application/octet-stream"] == binary
    assert document["paths"]["/v1/explain"]["post"]["responses"]["200"]["content"]["image/png"] == binary


def test_names_of_operations_are_short_and_unique(document):
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert {"predict", "explain", "infer", "readyz"} <= {*names}


def test_no_parameter_is_null(document):
    for path, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert "null" not in json.dumps(parameter["schema"]), path


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        ("QUJD", True),
        ("QUI=", True),
        ("data:image/png;base64,QQ==", True),
        ("", False),
        ("QUJ", False),
        ("Q\nUJD", False),
    ],
)
def test_the_pattern_of_base64_is_what_the_server_takes(document, bundle, started, data, fits):
    schema = document["components"]["schemas"]["JsonImage"]["properties"]["data"]
    assert (len(data) >= schema["minLength"] and re.fullmatch(schema["pattern"], data) is not None) is fits
    with started(create_app(bundle, Settings(threads=1))) as client:
        status = client.post("/v1/predict", json={"images": [{"data": data}]}).status_code
    assert (status == 415) is fits  # base64 of what is no image
