"""The notebook of `examples/` runs from its first cell to its last, and is kept without outputs."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.paths import ROOT

NOTEBOOK = ROOT / "examples" / "from_images_to_service.ipynb"


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]

    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert "not a medical device" in notebook.cells[0].source


@pytest.mark.slow
@pytest.mark.lengthy
def test_the_notebook_goes_from_images_to_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "ludwig_configs", tmp_path / "ludwig_configs")
    (tmp_path / "examples").mkdir()
    (tmp_path / "made").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "made"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path / "examples")}}

    NotebookClient(notebook, timeout=1500, kernel_name="python3", resources=resources).execute()

    printed = "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    )
    assert "415 urn:pneumo:problem:not-an-image" in printed
    assert "same: ok: " in printed
    assert "other: drift: " in printed
    assert list(tmp_path.glob("made/pneumo-*/models/registry.yaml"))
