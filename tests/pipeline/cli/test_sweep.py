from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.sweep.record import SWEEPS, SweepFolder
from tests.conftest import Outcome
from tests.support.paths import CONFIGS

GOOD: dict[str, Any] = {
    "goal": "maximize",
    "metric": "roc_auc",
    "output_feature": "label",
    "parameters": {"trainer.batch_size": {"space": "choice", "categories": [16, 32]}},
}


def write(folder: Path, section: dict[str, Any] | None) -> Path:
    known = yaml.safe_load((CONFIGS / "smoke.yaml").read_text(encoding="utf-8"))
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(known | ({"hyperopt": section} if section else {})), encoding="utf-8")
    return path


def test_a_misspelt_parameter_is_refused_before_anything_starts(
    dataset: Dataset, tmp_path: Path, pneumo: Callable[..., Outcome]
) -> None:
    path = write(
        tmp_path, GOOD | {"parameters": {"trainer.learning_rte": {"space": "uniform", "lower": 0, "upper": 1}}}
    )
    outcome = pneumo("sweep", path, "--data", dataset.folder, "--sweeps-dir", tmp_path / "sweeps")
    assert outcome.code == 2
    assert "did you mean 'learning_rate'?" in outcome.err
    assert f"{path}:" in outcome.err
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give a CONFIG"),
        (("--resume", "latest", "--auto"), "--resume continues a sweep as it was; leave out --auto"),
        (("--resume", "latest"), "no such sweep"),
        (("--resume", "latest", "--seeds", "3"), "--resume continues a sweep as it was; leave out --seeds"),
        (("--auto", "--trials", "+3"), "give the sweep with --resume"),
        (("--auto", "--trials", "none"), "give a whole number above 0"),
        (("--auto", "-o", "trainer.epochs=1"), "sets a key of a CONFIG"),
        (("--auto", "--time-budget", "5 weeks"), "--time-budget"),
        (("--auto", "--time-budget", "1"), "time"),
    ],
)
def test_wrong_options_are_one_line(
    dataset: Dataset, tmp_path: Path, pneumo: Callable[..., Outcome], arguments: tuple[str, ...], said: str
) -> None:
    data = () if "--resume" in arguments else ("--data", dataset.folder)
    outcome = pneumo("sweep", *arguments, *data, "--sweeps-dir", tmp_path / "sweeps")
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


def test_a_config_without_a_space_says_how_to_write_one(
    dataset: Dataset, tmp_path: Path, pneumo: Callable[..., Outcome]
) -> None:
    outcome = pneumo("sweep", write(tmp_path, None), "--data", dataset.folder)
    assert outcome.code == 2
    assert "--auto" in outcome.err
    assert "loguniform" in outcome.err


def test_validate_looks_at_the_space_too(tmp_path: Path, pneumo: Callable[..., Outcome]) -> None:
    assert pneumo("config", "validate", write(tmp_path, GOOD)).code == 0
    outcome = pneumo("config", "validate", write(tmp_path, GOOD | {"goal": "minimize"}))
    assert outcome.code == 2
    assert "goal: maximize" in outcome.err


def test_the_best_of_all_runs_can_be_promoted(trained: object, tmp_path: Path, pneumo: Callable[..., Outcome]) -> None:
    outcome = pneumo("promote", "best", "--runs-dir", tmp_path, "--sweeps-dir", tmp_path)
    assert outcome.code == 2
    assert "no run is finished yet" in outcome.err
    outcome = pneumo("promote", "something", "--sweep", "latest")
    assert outcome.code == 2
    assert "goes with 'best'" in outcome.err


def test_a_sweep_is_found_by_the_start_of_its_name(tmp_path: Path) -> None:
    assert Path("sweeps") == SWEEPS
    folder = SweepFolder.create("my config!", root=tmp_path)
    assert folder.name.split("-", 1)[1].startswith("my-config-")
