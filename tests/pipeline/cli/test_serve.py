import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pneumo.pipeline.cli import app
from pneumo.pipeline.release.registry import promote
from pneumo.serving.contracts.errors import InputError
from tests.support.bundles import make_bundle
from tests.support.paths import ROOT

PNEUMO = [sys.executable, "-c", "from pneumo.pipeline.cli import main; main()"]


class Server:
    """A `pneumo serve` of its own process, on a free port."""

    def __init__(self, *options: str, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*PNEUMO, "serve", "--port", "0", *options],
            cwd=ROOT,
            env=os.environ | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        waiting: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(waiting,), daemon=True).start()
        while not (found := re.search(r"http://\S+:\d+", waiting.get(timeout=300))):
            pass
        self.address = found[0]

    def _read(self, waiting: "queue.Queue[str]") -> None:
        for line in self.process.stderr:
            self.lines.append(line)
            waiting.put(line)

    def stop(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.process.wait(300), self.process.stdout.read()


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    promote(make_bundle(folder / "bundle").folder, root=folder / "models")
    return folder / "models"


@contextlib.contextmanager
def running(models: Path) -> Iterator[Server]:
    server = Server("--models-dir", str(models), environment={"PNEUMO_MAX_BYTES": "2000000"})
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="module")
def server(models) -> Iterator[Server]:
    """A server that tests share; none of them ends it."""
    with running(models) as server:
        yield server


def request(address: str, *, body: bytes | None = None, media_type: str = "image/png") -> tuple[int, dict]:
    headers = {"Content-Type": media_type} if body is not None else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data=body, headers=headers), timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        document = json.load(error)
        return error.code, document | {"media type": error.headers["content-type"]}


def picture() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 60).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_real_server_predicts_over_http_and_ends_cleanly_on_a_signal(models, number):
    with running(models) as server:
        predict_and_end(server, number)


def predict_and_end(server: Server, number: int) -> None:
    assert request(f"{server.address}/readyz") == (200, {"status": "ready"})
    status, answer = request(f"{server.address}/v1/predict", body=picture())
    assert status == 200
    assert 0 <= answer["predictions"][0]["probability"] <= 1
    code, out = server.stop(number)
    assert code == 0, server.lines
    assert out == ""
    log = "".join(server.lines)
    assert "tiny:1 listens on http://127.0.0.1:" in log
    assert "not a medical device" in log
    assert "POST /v1/predict 200" in log
    assert "Traceback" not in log
    with pytest.raises(urllib.error.URLError):
        request(f"{server.address}/readyz")


def test_a_real_server_refuses_bad_uploads_and_goes_on(server):
    predict = f"{server.address}/v1/predict"
    status, problem = request(predict, body=b"text")
    assert (status, problem["media type"]) == (415, "application/problem+json")
    assert request(predict, body=b"x", media_type="text/plain")[0] == 415
    assert request(predict, body=picture()[:60])[0] == 400
    assert request(predict, body=picture())[0] == 200


def test_a_real_server_answers_413_before_a_large_body_is_sent(server):
    host, port = re.fullmatch(r"http://(.+):(\d+)", server.address).groups()
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            b"Content-Length: 90000000\r\n\r\n"
        )
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in answer.lower()
        while connection.recv(65536):  # until the server closes
            pass


def test_a_bundle_that_changed_is_refused_with_exit_2(tmp_path):
    folder = make_bundle(tmp_path / "bundle").folder
    (folder / "card.md").write_text("changed")
    done = subprocess.run(
        [*PNEUMO, "serve", "--port", "0", "--model", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith(f"pneumo: {folder / 'card.md'}: changed since the bundle was sealed")


def test_a_port_in_use_is_an_input_error(models):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = CliRunner().invoke(app, ["serve", "--models-dir", str(models), "--port", str(port)])
    assert isinstance(found.exception, InputError)
    assert f"--port {port}" in str(found.exception)


def test_an_unknown_model_is_an_input_error(models):
    found = CliRunner().invoke(app, ["serve", "--models-dir", str(models), "--model", "nothing"])
    assert isinstance(found.exception, InputError)


def test_the_help_names_the_defaults_that_settings_have():
    from pneumo.serving.contracts.settings import Settings

    shown = " ".join(CliRunner().invoke(app, ["serve", "--help"]).output.split())
    for name in ("model", "models_dir", "host", "port"):
        assert f"PNEUMO_{name.upper()} or {Settings.model_fields[name].default}" in shown
