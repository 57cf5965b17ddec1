"""Finding a run or a cross-validation by one name."""

import json
from pathlib import Path

import pytest

from pneumo.pipeline.crossval.record import CrossvalFolder, open_predictions
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError


def make_folder(kind: type[Run] | type[CrossvalFolder], root: Path, name: str, status: str = "done") -> None:
    (root / name).mkdir(parents=True)
    (root / name / kind.RECORD).write_text(json.dumps({"status": status}))


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    runs, crossvals = tmp_path / "runs", tmp_path / "crossvals"
    make_folder(Run, runs, "20260101T000000Z-a-0000")
    make_folder(CrossvalFolder, crossvals, "20260102T000000Z-b-0000")
    return runs, crossvals


def find(name: str | Path, roots: tuple[Path, Path]) -> Run | CrossvalFolder:
    return open_predictions(str(name), runs=roots[0], crossvals=roots[1])


def test_latest_is_the_newer_of_runs_and_cross_validations_that_has_not_failed(roots: tuple[Path, Path]) -> None:
    assert find("latest", roots) == CrossvalFolder(roots[1] / "20260102T000000Z-b-0000")
    make_folder(Run, roots[0], "20260103T000000Z-c-0000")
    assert find("latest", roots) == Run(roots[0] / "20260103T000000Z-c-0000")
    make_folder(CrossvalFolder, roots[1], "20260104T000000Z-d-0000", "failed")
    assert find("latest", roots).name == "20260103T000000Z-c-0000"


def test_a_name_a_prefix_or_a_path_finds_either(roots: tuple[Path, Path]) -> None:
    for name in ("20260101T000000Z-a-0000", "20260101", roots[0] / "20260101T000000Z-a-0000"):
        assert isinstance(find(name, roots), Run)
    for name in ("20260102T000000Z-b-0000", "20260102", roots[1] / "20260102T000000Z-b-0000"):
        assert isinstance(find(name, roots), CrossvalFolder)
    with pytest.raises(InputError, match="2026: a run and a cross-validation start with this; give more letters"):
        find("2026", roots)
    with pytest.raises(
        InputError, match=r"x: no such run in .*; no such cross-validation in .*crossvals; the newest is"
    ):
        find("x", roots)
    with pytest.raises(InputError, match=r"there is none yet: `pneumo train CONFIG` makes one$"):
        find("latest", (Path("runs"), Path("crossvals")))
