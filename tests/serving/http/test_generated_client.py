"""A client that openapi-python-client generates from the OpenAPI document, installed in an environment of its own."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from pneumo.serving.access.api_keys import add_key
from pneumo.serving.client import Client
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from tests.support.servers import served
from tests.support.uv import find_uv

pytestmark = pytest.mark.slow

GENERATOR = "openapi-python-client==0.29.1"

PROGRAM = """
import sys
from io import BytesIO
from pathlib import Path
from pneumo_client import AuthenticatedClient, Client
from pneumo_client.api.drift import feedback
from pneumo_client.api.health import readyz
from pneumo_client.api.open_inference_protocol import infer, model
from pneumo_client.api.prediction import explain, predict, served_model
from pneumo_client.models import (
    ExplainFormat, FeedbackItem, InferenceError, InferenceRequest, JsonImage, JsonImages, PredictFilesBody,
    PredictResponse, Problem, RequestInput,
)
from pneumo_client.types import File

address, key, png = sys.argv[1], sys.argv[2], Path(sys.argv[3])
client = AuthenticatedClient(base_url=address, token=key)
file = lambda data=png.read_bytes(): File(payload=BytesIO(data), file_name="a.png")

answer = predict.sync(client=client, body=file())
assert isinstance(answer, PredictResponse), answer
assert answer.predictions[0].label in ("NORMAL", "PNEUMONIA")
form = predict.sync(client=client, body=PredictFilesBody(file=[file(), file()]))
assert [each.probability for each in form.predictions] == [answer.predictions[0].probability] * 2
import base64
body = JsonImages(images=[JsonImage(data=base64.b64encode(png.read_bytes()).decode())])
assert predict.sync(client=client, body=body).predictions[0].probability == answer.predictions[0].probability

map = explain.sync(client=client, body=file(), format_=ExplainFormat.JSON)
assert base64.b64decode(map.film).startswith(b"\\x89PNG"), map
assert served_model.sync(client=client).classes == ["NORMAL", "PNEUMONIA"]
assert readyz.sync(client=client).status.value == "ready"

problem = predict.sync_detailed(client=client, body=file(b"no image"))
assert (problem.status_code, problem.parsed.type_) == (415, "urn:pneumo:problem:not-an-image"), problem
assert isinstance(problem.parsed, Problem)
refused = predict.sync_detailed(client=Client(base_url=address), body=file())
assert (refused.status_code, refused.parsed.status) == (401, 401)
unknown = feedback.sync(client=client, body=FeedbackItem(request_id=answer.request_id, label="NORMAL"))
assert unknown.status == 409, unknown

tensor = RequestInput(name="image", datatype="FP32", shape=[1, 1, 28, 28], data=[0.5] * 784)
outputs = infer.sync("tiny", client=client, body=InferenceRequest(inputs=[tensor])).outputs
assert [each.name for each in outputs] == ["logits", "embedding", "probabilities"]
error = infer.sync("other", client=client, body=InferenceRequest(inputs=[tensor]))
assert isinstance(error, InferenceError) and "tiny:1" in error.error
assert model.sync("tiny", client=client).versions == ["1"]
print("all of it")
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def generator() -> Path:
    """The environment of the generator; it is kept for the next run."""
    if (uv := find_uv()) is None:
        pytest.skip("uv is not installed (`make .uv/bin/uv`)")
    folder = Path(tempfile.gettempdir()) / f"{GENERATOR}-{os.getuid()}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        for command in (["venv", folder], ["pip", "install", "--python", folder / "bin/python", GENERATOR, "httpx"]):
            made = subprocess.run([uv, "--quiet", *map(str, command)], capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"{GENERATOR} cannot be installed: {made.stderr.strip()[-200:]}")
        (folder / "done").touch()
    return folder


@pytest.fixture(scope="module")
def service(bundle, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys.yaml"
    _, key = add_key(keys, "client")
    app = create_app(bundle, Settings(threads=1, auth="on", keys=keys))
    with served(app) as address:
        with Client(address) as client:
            client.wait_until_ready(60)
        yield app, address, key


def test_a_generated_client_installs_predicts_explains_and_reads_a_problem(generator, service, png, tmp_path):
    app, address, key = service
    (tmp_path / "openapi.json").write_text(json.dumps(app.openapi()))
    told = run(
        generator / "bin/openapi-python-client", "generate", "--path", "openapi.json", "--meta", "uv", cwd=tmp_path
    )
    complaints = {line for line in told.splitlines() if line.startswith(("Cannot", "Could not", "ERROR"))}
    assert not complaints, told
    uv = find_uv()
    assert uv is not None
    site = tmp_path / "site"
    run(
        uv,
        "pip",
        "install",
        "--python",
        generator / "bin/python",
        "--target",
        site,
        tmp_path / "pneumo-client",
        cwd=tmp_path,
    )
    (tmp_path / "a.png").write_bytes(png)
    environment = {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [generator / "bin/python", "-c", PROGRAM, address, key, tmp_path / "a.png"],
        env=os.environ | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "all of it\n"


def test_the_version_is_the_interfaces_and_no_models(bundle, own_bundle, service):
    app, _, _ = service
    version = app.openapi()["info"]["version"]
    assert version == create_app(own_bundle, Settings(threads=1)).openapi()["info"]["version"]
    assert all(part.isdecimal() for part in version.split("."))
