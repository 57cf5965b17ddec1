"""The server of a case browser: for this machine alone, and a heat map for any image."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from pneumo.pipeline.cases.server import CaseServer
from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.images.preparation import encode_png
from pneumo.serving.model.predictor import Predictor
from tests.support.bundles import make_bundle


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CaseServer]:
    folder = tmp_path / "cases"
    for name in ("images", "heat", "sprites"):
        (folder / name).mkdir(parents=True)
    (folder / "index.html").write_text("the page")
    (folder / "cases.json").write_text("{}")
    (folder / "images" / "7.png").write_bytes(encode_png(np.arange(4096, dtype=np.uint8).reshape(64, 64)))
    predictor = Predictor(make_bundle(tmp_path / "bundle"), threads=1)
    with CaseServer(folder, {7: predictor}.__getitem__, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: CaseServer, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{server.server_port}{path}", headers=headers)


def test_a_heat_map_is_made_when_it_is_asked_for(server: CaseServer) -> None:
    answer = get(server, "/heat/7.png")
    assert answer.status_code == 200
    assert answer.content.startswith(b"\x89PNG")
    assert (server.folder / "heat" / "7.png").read_bytes() == answer.content
    assert get(server, "/heat/8.png").status_code == 404


def test_only_the_files_of_the_page_are_there_and_for_no_other_page(server: CaseServer) -> None:
    page = get(server, "/")
    assert page.text == "the page"
    assert page.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert page.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    for path in ("/cases.json", "/images/", "/images", "/../secret", "/images/../cases.json", "/images/%37.png", "//x"):
        assert get(server, path).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1"])
def test_a_name_that_was_pointed_at_this_machine_gets_nothing(server: CaseServer, host: str) -> None:
    assert get(server, "/images/7.png", Host=host.format(port=server.server_port)).status_code == 421
    assert get(server, "/images/7.png", Host=f"localhost:{server.server_port}").status_code == 200


def test_it_listens_on_this_machine_alone_and_says_if_the_port_is_taken(server: CaseServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(MachineError, match=rf"--port {server.server_port}: .*; choose another one, or 0"):
        CaseServer(server.folder, server.find_predictor, server.server_port)
