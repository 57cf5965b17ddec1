import csv
import json
from io import StringIO

import pytest
from rich.console import Console

from pneumo.pipeline.sweep.live_display import render_result
from pneumo.pipeline.sweep.record import Round, SweepFolder, TrialStatus
from pneumo.pipeline.sweep.report.table import (
    counts,
    document,
    training_share,
    wall_seconds,
    write_table,
)


def rows(folder: SweepFolder) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(folder.table.read_text())))


def shown(table, width: int = 200) -> str:
    printed = StringIO()
    Console(file=printed, width=width, highlight=False).print(table)
    return printed.getvalue()


def test_the_table_has_a_row_for_every_trial_and_a_column_for_every_parameter(synthesise_sweep, tmp_path) -> None:
    sweep = synthesise_sweep(6, stopped=2, failed=1, waiting=1, top=2, seeds=2)
    folder = SweepFolder(tmp_path)
    assert write_table(folder, sweep) == folder.table
    found = rows(folder)
    assert [row["trial"] for row in found] == [trial.name for trial in sweep.trials]
    assert [row["status"] for row in found] == [trial.status.value for trial in sweep.trials]
    assert float(found[0]["value"]) == sweep.trials[0].value("maximize")
    assert (found[0]["best_epoch"], found[0]["epochs"], found[0]["training_seconds"]) == ("6", "6", "48.0")
    assert (found[8]["value"], found[8]["error"]) == ("", sweep.trials[8].error)
    assert found[-1]["repeats"] in {trial.name for trial in sweep.ranked()[:2]}
    assert set(sweep.space) <= set(found[0])


def test_a_parameter_survives_the_table(synthesise_sweep, tmp_path) -> None:
    sweep = synthesise_sweep(3)
    folder = SweepFolder(tmp_path)
    write_table(folder, sweep)
    for row, trial in zip(rows(folder), sweep.trials, strict=True):
        for name, value in trial.parameters.items():
            assert row[name] == value or json.loads(row[name]) == value


def test_commas_quotes_and_lines_in_an_error_stay_in_one_cell(synthesise_sweep, tmp_path) -> None:
    sweep = synthesise_sweep(1, failed=1)
    sweep.trials[1].error = 'he said "no",\nand left'
    folder = SweepFolder(tmp_path)
    write_table(folder, sweep)
    assert rows(folder)[1]["error"] == 'he said "no",\nand left'


def test_a_parameter_called_like_a_column_keeps_its_own(synthesise_sweep, tmp_path) -> None:
    sweep = synthesise_sweep(1)
    sweep.trials[0].parameters["seed"] = 7
    folder = SweepFolder(tmp_path)
    write_table(folder, sweep)
    assert (rows(folder)[0]["seed"], rows(folder)[0]["parameters.seed"]) == ("42", "7")


def test_a_sweep_without_trials_has_a_table_and_a_document(synthesise_sweep, tmp_path) -> None:
    sweep = synthesise_sweep(0, wanted=4, status="interrupted")
    folder = SweepFolder(tmp_path)
    write_table(folder, sweep)
    assert rows(folder) == []
    found = document(sweep)
    assert found["winner"] is None
    assert found["trials"] == []
    assert found["training_share"] is None
    assert found["counts"] == {"waiting": 4}
    assert "validation/auroc" in shown(render_result(sweep))


def test_the_document_is_json_without_nan(synthesise_sweep) -> None:
    sweep = synthesise_sweep(3)
    sweep.trials[0].rounds = [Round(epoch=1, step=1, value=float("nan"), seconds=1, at=1)]
    sweep.trials[1].parameters["trainer.learning_rate"] = float("inf")
    text = json.dumps(document(sweep), allow_nan=False)
    found = json.loads(text)
    assert found["trials"][0]["value"] is None
    assert found["trials"][1]["parameters"]["trainer.learning_rate"] is None
    assert found["metric"] == "roc_auc"
    assert len(found["trials"]) == 3


def test_a_diverged_round_does_not_hide_the_ones_before_it(synthesise_sweep) -> None:
    sweep = synthesise_sweep(1)
    trial = sweep.trials[0]
    value = trial.value("maximize")
    trial.rounds = [Round(epoch=0, step=0, value=float("nan"), seconds=0, at=0), *trial.rounds]
    trial.rounds.append(Round(epoch=7, step=70, value=float("nan"), seconds=70, at=70))
    assert document(sweep)["winner"]["value"] == value


def test_the_winner_has_its_parameters_and_its_interval_over_seeds(synthesise_sweep) -> None:
    sweep = synthesise_sweep(8, top=3, seeds=3)
    winner = document(sweep)["winner"]
    trial = sweep.trial(winner["trial"])
    assert winner["parameters"] == sweep.trial(trial.repeats or trial.name).parameters
    assert len(winner["seeds"]) == 3
    low, high = winner["interval"]
    assert low < winner["mean"] < high
    assert winner["value"] >= winner["mean"]
    assert len(document(sweep)["seeds_compared"]) == 3
    assert document(synthesise_sweep(8))["winner"]["interval"] is None


def test_the_share_of_training_counts_every_place_for_a_trial(synthesise_sweep) -> None:
    sweep = synthesise_sweep(4)  # two at a time, 61 s each, 48 s of them training
    assert wall_seconds(sweep) == 122
    assert training_share(sweep) == pytest.approx(4 * 48 / (122 * 2))


def test_wall_time_of_a_killed_sweep_is_up_to_what_is_known(synthesise_sweep) -> None:
    sweep = synthesise_sweep(4)
    sweep.seconds = 0
    assert wall_seconds(sweep) == 122


def test_trials_that_never_began_are_counted_as_waiting(synthesise_sweep) -> None:
    sweep = synthesise_sweep(3, stopped=2, failed=1, waiting=1, wanted=10)
    assert counts(sweep) == {
        TrialStatus.WAITING: 4,
        TrialStatus.DONE: 3,
        TrialStatus.STOPPED: 2,
        TrialStatus.FAILED: 1,
    }


def test_the_terminal_shows_the_best_first_and_says_how_many_are_left_out(synthesise_sweep) -> None:
    sweep = synthesise_sweep(30, failed=2)
    text = shown(render_result(sweep, limit=5))
    names = [line.split()[0] for line in text.splitlines() if line.startswith("t") and "trial" not in line]
    assert names == [trial.name for trial in sweep.ranked()[:5]]
    assert "27 more" in text


def test_the_terminal_shows_markup_as_text(synthesise_sweep) -> None:
    sweep = synthesise_sweep(1, failed=1, metric="[red]auc")
    sweep.trials[0].parameters["image.encoder.norm"] = "[bold]x[/]"
    sweep.trials[1].error = "[/nonsense] failed"
    text = shown(render_result(sweep))
    assert "[bold]x[/]" in text
    assert "[/nonsense] failed" in text
    assert "[red]auc" in text
