from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pneumo.serving.model.bundle import Bundle
from tests.support.server_process import ServerProcess


@pytest.fixture
def serve(tmp_path: Path, bundle: Bundle) -> Iterator[Callable[..., ServerProcess]]:
    """`serve(workers=2)` starts a service in a process of its own."""
    started: list[ServerProcess] = []

    def start(model: Path = bundle.folder, **settings: Any) -> ServerProcess:
        started.append(ServerProcess(tmp_path / "server.py", model, **settings))
        return started[-1]

    yield start
    for server in started:
        if server.process.returncode is None:
            server.stop()
