import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from pneumo.pipeline.cli import app
from pneumo.pipeline.comparing.run_list import summarise_runs
from pneumo.pipeline.evaluation import evaluate_run
from pneumo.pipeline.runs.run import Status
from pneumo.serving.contracts.errors import InputError

pytestmark = pytest.mark.usefixtures("no_pages")


def invoke(*arguments: object):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["runs", *[str(argument) for argument in arguments]])


def test_an_empty_list_says_what_to_do(tmp_path) -> None:
    result = invoke("list", "--runs-dir", tmp_path / "none")
    assert result.exit_code == 0
    assert "pneumo train" in result.stderr
    assert json.loads(invoke("list", "--runs-dir", tmp_path / "none", "--json").stdout) == []
    assert invoke("list", "--runs-dir", tmp_path / "none", "--columns", "config.trainer.epochs").exit_code == 0


def test_runs_are_listed_newest_first_with_their_auroc(synthesise_run) -> None:
    old, new = synthesise_run(seed=1), synthesise_run(seed=2)
    report = evaluate_run(old, resamples=10)
    result = invoke("list", "--runs-dir", old.folder.parent)
    assert result.exit_code == 0, result.output
    assert result.stdout.index(new.name) < result.stdout.index(old.name)
    line = next(line for line in result.stdout.splitlines() if old.name in line)
    for part in (
        "done",
        f"{report.result.metrics['auroc'].value:.3f}",
        "1 min 01 s",
    ):
        assert part in line
    listed = json.loads(invoke("list", "--runs-dir", old.folder.parent, "--json").stdout)
    assert [entry["name"] for entry in listed] == [new.name, old.name]
    assert "test/auroc" not in listed[0]["metrics"]
    assert listed[1]["metrics"]["test/auroc"] == report.result.metrics["auroc"].value
    assert listed[1]["metrics"]["train/loss"] == pytest.approx(1 / 3)


def test_a_run_that_no_process_holds_was_interrupted(synthesise_run) -> None:
    run = synthesise_run(status=Status.RUNNING)

    def statuses() -> set[str]:
        listed = json.loads(invoke("list", "--runs-dir", run.folder.parent, "--json").stdout)[0]["status"]
        return {listed, json.loads(invoke("show", run.folder, "--json").stdout)["run"]["status"]}

    with run.locked():
        assert statuses() == {"running"}
    assert statuses() == {"interrupted"}
    assert run.info().status is Status.RUNNING


def test_a_running_run_has_taken_the_time_since_it_began(synthesise_run) -> None:
    run = synthesise_run(status=Status.RUNNING)
    now = datetime(2026, 1, 2, 3, 4, tzinfo=UTC) + timedelta(hours=2)
    with run.locked():
        assert summarise_runs(run.folder.parent, now=now)[0].seconds == 7200


def test_a_damaged_run_does_not_hide_the_others(synthesise_run) -> None:
    broken, whole = synthesise_run(seed=1), synthesise_run(seed=2)
    (broken.folder / "run.json").write_text("{")
    whole.metrics.write_text("{")
    found = {summary.name: summary for summary in summarise_runs(whole.folder.parent)}
    assert found[broken.name].status == "damaged"
    assert "run.json" in found[broken.name].error
    assert found[whole.name].status == "done"
    assert "test/auroc" not in found[whole.name].metrics
    assert "metrics.json: cannot be read; run `pneumo evaluate" in str(found[whole.name].error)


@pytest.mark.parametrize("damage", ["missing", "folder", "bytes", "list"])
def test_every_kind_of_damage_is_listed_as_such(synthesise_run, damage) -> None:
    run = synthesise_run()
    run.record_file.unlink()
    if damage == "folder":
        run.record_file.mkdir()
    elif damage != "missing":
        run.record_file.write_bytes(b"\xff\xfe" if damage == "bytes" else b"[]")
    result = invoke("list", "--runs-dir", run.folder.parent)
    assert result.exit_code == 0
    assert "damaged" in result.stdout
    assert result.stderr.startswith(f"{run.name}: ")
    assert len(result.stderr.splitlines()) == 1


