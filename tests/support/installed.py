"""An installed service for tests: a copy of the sources, a server process, one request."""

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.waiting import until

ABSENT = """
import importlib.util, sys
present = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
sys.exit(f"installed although nothing asked for it: {present}" if present else 0)
"""


def copy_sources(names: Sequence[str], target: Path) -> None:
    """Copy files and folders of this repository as git would: nothing that it ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def check_absent(python: Path, *names: str) -> None:
    """Fail if a Python has packages that it must not have."""
    subprocess.run([str(python), "-c", ABSENT, *names], check=True, cwd="/")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def served(
    command: Sequence[str], port: int, *, cwd: Path, env: Mapping[str, str] | None = None, user: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a service until the block ends, and see that it ends in order; the block begins once it is ready."""
    rights: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    server = subprocess.Popen(
        list(command), cwd=cwd, env=None if env is None else dict(env), stderr=subprocess.PIPE, text=True, **rights
    )
    try:

        def ready() -> bool:
            assert server.poll() is None, server.stderr.read() if server.stderr else ""
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
            except OSError:
                return False
            return True

        until(ready)
        yield server
    finally:
        server.terminate()
        server.communicate(timeout=20)
    assert server.returncode == 0


def ask(port: int, image: bytes, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The prediction for one PNG."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/predict", data=image, headers={"Content-Type": "image/png", **(headers or {})}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        (prediction,) = json.load(response)["predictions"]
    found: dict[str, Any] = prediction
    return found


def megabytes(folder: Path) -> float:
    """Return the size of a folder's files on disk in megabytes (10^6 bytes); a hard link counts once."""
    seen: dict[tuple[int, int], int] = {}
    for name in folder.rglob("*"):
        stat = os.lstat(name)
        seen[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(seen.values()) / 1e6
