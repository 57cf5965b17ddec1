"""`pip install .[serve]` in a venv of its own gives a working service."""

import subprocess
import sys
from pathlib import Path

import pytest

from pneumo.pipeline.data.manifest import Dataset, Split
from tests.support import installed


@pytest.mark.slow
def test_the_service_runs_where_only_its_extra_is_installed(exported: Path, dataset: Dataset, tmp_path: Path) -> None:
    source = tmp_path / "source"
    installed.copy_sources(
        ["pneumo", "pipeline", "serving", "ludwig_configs", "pyproject.toml", "setup.py", "README.md", "LICENSE"],
        source,
    )
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"{source}[serve]"], check=True, timeout=600)
    installed.check_absent(python, "torch", "ludwig", "ray", "pandas", "sklearn")

    port = installed.free_port()
    command = [str(venv / "bin" / "pneumo"), "serve", "--model", str(exported), "--port", str(port)]
    with installed.served(command, port, cwd=tmp_path):
        prediction = installed.ask(port, dataset.path(dataset.select(Split.TEST)[0]).read_bytes())

    assert prediction["label"] in ("NORMAL", "PNEUMONIA")
