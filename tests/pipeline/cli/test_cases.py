"""`pneumo cases`."""

import json
import shutil
from pathlib import Path

import pytest

from pneumo.pipeline.cases.server import CaseServer
from pneumo.pipeline.runs.run import Run
from tests.support.bundles import make_bundle
from tests.support.crossvals import build_crossval


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
    monkeypatch.setattr("pneumo.pipeline.cli.LONG", 0)  # seconds from which on a command tells its time
    monkeypatch.chdir(tmp_path)
    first = pneumo("cases", run_folder, "--compare", run_folder)
    assert first.code == 0
    assert f"note: {run_folder.name} is compared with itself: nothing differs" in first.err
    assert f"wrote cases/{run_folder.name}/index.html; the folder holds the images" in first.err
    assert "research software, not a medical device\ndone in " in first.err
    again = pneumo("cases", run_folder, "--compare", run_folder, "--serve", "--port", "0")
    assert again.code == 0
    assert "nothing has changed in cases/" in again.err
    assert "for this machine; Ctrl-C stops it\nstopped" in again.err
    assert "done in" not in again.err


@pytest.mark.usefixtures("no_pages")
def test_a_cross_validation_is_shown_with_the_bundles_of_its_folds(pneumo, tmp_path, monkeypatch):
    crossval = build_crossval(tmp_path, repeats=1)
    for run in crossval.list_runs().values():
        make_bundle(run.folder / "bundle", metrics=json.loads(run.metrics.read_bytes()))
    monkeypatch.chdir(tmp_path)
    shown = pneumo("cases", "latest", "--runs-dir", "base/runs")
    assert shown.code == 0, shown.err
    assert f"wrote cases/{crossval.name}/index.html" in shown.err
    assert (
        "each image is judged by the network of its fold"
        in (tmp_path / "cases" / crossval.name / "data.js").read_text()
    )


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
