import pytest

from pneumo.pipeline.sweep.record import Sweep
from pneumo.pipeline.sweep.report.advice import list_advice
from pneumo.pipeline.sweep.report.importance import Importance, Share
from pneumo.pipeline.sweep.seed_repeats import choose_winner

NOTHING_KNOWN = Importance((), 0, reason="not asked")


def told(sweep: Sweep, importance: Importance = NOTHING_KNOWN) -> str:
    return "\n".join(list_advice(sweep, choose_winner(sweep), importance))


def put_winner_at(sweep: Sweep, name: str, value: object) -> Sweep:
    sweep.ranked()[0].parameters[name] = value
    return sweep


def test_a_sweep_whose_trials_all_failed_alike_says_so_once(synthesise_sweep) -> None:
    assert told(synthesise_sweep(0, failed=3)) == (
        "all 3 trials failed for the same reason: out of memory: 3.2 GiB asked for"
    )


def test_a_sweep_whose_trials_failed_differently_names_the_most_frequent_reason(synthesise_sweep) -> None:
    sweep = synthesise_sweep(0, failed=3)
    sweep.trials[0].error = "another"
    assert told(sweep).startswith("all 3 trials failed, 2 of them for this reason: out of memory")


def test_some_failures_are_counted(synthesise_sweep) -> None:
    assert "2 of 14 trials failed, for the same reason: out of memory" in told(synthesise_sweep(12, failed=2))
    assert "t13 failed: out of memory" in told(synthesise_sweep(12, failed=1))
    assert "failed" not in told(synthesise_sweep(12))


@pytest.mark.parametrize("status", ["interrupted", "running", "failed"])
def test_a_sweep_that_did_not_end_says_so(synthesise_sweep, status: str) -> None:
    assert status in told(synthesise_sweep(12, waiting=2, status=status)).replace("still running", "running")


def test_a_spent_time_budget_is_told(synthesise_sweep) -> None:
    assert "12 of 14 trials were tried: its time budget" in told(synthesise_sweep(12, waiting=2, time_budget=60.0))


def test_few_trials_are_too_few_unless_they_are_all_there_are(synthesise_sweep) -> None:
    assert "too few" in told(synthesise_sweep(4))
    assert "too few" not in told(synthesise_sweep(12))
    grid = synthesise_sweep(2)
    grid.space = {"a": {"space": "grid_search", "values": [1, 2]}}
    for trial, value in zip(grid.trials, (1, 2), strict=True):
        trial.parameters = {"a": value}
    assert "too few" not in told(grid)


@pytest.mark.parametrize(("value", "end"), [(1.1e-5, "lower"), (9e-2, "upper")])
def test_a_winner_at_the_edge_of_a_range_asks_for_a_wider_one(synthesise_sweep, value: float, end: str) -> None:
    sweep = put_winner_at(synthesise_sweep(12), "trainer.learning_rate", value)
    assert f"the winner's trainer.learning_rate, {value:.4g}, is at the {end} end" in told(sweep)


def test_a_winner_in_the_middle_asks_for_nothing(synthesise_sweep) -> None:
    sweep = put_winner_at(synthesise_sweep(12), "trainer.learning_rate", 1e-3)
    sweep.ranked()[0].parameters |= {"trainer.batch_size": 32, "image.encoder.dropout": 0.2}
    assert "is at the" not in told(sweep)


def test_the_largest_of_several_numbers_is_an_edge_but_one_of_two_words_is_not(synthesise_sweep) -> None:
    sweep = put_winner_at(synthesise_sweep(12), "trainer.batch_size", 64)
    assert "the winner's trainer.batch_size, 64, is at the upper end" in told(sweep)
    assert "norm" not in told(sweep)


def test_zero_is_a_natural_end(synthesise_sweep) -> None:
    sweep = put_winner_at(synthesise_sweep(12), "image.encoder.dropout", 0.0)
    assert "dropout" not in told(sweep)


def test_the_edge_of_a_parameter_that_does_not_matter_is_no_matter(synthesise_sweep) -> None:
    sweep = put_winner_at(synthesise_sweep(12), "trainer.batch_size", 64)
    known = Importance((Share("trainer.batch_size", 0.01, 0.0, 0.02),), 12)
    assert "batch_size" not in told(sweep, known)


def test_a_saturated_metric_is_told(synthesise_sweep) -> None:
    sweep = synthesise_sweep(12)
    for trial in sweep.ranked()[:4]:
        trial.rounds = [each.model_copy(update={"value": 0.99999}) for each in trial.rounds]
    assert "4 trials share the best validation/auroc" in told(sweep)


def test_differences_smaller_than_what_a_seed_changes_are_told(synthesise_sweep) -> None:
    assert "differences this small are not significant" in told(synthesise_sweep(12, top=3, seeds=3, noise=0.2))
    assert "differences this small" not in told(synthesise_sweep(12, top=3, seeds=3, noise=1e-5))


def test_a_winner_of_one_seed_may_be_lucky(synthesise_sweep) -> None:
    assert "with one seed" in told(synthesise_sweep(12))
    assert "with one seed" not in told(synthesise_sweep(12, top=2, seeds=2))


def test_a_winner_that_was_still_learning_asks_for_more_epochs(synthesise_sweep) -> None:
    sweep = synthesise_sweep(12)
    assert "last epoch" in told(sweep)
    winner = sweep.ranked()[0]
    winner.rounds.append(winner.rounds[-1].model_copy(update={"epoch": 7, "value": 0.1}))
    sweep.epochs = 7
    assert "last epoch" not in told(sweep)


def test_time_that_was_not_training_is_told(synthesise_sweep) -> None:
    sweep = synthesise_sweep(12)
    assert "of the time was training" not in told(sweep)
    sweep.seconds *= 3
    assert "only 26% of the time was training" in told(sweep)
