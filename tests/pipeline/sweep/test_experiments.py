from pathlib import Path

import pytest
import yaml

from pneumo.pipeline.config.document import parse_document
from pneumo.pipeline.sweep import experiments, space, sweep_settings
from pneumo.pipeline.sweep.experiments import Stage
from pneumo.pipeline.sweep.record import Sweep, SweepFolder, TrialStatus
from pneumo.pipeline.sweep.sweep_settings import SweepLimits
from pneumo.pipeline.sweep.trial import POINT
from tests.pipeline.sweep.conftest import SynthesiseSweep
from tests.support.paths import CONFIGS

RATE = "trainer.learning_rate_scheduler.max_lr"
SPACE = {RATE: {"space": "loguniform", "lower": 1e-4, "upper": 1e-1}}
GOAL = {"goal": "maximize", "metric": "roc_auc", "output_feature": "label"}


def list_stages(folder: SweepFolder, sweep: Sweep, search: str) -> list[Stage]:
    config = yaml.safe_load((CONFIGS / "smoke.yaml").read_text(encoding="utf-8"))
    section = {**GOAL, "parameters": SPACE, "search_alg": {"type": search}}
    document = parse_document(yaml.safe_dump({**config, "hyperopt": section}), "f.yaml")
    searched = space.read_space(document, "f")
    settings = sweep_settings.read_settings(searched, SweepLimits(trials=sweep.wanted))
    return list(experiments.plan_stages(folder, sweep, searched, settings))


@pytest.fixture
def finished(synthesise_sweep: SynthesiseSweep, tmp_path: Path) -> Sweep:
    """A sweep of three trials, the best repeated with another seed; each has a run folder."""
    sweep = synthesise_sweep(3, space=SPACE, top=1, seeds=2)
    for trial in sweep.trials:
        trial.stage = "seeds" if trial.repeats else "trials"
        (tmp_path / f"runs/{trial.name}").mkdir(parents=True)
        (tmp_path / f"runs/{trial.name}/run.json").touch()
    return sweep


@pytest.mark.parametrize("search", ["variant_generator", "optuna"])
def test_an_extension_is_a_stage_of_its_own_after_a_finished_search(
    finished: Sweep, tmp_path: Path, search: str
) -> None:
    finished.wanted, finished.added = 5, [2]
    extension, *others = list_stages(SweepFolder(tmp_path), finished, search)
    assert (extension.name, extension.wanted, extension.repeats) == ("trials-2", 2, False)
    assert others == []  # the best trial is repeated already
    if search == "variant_generator":
        points = extension.space[POINT]["grid_search"]
        tried = [trial.parameters for trial in finished.trials]
        assert len(points) == 2
        assert not [point for point in points if point["parameters"] in tried]
    else:
        assert extension.space == {}  # the search has the space, and knows the trials


def test_a_search_without_its_run_folders_is_restored_before_its_extension(finished: Sweep, tmp_path: Path) -> None:
    finished.wanted, finished.added = 5, [2]
    (tmp_path / "runs/t02/run.json").unlink()
    assert [stage.name for stage in list_stages(SweepFolder(tmp_path), finished, "optuna")] == ["trials", "trials-2"]


def test_a_new_best_trial_of_an_extension_is_repeated_with_other_seeds(finished: Sweep, tmp_path: Path) -> None:
    best = finished.ranked()[0]
    new = best.model_copy(update={"name": "t05", "stage": "trials-2", "parameters": {RATE: 0.001}}, deep=True)
    new.rounds = [each.model_copy(update={"value": each.value + 0.01}) for each in new.rounds]
    new.status = TrialStatus.DONE
    finished.trials.append(new)
    finished.wanted, finished.added = 4, [1]
    (tmp_path / "runs/t05").mkdir()
    (tmp_path / "runs/t05/run.json").touch()
    new.run = "runs/t05"
    (stage,) = list_stages(SweepFolder(tmp_path), finished, "variant_generator")
    assert (stage.name, stage.wanted, stage.repeats) == ("seeds-2", 1, True)
    assert stage.space[POINT]["grid_search"][0]["repeats"] == "t05"
