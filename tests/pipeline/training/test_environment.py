"""What a training has around it."""

import importlib
import importlib.util
import sys
import tempfile
from pathlib import Path

import pytest

from pneumo.pipeline.training.environment import use_scratch_folder


def test_temporary_files_lie_in_the_run_and_go_with_the_training(tmp_path: Path) -> None:
    before = tempfile.gettempdir()

    with use_scratch_folder(tmp_path):
        assert Path(tempfile.mkdtemp()).is_relative_to(tmp_path.resolve())

    assert tempfile.gettempdir() == before
    assert list(tmp_path.iterdir()) == []


def test_what_would_keep_a_temporary_folder_for_good_is_not_imported_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with use_scratch_folder(tmp_path):
        assert importlib.util.find_spec("wandb") is None
        with pytest.raises(ImportError):
            importlib.import_module("wandb")

    assert importlib.util.find_spec("wandb") is not None


def test_what_tracking_has_imported_stays(tmp_path: Path) -> None:
    wandb = importlib.import_module("wandb")

    with use_scratch_folder(tmp_path):
        assert importlib.import_module("wandb") is wandb
    assert sys.modules["wandb"] is wandb
