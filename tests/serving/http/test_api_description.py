"""What the documentation shows is what works."""

import io
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from pneumo.serving.client import Client
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.api_description import EXAMPLES
from pneumo.serving.http.app import create_app
from tests.support.paths import ROOT
from tests.support.servers import served

SHELL, PYTHON = (re.findall(rf"```{language}\n(.*?)```", EXAMPLES, re.DOTALL)[0] for language in ("bash", "python"))
COMMANDS = [block.partition("\n")[::2] for block in SHELL.split("\n\n")[1:]]


@pytest.fixture(scope="module")
def environment(bundle):
    with served(create_app(bundle, Settings(threads=1))) as url:
        with Client(url) as client:
            client.wait_until_ready(30)
        yield os.environ | {"PNEUMO": url, "KEY": "pneumo_none", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def folder(pngs, tmp_path_factory) -> Path:
    """The files that the examples speak of."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "xray.png").write_bytes(pngs[0])
    Image.open(io.BytesIO(pngs[1])).save(folder / "xray.jpeg")
    (folder / "xrays").mkdir()
    with zipfile.ZipFile(folder / "xrays.zip", "w") as archive:
        for index, data in enumerate(pngs[:3]):
            archive.writestr(f"{index}.png", data)
            (folder / "xrays" / f"{index}.png").write_bytes(data)
    return folder


@pytest.mark.parametrize("command", [command for _, command in COMMANDS], ids=[name for name, _ in COMMANDS])
def test_every_command_is_answered(command, environment, folder):
    done = subprocess.run(
        ["bash", "-euc", command.replace("curl ", "curl -sS --fail-with-body ")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "/v1/explain" in command:
        assert (folder / "heat.png").read_bytes().startswith(b"\x89PNG")
    else:
        assert '"predictions":[{' in done.stdout


def test_the_shell_gets_its_address_from_the_first_line():
    words = shlex.split(SHELL.splitlines()[0], comments=True)
    assert words[0] == "export"
    assert {word.partition("=")[0] for word in words[1:]} == {"PNEUMO", "KEY"}


def test_the_python_lines_print_a_prediction_for_each_image(environment, folder):
    done = subprocess.run(
        [sys.executable, "-c", PYTHON], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [f"xrays/{index}.png" for index in range(3)]


def test_the_text_says_what_this_is_not():
    assert "not a medical device" in EXAMPLES
