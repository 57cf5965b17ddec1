from io import StringIO

import pytest
from rich.console import Console

from pneumo.pipeline.sweep.live_display import (
    EventLog,
    LiveDisplay,
    count_expected,
    estimate_time_left,
    headline,
    render,
)
from pneumo.pipeline.sweep.record import Round, Sweep, Trial, TrialStatus


def screen(sweep: Sweep, now: float = 60.0, *, height: int = 30, width: int = 160) -> list[str]:
    printed = StringIO()
    console = Console(file=printed, width=width, height=height, highlight=False)
    console.print(render(sweep, now, height=height))
    return printed.getvalue().splitlines()


def begin(sweep: Sweep, trial: Trial, at: float = 0.0) -> None:
    trial.status, trial.started = TrialStatus.RUNNING, at


def learn(trial: Trial, *values: float, seconds: float = 10.0) -> None:
    for value in values:
        epoch = len(trial.rounds) + 1
        passed = epoch * seconds
        trial.rounds.append(Round(epoch=epoch, step=epoch, value=value, seconds=passed, at=passed))


def end(trial: Trial, status: TrialStatus = TrialStatus.DONE, error: str | None = None) -> None:
    trial.status, trial.error = status, error
    trial.seconds = trial.rounds[-1].seconds if trial.rounds else 3.0


@pytest.fixture
def fresh(synthesise_sweep) -> Sweep:
    """A sweep of four trials, none begun."""
    return synthesise_sweep(0, waiting=4, status="running")


def test_the_table_shows_running_trials_first_then_the_best(synthesise_sweep) -> None:
    sweep = synthesise_sweep(5, failed=1)
    last = sweep.trials[4]
    last.status = TrialStatus.RUNNING
    names = [line.split()[0] for line in screen(sweep) if line.startswith("t0")]
    best = [trial.name for trial in sweep.ranked() if trial.name != last.name]
    assert names == [last.name, *best, "t06"]


def test_a_row_tells_state_parameters_metric_best_epoch_and_time(fresh) -> None:
    trial = fresh.trials[0]
    begin(fresh, trial)
    learn(trial, 0.9, 0.8)
    row = next(line for line in screen(fresh, now=25) if line.startswith("t01"))
    for text in ("running", "learning_rate", "0.800", "0.900", "2/6", "25 s"):
        assert text in row


@pytest.mark.parametrize("trials", [0, 1, 3, 200])
@pytest.mark.parametrize("height", [3, 10, 24])
def test_the_table_never_outgrows_the_terminal(synthesise_sweep, trials: int, height: int) -> None:
    assert len(screen(synthesise_sweep(trials, stopped=trials), height=height)) <= max(height, 5)


def test_what_does_not_fit_is_counted(synthesise_sweep) -> None:
    lines = screen(synthesise_sweep(50), height=16)
    shown = sum(line.startswith("t") and not line.startswith("trial") for line in lines)
    assert f"... {50 - shown} more" in lines


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_narrow_terminal_gets_one_line_a_trial(synthesise_sweep, width: int) -> None:
    sweep = synthesise_sweep(6)
    assert len(screen(sweep, width=width)) == len(screen(sweep, width=300))


def test_a_terminal_shows_markup_in_parameters_and_errors_as_text(synthesise_sweep) -> None:
    sweep = synthesise_sweep(1, failed=1)
    sweep.trials[0].parameters["image.encoder.norm"] = "[bold]x"
    sweep.trials[1].error = "[/red] gone"
    text = "\n".join(screen(sweep, width=300))
    assert "[bold]x" in text
    assert "failed: [/red] gone" in text


def test_a_log_tells_begin_and_end_but_not_each_epoch(fresh) -> None:
    log = EventLog()
    first, second = fresh.trials[:2]
    assert log.list_events(fresh, 0) == []
    begin(fresh, first)
    begin(fresh, second)
    assert [line.split(":")[0] for line in log.list_events(fresh, 1)] == ["t01 begins", "t02 begins"]
    learn(first, 0.7)
    learn(second, 0.6)
    assert log.list_events(fresh, 12) == []
    learn(first, 0.8)
    assert log.list_events(fresh, 22) == []
    end(first)
    (line,) = log.list_events(fresh, 23)
    assert line.startswith(
        "t01 done after 2 of 6 epochs, 20 s: validation/auroc 0.800; best so far 0.800 (t01); 1 of 4 trials"
    )
    assert log.list_events(fresh, 24) == []


def test_a_log_tells_when_another_trial_takes_the_lead(fresh) -> None:
    log = EventLog()
    first, second = fresh.trials[:2]
    for trial in (first, second):
        begin(fresh, trial)
    learn(first, 0.7)
    log.list_events(fresh, 10)
    learn(second, 0.75)
    assert log.list_events(fresh, 20) == ["t02 takes the lead: validation/auroc 0.750"]
    learn(second, 0.8)
    assert log.list_events(fresh, 30) == []


