"""`pneumo cases`."""

import shutil
from pathlib import Path

import pytest

from pneumo.pipeline.cases.server import CaseServer
from pneumo.pipeline.runs.run import Run


@pytest.fixture(scope="module")
def run_folder(trained: Run, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with its bundle."""
    folder = tmp_path_factory.mktemp("runs") / trained.name
    shutil.copytree(trained.folder, folder)
    shutil.copytree(exported, folder / "bundle")
    return folder


def test_the_page_is_written_once_and_served_until_ctrl_c(pneumo, run_folder, tmp_path, monkeypatch):
    def interrupt(server: CaseServer) -> None:
        assert server.server_address == ("127.0.0.1", server.server_port)
        assert (server.folder / "index.html").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(CaseServer, "serve_forever", interrupt)
    monkeypatch.chdir(tmp_path)
    first = pneumo("cases", run_folder, "--compare", run_folder)
    assert first.code == 0
    assert f"note: {run_folder.name} is compared with itself: nothing differs" in first.err
    assert f"wrote cases/{run_folder.name}/index.html; the folder holds the images" in first.err
    assert "research software, not a medical device" in first.err
    again = pneumo("cases", run_folder, "--compare", run_folder, "--serve", "--port", "0")
    assert again.code == 0
    assert "nothing has changed in cases/" in again.err
    assert "for this machine; Ctrl-C stops it\nstopped" in again.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "8020"], "a port needs --serve; leave out --port"),
        (["--compare", "other"], "other: no such run in runs"),
        (["--out", "mine"], "mine: holds something that is not a case browser; choose another --out"),
    ],
)
def test_wrong_options_are_refused_before_any_work(pneumo, run_folder, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    refused = pneumo("cases", run_folder, *arguments)
    assert refused.code == 2
    assert words in refused.err
    assert not (tmp_path / "cases").exists()
