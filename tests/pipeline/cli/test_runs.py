import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from pneumo.pipeline.cli import app
from pneumo.pipeline.comparing.run_list import summarise_runs
from pneumo.pipeline.evaluation import evaluate_run
from pneumo.pipeline.runs.run import Status

pytestmark = pytest.mark.usefixtures("no_pages")


def invoke(*arguments: object):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["runs", *[str(argument) for argument in arguments]])


def test_an_empty_list_says_what_to_do(tmp_path) -> None:
    result = invoke("list", "--runs-dir", tmp_path / "none")
    assert result.exit_code == 0
    assert "pneumo train" in result.stderr
    assert json.loads(invoke("list", "--runs-dir", tmp_path / "none", "--json").stdout) == []


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
    assert listed[0]["auroc_test"] is None
    assert listed[1]["auroc_test"] == report.result.metrics["auroc"].value


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
    assert found[whole.name].auroc_test is None


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
