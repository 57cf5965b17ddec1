import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pneumo.pipeline.cli import app
from pneumo.serving.contracts.errors import InputError

pytestmark = pytest.mark.usefixtures("no_pages")


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def run(synthesise_run):
    return synthesise_run(seed=1)


def runs_dir(run) -> Path:
    return run.folder.parent


def test_a_person_gets_a_table_with_intervals_and_is_told_where_the_report_is(run) -> None:
    result = invoke("evaluate", "latest", "--runs-dir", runs_dir(run))
    assert result.exit_code == 0, result.output
    metrics = json.loads(run.metrics.read_text())["splits"]["test"]["metrics"]
    line = next(line for line in result.stdout.splitlines() if "AUROC" in line)
    assert f"{metrics['auroc']['value']:.3f}" in line
    assert f"{metrics['auroc']['low']:.3f} to {metrics['auroc']['high']:.3f}" in line
    assert "report.html" in result.stderr
    assert "not a medical device" in result.stderr


def test_the_operating_point_certainty_and_subgroups_are_shown_with_intervals(synthesise_run) -> None:
    run = synthesise_run(images=360, groups=True)
    result = invoke("evaluate", run.folder, "--policy", "cost fn:fp = 3:1")
    assert result.exit_code == 0, result.output
    split = json.loads(run.metrics.read_text())["splits"]["test"]
    for name, words in {
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "ppv": "Positive predictive value",
        "npv": "Negative predictive value",
        "coverage": "Prediction set coverage",
        "coverage:NORMAL": "Prediction set coverage of NORMAL",
        "uncertain": "Share of uncertain images",
        "accuracy_certain": "Accuracy on certain images",
        "worst_group_auroc": "Worst-group AUROC",
        "ece_uncalibrated": "calibration error (15 bins), uncalibrated",
        "ece_change": "Change in expected calibration error",
    }.items():
        line = next(line for line in result.stdout.splitlines() if words in line)
        figures = split["metrics"][name]
        assert f"{figures['value']:.3f}" in line
        assert f"{figures['low']:.3f} to {figures['high']:.3f}" in line
    assert "(cost FN:FP = 3:1, fitted on validation; 0." in result.stdout
    assert f"worst-group AUROC: {split['worst_group']}" in result.stdout
    for part in split["subgroups"]:
        line = next(line for line in result.stdout.splitlines() if f"{part['group']}: {part['value']}" in line)
        assert f"{part['metrics']['auroc']['value']:.3f}" in line


def test_json_is_one_document_on_standard_output(run) -> None:
    result = invoke("evaluate", run.folder, "--split", "validation", "--json")
    document = json.loads(result.stdout)
    assert document["split"] == "validation"
    assert document["result"]["metrics"]["auroc"]["low"] <= document["result"]["metrics"]["auroc"]["value"]
    assert "evaluating" in result.stderr


def test_the_policy_is_used_and_kept(run) -> None:
    result = invoke("evaluate", run.folder, "--policy", "sensitivity >= 0.9", "--json")
    assert json.loads(result.stdout)["decisions"]["policy"] == "sensitivity >= 0.9"
    assert json.loads((run.folder / "decisions.json").read_text())["policy"] == "sensitivity >= 0.9"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--policy", "best"], "--policy 'best': not a rule"), (["--data", "nowhere"], "nowhere: no manifest.csv here")],
)
def test_wrong_input_is_an_input_error(run, arguments, message) -> None:
    result = invoke("evaluate", run.folder, *arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_an_unknown_run_or_split_is_refused(run) -> None:
    result = invoke("evaluate", "nothing", "--runs-dir", runs_dir(run))
    assert "no such run" in str(result.exception)
    assert invoke("evaluate", run.folder, "--split", "holdout").exit_code == 2


def test_class_names_are_not_read_as_markup(synthesise_run) -> None:
    run = synthesise_run(("[red]a", "[/]b"), seed=3)
    result = invoke("evaluate", run.folder)
    assert result.exit_code == 0, result.output
    assert "[red]a" in result.stdout
