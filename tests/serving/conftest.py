import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from pneumo.serving.model.bundle import Bundle
from tests.support.bundles import make_bundle
from tests.support.postgres import Postgres, run_postgres
from tests.support.waiting import until


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A sealed bundle that tests must not change."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def own_bundle(tmp_path: Path) -> Bundle:
    """A sealed bundle that a test may spoil."""
    return make_bundle(tmp_path / "own")


@pytest.fixture(scope="session")
def png() -> bytes:
    """A gray PNG of 40 x 50 pixels."""
    return _encode(0)


@pytest.fixture(scope="session")
def pngs() -> list[bytes]:
    """Twelve gray PNGs that differ."""
    return [_encode(seed) for seed in range(12)]


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of the test's own."""
    with run_postgres() as server:
        yield server


@contextlib.contextmanager
def _started(app: FastAPI, *, raises: bool = False) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=raises) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        yield client


@pytest.fixture(scope="session")
def started() -> Callable[..., contextlib.AbstractContextManager[TestClient]]:
    """`with started(app) as client:` a client of an application that is ready."""
    return _started


def _encode(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, int(rng.integers(60, 256)), (50, 40)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