def test_a_log_tells_epochs_that_take_long(fresh) -> None:
    log = EventLog()
    begin(fresh, fresh.trials[0])
    log.list_events(fresh, 0)
    learn(fresh.trials[0], 0.7, seconds=45)
    assert log.list_events(fresh, 45) == ["t01 epoch 1 of 6, 45 s: validation/auroc 0.700"]


def test_a_log_tells_why_a_trial_failed_in_one_line(fresh) -> None:
    log = EventLog()
    begin(fresh, fresh.trials[0])
    log.list_events(fresh, 0)
    end(fresh.trials[0], TrialStatus.FAILED, "out of\nmemory")
    (line,) = log.list_events(fresh, 3)
    assert line.startswith("t01 failed after 0 of 6 epochs, 3.0 s: out of memory; 1 of 4 trials, 1 failed")


def test_a_log_that_starts_late_sums_up_what_was_before(synthesise_sweep) -> None:
    sweep = synthesise_sweep(3, failed=1, waiting=2, status="running")
    best = sweep.ranked()[0]
    log = EventLog()
    assert log.list_events(sweep, 200) == [
        f"4 of 6 trials ended already; best so far {best.value('maximize'):.3f} ({best.name})"
    ]
    begin(sweep, sweep.trials[4], 200)
    assert [line.split(":")[0] for line in log.list_events(sweep, 201)] == ["t05 begins"]


def test_a_repetition_says_whom_it_repeats(synthesise_sweep) -> None:
    sweep = synthesise_sweep(2, top=1, seeds=2)
    best = sweep.ranked()[0].name
    end_of_first = sweep.model_copy(update={"trials": sweep.trials[:2]})
    log = EventLog()
    log.list_events(end_of_first, 60)
    assert log.list_events(sweep, 130)[0].startswith(f"t03 begins (repeats {best} with seed 43): ")


def test_repetitions_are_expected_from_the_start(synthesise_sweep) -> None:
    assert count_expected(synthesise_sweep(0, wanted=10, top=3, seeds=3)) == 16
    assert count_expected(synthesise_sweep(0, wanted=2, top=3, seeds=3)) == 6
    assert count_expected(synthesise_sweep(0, wanted=10, top=3, seeds=1)) == 10


def test_time_left_goes_by_trials_that_ended(synthesise_sweep) -> None:
    sweep = synthesise_sweep(2, waiting=4)  # 61 s a trial, two at a time
    assert estimate_time_left(sweep, 61) == pytest.approx(4 * 61 / 2)


def test_time_left_counts_what_running_trials_have_done(synthesise_sweep) -> None:
    sweep = synthesise_sweep(2, waiting=1)
    begin(sweep, sweep.trials[2], 61)
    assert estimate_time_left(sweep, 61 + 40) == pytest.approx(21)


def test_time_left_goes_by_epochs_before_a_trial_ended(fresh) -> None:
    begin(fresh, fresh.trials[0])
    assert estimate_time_left(fresh, 5) is None
    learn(fresh.trials[0], 0.7)
    assert estimate_time_left(fresh, 10) == pytest.approx((3 * 60 + 50) / 2)


def test_time_left_is_never_more_than_the_budget_leaves(synthesise_sweep) -> None:
    sweep = synthesise_sweep(2, waiting=40, time_budget=100.0)
    assert estimate_time_left(sweep, 61) == 39
    assert estimate_time_left(sweep, 161) == 0


def test_nothing_is_left_once_all_have_ended(synthesise_sweep) -> None:
    sweep = synthesise_sweep(2, failed=1)
    assert estimate_time_left(sweep, 61) == 0
    assert headline(sweep, 61).startswith("3 of 3 trials, 1 failed, 1 min 01 s")


def test_without_a_terminal_lines_are_printed(fresh) -> None:
    printed = StringIO()
    console = Console(file=printed, width=30, highlight=False)
    with LiveDisplay(console) as watch:
        begin(fresh, fresh.trials[0])
        fresh.trials[0].parameters["image.encoder.norm"] = "[bold]x"
        watch.update(fresh, 0)
        watch.update(fresh, 1)
    (line,) = printed.getvalue().splitlines()
    assert line.startswith("t01 begins: learning_rate ")
    assert "[bold]x" in line


def test_on_a_terminal_the_table_is_redrawn_and_gone_at_the_end(synthesise_sweep) -> None:
    printed = StringIO()
    console = Console(file=printed, width=120, height=20, force_terminal=True, color_system=None)
    sweep = synthesise_sweep(2, waiting=1)
    with LiveDisplay(console) as watch:
        for now in (0.0, 0.14, 5.0):
            watch.update(sweep, now)
    text = printed.getvalue()
    assert "5.0 s, about" in text
    assert "0.1 s, about" not in text  # right after another
    assert "\x1b[2K" in text[text.rindex("best so far") :]  # the lines are erased


def test_a_sweep_without_trials_is_shown(synthesise_sweep) -> None:
    sweep = synthesise_sweep(0, wanted=4)
    assert screen(sweep, 0)[-1] == "no validation/auroc yet"
    assert EventLog().list_events(sweep, 0) == []
