"""`pneumo promote` with its data set: output and exit codes."""

import json

import pytest

from pneumo.pipeline.release.registry import promote
from pneumo.serving.model.registry import read_registry


@pytest.fixture
def models(tmp_path, bright, bundle_of, monkeypatch):
    monkeypatch.chdir(tmp_path)
    promote(bundle_of(bright, "1").folder)
    return tmp_path / "models"


def test_a_good_challenger_is_promoted_and_a_worse_one_exits_1_with_a_table(pneumo, models, bright, bundle_of):
    good, worse = bundle_of(bright, "2", noise=0.1), bundle_of(bright, "3", threshold=0.9)
    at = ("--data", bright.folder)

    passed = pneumo("promote", good.folder, *at)
    assert passed.code == 0, passed.err
    for text in ("no defect in 440 images", "400 test images of 400 patients", "AUROC", "as good"):
        assert text in passed.out
    assert "champion is now tiny:2" in passed.err
    assert "as good as tiny:1" in pneumo("models", "show").out

    before = (models / "registry.yaml").read_bytes()
    refused = pneumo("promote", worse.folder, *at, "--json")
    assert refused.code == 1
    assert "Sensitivity changes by -0." in refused.err
    assert refused.err.count("pneumo: ") == 1
    document = json.loads(refused.out)
    assert {each["difference"]["metric"]: each["outcome"] for each in document["gate"]["figures"]} == {
        "auroc": "good",
        "sensitivity": "worse",
        "specificity": "good",
    }
    assert (models / "registry.yaml").read_bytes() == before

    (models.parent / "wide.yaml").write_text("margins: {sensitivity: 0.9}\n")
    wide = pneumo("promote", worse.folder, *at, "--gate", "wide.yaml")
    assert wide.code == 0
    assert "as good" in wide.out
    assert read_registry(models).aliases == {"champion": "tiny:3"}


def test_a_wrong_gate_is_one_line_before_anything_is_done(pneumo, models):
    (models.parent / "gate.yaml").write_text("confidence: high\n")
    outcome = pneumo("promote", "no-such-run", "--gate", "gate.yaml")
    assert outcome.code == 2
    assert "gate.yaml:1: confidence: " in outcome.err
