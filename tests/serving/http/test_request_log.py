"""Log lines of requests: few for a page, and the route of those that are refused before routing."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pneumo.serving.access.api_keys import add_key
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.model.bundle import Bundle


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Log lines so far, without id and time, and without those of `/readyz`; the list is emptied."""
    caplog.set_level(logging.INFO, "pneumo.request")

    def take() -> list[str]:
        found = [re.sub(r"^\S+ | [\d.]+ ms$", "", record.getMessage()) for record in caplog.records]
        caplog.clear()
        return [line for line in found if "/readyz" not in line]

    return take


def test_a_page_load_writes_one_line(bundle: Bundle, started: Callable, lines: Callable[[], list[str]]) -> None:
    with started(create_app(bundle, Settings(threads=1))) as client:
        for page in ("/", "/docs"):
            lines()
            text = client.get(page).text
            files = re.findall(r'(?:src|href|import)[=(]?\s*"(/?static[^"]+)"', text)
            assert len(files) >= 2
            for name in (*files, "/favicon.ico"):
                assert client.get(name).status_code == 200, name
            assert lines() == [f"GET {page} 200"]
        client.get("/static/none.js")
        assert lines() == ["GET /static/{name} 404"]


def test_a_request_without_a_key_is_logged_with_its_route(
    bundle: Bundle, started: Callable, lines: Callable[[], list[str]], tmp_path: Path
) -> None:
    add_key(tmp_path / "keys.yaml", "ward-3")
    settings = Settings(threads=1, auth="on", keys=tmp_path / "keys.yaml", metrics_public=False)
    with started(create_app(bundle, settings)) as client:
        lines()
        for method, path in (
            ("POST", "/v1/predict"),
            ("GET", "/v1/predict"),
            ("GET", "/v1/model"),
            ("POST", "/v2/models/Erika%20Mustermann/infer"),
            ("GET", "/v2/models/a/versions/1"),
            ("GET", "/nowhere/Mustermann"),
        ):
            assert client.request(method, path).status_code == 401
    assert lines() == [
        "POST /v1/predict 401",
        "GET /v1/predict 401",
        "GET /v1/model 401",
        "POST /v2/models/{name}/infer 401",
        "GET /v2/models/{name}/versions/{version} 401",
        "GET - 401",
    ]
