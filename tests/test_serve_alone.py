"""`pip install .[serve]` in a venv of its own gives a working service."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from pipeline.data.manifest import Dataset, Split

ROOT = Path(__file__).parent.parent

ABSENT = """
import importlib.util, sys
present = [name for name in ("torch", "ludwig", "ray", "pandas", "sklearn") if importlib.util.find_spec(name)]
sys.exit(f"installed although nothing asked for it: {present}" if present else 0)
"""


@pytest.mark.slow
def test_the_service_runs_where_only_its_extra_is_installed(exported: Path, dataset: Dataset, tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "pipeline", "serving", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, tracked.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"{source}[serve]"], check=True, timeout=600)
    subprocess.run([str(python), "-c", ABSENT], check=True, cwd=tmp_path)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(venv / "bin" / "pneumo"), "serve", "--model", str(exported), "--port", str(port)]
    server = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(300):
            assert server.poll() is None, server.stderr.read() if server.stderr else ""
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
                break
            except OSError:
                time.sleep(0.1)
        image = dataset.path(dataset.of(Split.TEST)[0]).read_bytes()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/predict", data=image, headers={"Content-Type": "image/png"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            (prediction,) = json.load(response)["predictions"]
    finally:
        server.terminate()
        server.communicate(timeout=20)

    assert prediction["label"] in ("NORMAL", "PNEUMONIA")
    assert server.returncode == 0
