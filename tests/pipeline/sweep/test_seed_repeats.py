import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pneumo.pipeline.sweep.record import Round, Sweep, Trial, TrialStatus
from pneumo.pipeline.sweep.seed_repeats import choose_winner, compare_families, group_by_parameters, mean_of

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


def of_values(sweep: Sweep, values: dict[str, list[float | None]], *, shift_seeds: bool = False) -> Sweep:
    """Give a sweep these trials, the first value of each that of the first trial, None for one that failed."""
    sweep.trials = []
    for number, (name, found) in enumerate(values.items()):
        for index, value in enumerate(found):
            seed = 42 + index + (100 * number if shift_seeds and index else 0)
            trial = Trial(name=name if index == 0 else f"{name}-{index}", parameters={"a": number}, seed=seed)
            trial.repeats = None if index == 0 else name
            trial.status = TrialStatus.FAILED if value is None else TrialStatus.DONE
            if value is not None:
                trial.rounds = [Round(epoch=1, step=1, value=value, seconds=1, at=1)]
            sweep.trials.append(trial)
    return sweep


@given(VALUES)
def test_the_interval_is_that_of_students_t(values) -> None:
    mean = mean_of(values)
    assert mean.low is not None
    assert mean.high is not None
    assert mean.low <= mean.value + 1e-9
    error = float(stats.sem(values))
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), error) if error else (mean.value, mean.value)
    assert (mean.low, mean.high) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_one_value_has_no_interval() -> None:
    assert (mean_of([0.9]).low, mean_of([0.9]).high, mean_of([0.9]).count) == (None, None, 1)


def test_no_value_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean_of([])


def test_the_highest_mean_wins_not_the_luckiest_seed(synthesise_sweep) -> None:
    sweep = of_values(synthesise_sweep(0), {"t01": [0.99, 0.90, 0.91], "t02": [0.97, 0.96, 0.98]})
    choice = choose_winner(sweep)
    assert choice is not None
    assert choice.family.first.name == "t02"
    assert choice.trial.name == "t02-2"
    assert [family.first.name for family in group_by_parameters(sweep)] == ["t02", "t01"]


def test_the_lowest_mean_wins_where_less_is_better(synthesise_sweep) -> None:
    sweep = of_values(synthesise_sweep(0, goal="minimize"), {"t01": [0.1, 0.3], "t02": [0.15, 0.16]})
    choice = choose_winner(sweep)
    assert choice is not None
    assert (choice.family.first.name, choice.trial.name) == ("t02", "t02")


def test_a_trial_of_one_seed_does_not_win_over_repeated_ones(synthesise_sweep) -> None:
    sweep = of_values(synthesise_sweep(0), {"t01": [0.99, None], "t02": [0.97, 0.96]})
    choice = choose_winner(sweep)
    assert choice is not None
    assert choice.family.first.name == "t02"
    assert choice.remark is not None
    assert "no comparison" in choice.remark


def test_without_repetitions_the_best_trial_wins(synthesise_sweep) -> None:
    sweep = synthesise_sweep(5, stopped=2, failed=2)
    choice = choose_winner(sweep)
    assert choice is not None
    assert choice.trial == sweep.ranked()[0]
    assert (choice.remark, choice.difference) == (None, None)


def test_a_trial_that_failed_after_its_best_round_does_not_win(synthesise_sweep) -> None:
    sweep = synthesise_sweep(5)
    best = sweep.ranked()[0]
    best.status = TrialStatus.FAILED
    choice = choose_winner(sweep)
    assert choice is not None
    assert choice.trial == sweep.ranked()[1]


@pytest.mark.parametrize("made", [{}, {"failed": 3}, {"waiting": 3}])
def test_nobody_wins_before_a_trial_finished_a_round(synthesise_sweep, made) -> None:
    assert choose_winner(synthesise_sweep(0, **made)) is None


def test_a_difference_that_seeds_share_is_seen_in_spite_of_their_spread(synthesise_sweep) -> None:
    sweep = of_values(synthesise_sweep(0), {"t01": [0.90, 0.95, 0.85], "t02": [0.89, 0.939, 0.841]})
    choice = choose_winner(sweep)
    assert choice is not None
    assert choice.difference is not None
    assert choice.difference.paired
    assert not choice.difference.luck
    assert choice.remark is not None
    assert "more than luck" in choice.remark
    first, second = group_by_parameters(sweep)
    assert first.mean.low is not None
    assert first.mean.low < second.mean.value


def test_a_difference_within_the_spread_may_be_luck(synthesise_sweep) -> None:
    sweep = of_values(
        synthesise_sweep(0), {"t01": [0.90, 0.95, 0.91], "t02": [0.93, 0.90, 0.92], "t03": [0.5, 0.5, 0.5]}
    )
    choice = choose_winner(sweep)
    assert choice is not None
    assert choice.remark is not None
    assert "may be luck" in choice.remark
    assert "t03" not in choice.remark


def test_equal_families_are_a_tie(synthesise_sweep) -> None:
    choice = choose_winner(of_values(synthesise_sweep(0), {"t01": [1.0, 1.0], "t02": [1.0, 1.0]}))
    assert choice is not None
    assert choice.remark is not None
    assert choice.remark.startswith("t01 and t02 have the same mean")


def test_other_seeds_are_compared_unpaired_as_welch_does(synthesise_sweep) -> None:
    one, other = [0.90, 0.95, 0.91], [0.80, 0.84, 0.83]
    sweep = of_values(synthesise_sweep(0), {"t01": one, "t02": other}, shift_seeds=True)
    difference = compare_families(sweep, *group_by_parameters(sweep))
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert not difference.paired
    assert (difference.mean.low, difference.mean.high) == pytest.approx((expected.low, expected.high))


def test_the_interval_of_a_share_ends_at_one(synthesise_sweep) -> None:
    sweep = of_values(synthesise_sweep(0), {"t01": [1.0, 0.98]})
    assert group_by_parameters(sweep)[0].mean.high == 1.0
