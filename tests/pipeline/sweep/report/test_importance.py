import subprocess
import sys

import pytest

from pneumo.pipeline.sweep.record import Round, TrialStatus
from pneumo.pipeline.sweep.report.importance import FEWEST, measure_importance


@pytest.fixture
def _few_resamples(monkeypatch) -> None:
    monkeypatch.setattr("pneumo.pipeline.sweep.report.importance._RESAMPLES", 3)


few_resamples = pytest.mark.usefixtures("_few_resamples")
"""For tests that do not look at spreads, which take most of the time."""


def test_the_parameter_that_matters_comes_first(synthesise_sweep) -> None:
    found = measure_importance(synthesise_sweep(24))
    assert found.shares[0].parameter == "trainer.learning_rate"
    assert found.shares[0].share > 0.5
    assert sum(each.share for each in found.shares) == pytest.approx(1)
    assert len(found.shares) == 6
    assert found.explained is not None
    assert found.explained > 0.3


@few_resamples
def test_it_is_the_same_with_a_goal_to_minimise(synthesise_sweep) -> None:
    assert measure_importance(synthesise_sweep(24, goal="minimize")).shares[0].parameter == "trainer.learning_rate"


def test_the_same_sweep_gives_the_same_shares_each_within_its_spread_which_is_not_nothing(synthesise_sweep) -> None:
    found = measure_importance(synthesise_sweep(12))
    assert measure_importance(synthesise_sweep(12)) == found
    assert all(0 <= each.low <= each.share <= each.high <= 1 for each in found.shares)
    assert found.shares[0].high - found.shares[0].low > 0.02


@pytest.mark.parametrize("trials", [0, 1, FEWEST - 1])
def test_too_few_trials_tell_nothing(synthesise_sweep, trials: int) -> None:
    found = measure_importance(synthesise_sweep(trials, failed=10, waiting=5))
    assert not found.shares
    assert found.reason is not None
    assert f"{trials} trial" in found.reason


@few_resamples
def test_stopped_trials_count_and_failed_ones_do_not(synthesise_sweep) -> None:
    sweep = synthesise_sweep(8, stopped=4, failed=3)
    sweep.trials[-1].rounds = [Round(epoch=1, step=1, value=0.1, seconds=1, at=1)]
    assert measure_importance(sweep).trials == 12


@few_resamples
def test_repetitions_do_not_count_twice(synthesise_sweep) -> None:
    assert measure_importance(synthesise_sweep(8, top=2, seeds=3)).trials == 8


def test_values_that_do_not_vary_tell_nothing(synthesise_sweep) -> None:
    sweep = synthesise_sweep(10)
    for trial in sweep.trials:
        trial.rounds = [each.model_copy(update={"value": 1.0}) for each in trial.rounds]
    assert measure_importance(sweep).reason == "all trials reached the same value"


def test_one_parameter_has_nothing_to_share_with(synthesise_sweep) -> None:
    sweep = synthesise_sweep(10)
    for trial in sweep.trials:
        trial.parameters = {"trainer.learning_rate": trial.parameters["trainer.learning_rate"]}
    sweep.space = {"trainer.learning_rate": sweep.space["trainer.learning_rate"]}
    assert "only trainer.learning_rate" in (measure_importance(sweep).reason or "")


def test_parameters_that_never_varied_tell_nothing(synthesise_sweep) -> None:
    sweep = synthesise_sweep(10)
    for trial in sweep.trials:
        trial.parameters = dict(sweep.trials[0].parameters)
    assert measure_importance(sweep).reason == "no parameter took more than one value"


def test_noise_is_called_noise(synthesise_sweep) -> None:
    sweep = synthesise_sweep(16)
    values = [trial.rounds for trial in sweep.trials]
    for trial, rounds in zip(sweep.trials, [*values[7:], *values[:7]], strict=True):
        trial.rounds = rounds
    found = measure_importance(sweep)
    assert found.remark is not None
    assert "noise" in found.remark


@few_resamples
def test_start_points_outside_of_the_range_count(synthesise_sweep) -> None:
    sweep = synthesise_sweep(12)
    sweep.trials[0].parameters |= {"trainer.learning_rate": 0.5, "image.encoder.norm": "layer"}
    assert measure_importance(sweep).shares


@few_resamples
def test_a_diverged_trial_does_not_hide_what_matters(synthesise_sweep) -> None:
    sweep = synthesise_sweep(24, goal="minimize")
    trial = next(trial for trial in sweep.trials if trial.parameters["image.encoder.norm"] == "batch")
    trial.rounds = [each.model_copy(update={"value": 1e9}) for each in trial.rounds]
    assert measure_importance(sweep).shares[0].parameter == "trainer.learning_rate"


SPACES = [
    {"space": "quniform", "lower": 0, "upper": 1, "q": 0.1},
    {"space": "randn", "mean": 0.5, "sd": 0.2},
    {"space": "qlograndint", "lower": 2, "upper": 24, "q": 2},
    {"space": "grid_search", "values": list(range(12))},
]
OTHERS = [
    {"space": "qloguniform", "lower": 0.01, "upper": 1, "q": 0.01},
    {"space": "qrandn", "mean": 0.5, "sd": 0.2, "q": 0.1},
    {"space": "randint", "lower": 0, "upper": 12},
    {"space": "qrandint", "lower": 0, "upper": 12, "q": 2},
    {"space": "lograndint", "lower": 1, "upper": 13},
]


@few_resamples
@pytest.mark.parametrize("space", [*SPACES, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)])
def test_every_space_of_ludwig_can_be_told_from_one_that_does_nothing(synthesise_sweep, space) -> None:
    sweep = synthesise_sweep(24)
    sweep.space = {"a": space, "b": {"space": "uniform", "lower": 0, "upper": 1}}
    low, step = (0.05, 0.05) if space["space"] in ("quniform", "qloguniform", "randn", "qrandn") else (1, 1)
    for index, trial in enumerate(sweep.trials):
        level = index % 12
        value = low + step * level if space["space"] != "grid_search" else level
        trial.parameters = {"a": value, "b": (index * 7 % 24) / 24}
        trial.rounds = [Round(epoch=1, step=1, value=level / 12, seconds=1, at=index)]
    found = measure_importance(sweep)
    assert found.shares[0].parameter == "a"
    assert found.shares[0].share > 0.8


@few_resamples
def test_a_trial_still_running_does_not_count(synthesise_sweep) -> None:
    sweep = synthesise_sweep(9)
    sweep.trials[0].status = TrialStatus.RUNNING
    assert measure_importance(sweep).trials == 8


def test_neither_ray_nor_ludwig_nor_torch_is_loaded() -> None:
    names = (
        "report.importance",
        "report.table",
        "report.sweep_report",
        "seed_repeats",
        "live_display",
        "parameter_format",
    )
    program = "import sys; " + "; ".join(f"import pneumo.pipeline.sweep.{name}" for name in names)
    program += "; print(*({'ray', 'ludwig', 'torch', 'optuna', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert not done.stdout.split()
