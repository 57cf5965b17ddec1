import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pneumo.pipeline.cli import app
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from tests.support.bundles import make_bundle

FORCE = ("--force", "a test without data")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory with two bundles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    for version in ("1", "2"):
        make_bundle(tmp_path / f"b{version}", seed=int(version), version=version)
    return tmp_path


def pneumo(*arguments: str):
    found = CliRunner().invoke(app, list(arguments))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def test_promote_list_and_rollback_agree(folder):
    pneumo("promote", "b1", *FORCE)
    said = pneumo("promote", "b2", *FORCE)
    assert "champion is now tiny:2" in said.stderr
    listed = json.loads(pneumo("models", "list", "--json").stdout)
    assert [(version["id"], version["aliases"]) for version in listed] == [("tiny:1", []), ("tiny:2", ["champion"])]
    said = pneumo("models", "rollback").stderr
    assert "champion is tiny:1 again, first promoted on 20" in said
    assert "tiny:2 stays in the registry: `pneumo promote tiny:2` asks the gate to let it back" in said
    listed = json.loads(pneumo("models", "list", "--json").stdout)
    assert [version["aliases"] for version in listed] == [["champion"], []]


def test_the_registry_may_be_named_by_the_environment_as_for_the_service(folder, monkeypatch):
    monkeypatch.setenv("PNEUMO_MODELS_DIR", "shelf")
    pneumo("promote", "b1", *FORCE)
    assert (folder / "shelf" / "registry.yaml").is_file()
    assert [version["id"] for version in json.loads(pneumo("models", "list", "--json").stdout)] == ["tiny:1"]
    assert json.loads(pneumo("models", "list", "--models-dir", "models", "--json").stdout) == []


def test_promote_answers_with_one_json_document(folder):
    document = json.loads(pneumo("promote", "b1", "--alias", "challenger", "--json").stdout)
    assert (document["id"], document["alias"], document["bundle"]) == ("tiny:1", "challenger", "tiny/1")
    assert document["promoted"]
    assert document["gate"]["passed"]


def test_what_the_gate_refuses_changes_nothing_and_says_why_and_how_on(folder):
    with pytest.raises(CheckFailedError) as caught:
        pneumo("promote", "b1")
    assert caught.value.exit_code == 1
    for text in ("tiny:1 is not promoted to champion", "data: not found", "--data", '--force "REASON"'):
        assert text in str(caught.value)
    assert not (folder / "models").exists()


def test_a_refusal_is_one_json_document_too(folder):
    outcome = CliRunner().invoke(app, ["promote", "b1", "--json"])
    assert isinstance(outcome.exception, CheckFailedError)
    document = json.loads(outcome.stdout)
    assert (document["promoted"], document["gate"]["passed"]) == (False, False)


def test_a_forced_promotion_keeps_the_reason_and_show_tells_it(folder):
    said = pneumo("promote", "b1", "--force", "no data left of that year")
    assert "the recorded reason: no data left of that year" in said.stderr
    assert "promoted by force, reason: no data left of that year" in pneumo("models", "show").stdout
    (record,) = json.loads(pneumo("models", "show", "--json").stdout)["promotions"]
    assert record["forced"] == "no data left of that year"
    assert record["objections"][0].startswith("data: not found")


def test_force_without_a_reason_is_refused(folder):
    with pytest.raises(InputError, match="--force: give the reason"):
        pneumo("promote", "b1", "--force", " ")


def test_a_rollback_is_part_of_the_history(folder):
    pneumo("promote", "b1", *FORCE)
    pneumo("promote", "b2", *FORCE)
    pneumo("models", "rollback")
    assert "back from tiny:2" in pneumo("models", "show").stdout


def test_a_challenger_is_promoted_to_champion_by_its_alias(folder):
    pneumo("promote", "b1", *FORCE)
    pneumo("promote", "b2", "--alias", "challenger")
    pneumo("promote", "challenger", *FORCE)
    listed = json.loads(pneumo("models", "list", "--json").stdout)
    assert listed[1]["aliases"] == ["challenger", "champion"]


def test_the_list_shows_models_aliases_and_auroc(folder):
    pneumo("promote", "b1", *FORCE)
    shown = pneumo("models", "list").stdout
    for text in ("tiny:1", "champion", "0.900 (0.800 to 0.950), test"):
        assert text in shown


def test_the_list_rounds_a_figure_once_as_reports_and_pages_do(folder):
    auroc = {"value": 0.98046875, "low": 0.9375, "high": 0.99951}
    make_bundle(folder / "b3", version="3", metrics={"splits": {"test": {"metrics": {"auroc": auroc}}}})
    pneumo("promote", "b3", *FORCE)
    assert "0.980 (0.938 to 1.000), test" in pneumo("models", "list").stdout


def test_the_list_of_an_empty_registry_says_what_to_do(folder):
    assert "pneumo promote RUN" in pneumo("models", "list").stderr
    assert json.loads(pneumo("models", "list", "--json").stdout) == []


def test_show_reads_an_alias_and_a_folder(folder):
    pneumo("promote", "b1", *FORCE)
    for model in ("champion", "b1"):
        shown = pneumo("models", "show", model).stdout
        for text in ("tiny:1", "NORMAL, PNEUMONIA", "1 x 28 x 28, squash", "0.400 (max balanced accuracy)", "0.900"):
            assert text in shown
    document = json.loads(pneumo("models", "show", "--json").stdout)
    assert document["name"] == "tiny"
    assert document["folder"] == "models/tiny/1"


def test_show_refuses_a_changed_bundle(folder):
    (folder / "b1" / "card.md").write_text("x")
    with pytest.raises(InputError, match="SHA-256"):
        pneumo("models", "show", "b1")


def test_a_wrong_alias_is_refused_before_anything_is_exported(folder):
    with pytest.raises(InputError, match="--alias"):
        pneumo("promote", "no-such-run", "--alias", "not an alias")
