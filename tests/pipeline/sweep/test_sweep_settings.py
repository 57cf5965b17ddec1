import re

import pytest

from pneumo.pipeline.config.document import parse_document
from pneumo.pipeline.sweep import space, sweep_settings
from pneumo.pipeline.sweep.sweep_settings import SweepLimits, SweepSettings
from pneumo.serving.contracts.errors import InputError
from tests.support.paths import CONFIGS

BASE = (CONFIGS / "smoke.yaml").read_text(encoding="utf-8")
SPACE = "parameters: {trainer.batch_size: {space: choice, categories: [16, 32]}}"
GOAL = "goal: maximize, metric: roc_auc, output_feature: label"


def read(section: str, limits: SweepLimits | None = None, base: str = BASE) -> SweepSettings:
    document = parse_document(f"{base}hyperopt: {{{section}}}\n", "f.yaml")
    return sweep_settings.read_settings(space.read_space(document, "f"), limits)


def test_what_the_config_says_is_what_is_done() -> None:
    executor = (
        "executor: {num_samples: 7, time_budget_s: 60, max_concurrent_trials: 3, cpu_resources_per_trial: 2, "
        "gpu_resources_per_trial: 1, scheduler: {type: async_hyperband, grace_period: 2}}"
    )
    found = read(f"{SPACE}, {GOAL}, search_alg: {{type: optuna, seed: 5}}, {executor}")
    assert (found.metric, found.goal, found.search, found.search_options) == (
        "roc_auc",
        "maximize",
        "optuna",
        {"seed": 5},
    )
    assert found.scheduler == "async_hyperband"
    assert found.scheduler_options == {"grace_period": 2, "max_t": 25}
    assert found.trials == 7
    assert found.limits == SweepLimits(7, 60, 3, 2, 1)


def test_the_command_line_goes_before_the_config() -> None:
    found = read(f"{SPACE}, {GOAL}, executor: {{num_samples: 7, time_budget_s: 60}}", SweepLimits(trials=2, cpus=4))
    assert (found.trials, found.samples, found.limits) == (2, 2, SweepLimits(2, 60, None, 4, None))


def test_without_a_word_the_loss_is_minimised_as_in_ludwig() -> None:
    found = read(SPACE)
    assert (found.metric, found.goal, found.search, found.scheduler) == (
        "loss",
        "minimize",
        "variant_generator",
        "fifo",
    )


def test_a_pure_grid_is_gone_through_once() -> None:
    grid = "parameters: {trainer.batch_size: {space: grid_search, values: [16, 32, 64]}}"
    assert read(grid).trials == 3
    assert read(grid, SweepLimits(trials=6)).samples == 2
    with pytest.raises(InputError, match="multiple"):
        read(grid, SweepLimits(trials=4))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (f"{SPACE}, metric: roc_auc, output_feature: label", "goal: maximize"),
        (f"{SPACE}, metric: roc_auc, goal: maximize", "output_feature: label"),
        (f"{SPACE}, metric: hits_at_k", "choose from"),
        (f"{SPACE}, {GOAL}, eval_split: test", "so that test images stay unseen"),
        (f"{SPACE}, {GOAL}, search_alg: {{type: bayesopt}}", "choose from variant_generator"),
        (f"{SPACE}, {GOAL}, executor: {{scheduler: {{type: asha}}}}", "write async_hyperband"),
        (f"{SPACE}, {GOAL}, executor: {{scheduler: {{type: hb_bohb}}}}", "choose from fifo"),
        (f"{SPACE}, {GOAL}, executor: {{scheduler: {{type: pbt}}}}", "changes parameters in mid-trial"),
        (
            f"parameters: {{trainer.batch_size: {{space: grid_search, values: [16, 32]}}}}, {GOAL}, "
            "search_alg: {type: random, points_to_evaluate: [{trainer.batch_size: 16}]}",
            "tries every value anyway",
        ),
        (
            f"{SPACE}, {GOAL}, search_alg: {{type: optuna, points_to_evaluate: [{{trainer.batch_size: 16}}, "
            "{trainer.batch_size: 32}]}, executor: {num_samples: 1}",
            "2 points, more than 1 trials",
        ),
        (f"{SPACE}, {GOAL}, executor: {{scheduler: {{type: async_hyperband, max_t: 9}}}}", "max_t: 25"),
        (f"{SPACE}, {GOAL}, executor: {{scheduler: {{type: fifo, metric: loss}}}}", "leave it out"),
        (
            f"parameters: {{trainer.batch_size: {{space: grid_search, values: [16]}}}}, {GOAL}, "
            "search_alg: {type: optuna}",
            "use {space: choice",
        ),
        (
            f"{SPACE}, {GOAL}, search_alg: {{type: optuna, points_to_evaluate: [{{trainer.epochs: 1}}]}}",
            "give every parameter",
        ),
        (
            f"{SPACE}, {GOAL}, search_alg: {{type: optuna, points_to_evaluate: [{{trainer.batch_size: 17}}]}}",
            "none of its values",
        ),
    ],
)
def test_what_contradicts_itself_or_does_not_work_is_refused(section: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(section)
    assert said in str(caught.value)


def test_the_best_epoch_and_the_best_trial_are_told_by_one_metric() -> None:
    with pytest.raises(InputError, match="use one metric"):
        read(f"{SPACE}, {GOAL}", base=BASE + "  validation_metric: loss\n")


def test_epochs_that_are_varied_count_at_their_most() -> None:
    found = read(
        f"parameters: {{trainer.epochs: {{space: randint, lower: 2, upper: 9}}}}, {GOAL}, "
        "executor: {scheduler: {type: async_hyperband}}"
    )
    assert (found.epochs, found.scheduler_options["max_t"]) == (8, 8)


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("30m", 1800), ("1.5h", 5400), ("1h30m", 5400), ("1h 30m", 5400), ("2D", 172800)]
)
def test_spans_of_time_are_read_as_people_write_them(text: str, value: float) -> None:
    assert sweep_settings.parse_seconds(text) == value


@pytest.mark.parametrize("text", ["", "soon", "-5", "0", "5 weeks", "1:30"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--time-budget"):
        sweep_settings.parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "before", "total"), [("20", None, 20), ("40", 20, 40), ("+20", 20, 40), ("+1", 20, 21)]
)
def test_trials_are_counted_in_all_or_added(text: str, before: int | None, total: int) -> None:
    assert sweep_settings.parse_trials(text, before) == total


@pytest.mark.parametrize(
    ("text", "before", "said"),
    [
        ("0", None, "above 0"),
        ("-3", 20, "above 0"),
        ("many", None, "above 0"),
        ("+", 20, "above 0"),
        ("++2", 20, "above 0"),
        ("2.5", None, "above 0"),
        ("+20", None, "give the sweep with --resume"),
        ("20", 20, "the sweep has 20 already"),
        ("7", 20, "give more, or +7"),
    ],
)
def test_a_wrong_number_of_trials_is_one_line(text: str, before: int | None, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        sweep_settings.parse_trials(text, before)
    assert "\n" not in str(caught.value)
