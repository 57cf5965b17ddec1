"""`pip install .[serve]` in a venv of its own gives a working service."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.data.manifest import Dataset, Split

installed = runpy.run_path(str(Path(__file__).parent / "installed.py"))


@pytest.mark.slow
def test_the_service_runs_where_only_its_extra_is_installed(exported: Path, dataset: Dataset, tmp_path: Path) -> None:
    source = tmp_path / "source"
    installed["copy_sources"](["pipeline", "serving", "pyproject.toml", "README.md", "LICENSE"], source)
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"{source}[serve]"], check=True, timeout=600)
    installed["check_absent"](python, "torch", "ludwig", "ray", "pandas", "sklearn")

    port = installed["free_port"]()
    command = [str(venv / "bin" / "pneumo"), "serve", "--model", str(exported), "--port", str(port)]
    with installed["served"](command, port, cwd=tmp_path):
        prediction = installed["ask"](port, dataset.path(dataset.of(Split.TEST)[0]).read_bytes())

    assert prediction["label"] in ("NORMAL", "PNEUMONIA")
