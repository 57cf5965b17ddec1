"""The uv that tests install other environments with."""

import shutil
import subprocess
import tempfile

from tests.support.paths import ROOT


def find_uv() -> str | None:
    """Return a uv that starts, of the path or of `make setup`: pyenv leaves a shim where another Python has one."""
    for found in filter(None, (shutil.which("uv"), shutil.which(ROOT / ".uv" / "bin" / "uv"))):
        if subprocess.run([found, "--version"], cwd=tempfile.gettempdir(), capture_output=True).returncode == 0:
            return found
    return None