def test_runs_are_compared_by_metrics_and_settings(synthesise_run, tmp_path) -> None:
    runs = [synthesise_run(seed=seed, shift=shift) for seed, shift in ((1, 0.5), (2, 2.0), (3, 1.0))]
    for run, rate in zip(runs, (0.1, 0.01, 0.001), strict=True):
        evaluate_run(run, resamples=10)
        run.config.write_text(f"trainer:\n  epochs: 3\n  learning_rate: {rate}\n  note: '=1+1'\n")

    def names(*options: str) -> list[str]:
        result = invoke("list", "--runs-dir", runs[0].folder.parent, "--json", *options)
        assert result.exit_code == 0, result.output
        return [entry["name"] for entry in json.loads(result.stdout)]

    first, second, third = (run.name for run in runs)
    assert names("--sort", "-validation/auroc") == [second, third, first]
    assert names("--sort", "config.trainer.learning_rate") == [third, second, first]
    assert names("--filter", "config.trainer.learning_rate<=0.01", "--sort", "test/auroc") == [third, second]
    assert names("--filter", "status=finished", "--filter", "config.trainer.learning_rate=1e-3") == [third]
    assert names("--filter", "status!=done") == []
    assert names("--filter", "started>2026-01-01", "--filter", "config.trainer.epochs") == [third, second, first]
    table = invoke(
        "list",
        "--runs-dir",
        tmp_path / "runs",
        "--columns",
        "test/auroc,config.trainer.note",
        "--diff-config",
        "--csv",
        "-",
    )
    head, *rows = table.stdout.splitlines()
    assert head == "name,test/auroc,config.trainer.note,config.trainer.learning_rate"
    assert [row.split(",")[2:] for row in rows] == [["'=1+1", rate] for rate in ("0.001", "0.01", "0.1")]
    written = invoke("list", "--runs-dir", tmp_path / "runs", "--csv", tmp_path / "runs.csv")
    assert written.exit_code == 0
    assert (tmp_path / "runs.csv").read_text().startswith("name,status,validation/auroc,test/auroc,seconds\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--columns", "validation/roc_auc"), "did you mean validation/auroc?"),
        (("--sort", "-auroc"), "no run has such a column"),
        (("--filter", "config.trainer.epoch>1"), "did you mean config.trainer.epochs?"),
        (("--filter", "status=ended"), "a status is one of"),
        (("--filter", "seed>high"), "has no order with 'high'"),
        (("--filter", ">3"), "write COLUMN"),
        (("--csv", "-", "--json"), "leave one out"),
        (("--csv", "/dev/null/x.csv"), "cannot be written"),
    ],
)
def test_a_wrong_option_of_the_list_is_one_line(synthesise_run, options, message, capsys) -> None:
    run = synthesise_run()
    result = invoke("list", "--runs-dir", run.folder.parent, *options)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


def test_the_reason_of_a_failure_is_told(synthesise_run) -> None:
    run = synthesise_run(status=Status.FAILED, error="images/3.png: unreadable")
    assert "images/3.png: unreadable" in invoke("list", "--runs-dir", run.folder.parent).stderr


def test_show_prints_where_a_run_came_from_and_how_good_it_is(synthesise_run) -> None:
    run = synthesise_run()
    report = evaluate_run(run, resamples=10)
    result = invoke("show", "latest", "--runs-dir", run.folder.parent)
    assert result.exit_code == 0, result.output
    for part in ("pneumo train synthetic.yaml", "python 3.12", f"{report.result.metrics['brier'].value:.3f}"):
        assert part in result.stdout
    document = json.loads(invoke("show", run.folder, "--json").stdout)
    assert document["run"]["seed"] == 42
    assert document["metrics"] == json.loads(run.metrics.read_text())


def test_show_of_a_run_without_metrics_says_how_to_get_them(synthesise_run) -> None:
    run = synthesise_run()
    result = invoke("show", run.folder)
    assert result.exit_code == 0
    assert "pneumo evaluate" in result.stderr
    assert json.loads(invoke("show", run.folder, "--json").stdout)["metrics"] is None
