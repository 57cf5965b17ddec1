"""`pneumo config explain` and `pneumo config schema`, and the schemas that are kept for editors."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from pneumo.pipeline.config.explanation import explain
from pneumo.pipeline.release.gate.requirements import Gate
from pneumo.serving.contracts.errors import InputError
from tests.support.paths import ROOT

FOLDER = ROOT / "ludwig_configs"


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ["trainer.learning_rate_scheduler.max_lr"],
            ["trainer.learning_rate_scheduler.max_lr", "  Peak of one_cycle", "  type: number or", "  default: null"],
        ),
        (["trainer.learning_rate"], ["  type: number or text", "  range: more than 0, at most 1", "  choices: auto"]),
        (["trainer.epochs"], ["  Passes over the training images.", "  type: whole number", "  range: at least 1"]),
        (["encoder", "efficientnet_lite"], ["input_features.0.encoder efficientnet_lite", "  example", "   dropout "]),
        (["input_features.0.encoder"], ["   type ", "   stacked_cnn ", "   efficientnet_lite ", "   resnet "]),
        (["encoder", "backbone", "dropout"], ["input_features.0.encoder.dropout", "  with: backbone", "  range: at"]),
        (["encoder.dropout"], ["  with: backbone, efficientnet_lite, xrv_densenet", "  with: mlp_mixer"]),
        (["image.augmentation.radiograph_affine.rotation"], ["input_features.0.augmentation.0.rotation", "  range"]),
        (["loss.smoothing"], ["output_features.0.loss.smoothing", "  with: binary smoothed_binary_cross_entropy"]),
        (["decisions.threshold"], ["   sensitivity >= 0.95 ", "   cost FN:FP = 5:1 "]),
        (["hyperopt.parameters"], ["   loguniform "]),
        (["loguniform"], ["hyperopt.parameters.NAME loguniform", "   lower ", "   upper "]),
        (["scheduler", "async_hyperband"], ["   grace_period "]),
        (["conv_layers"], ["   kernel_size "]),
        ([], ["config", "   trainer ", "   decisions "]),
    ],
)  # fmt: skip
def test_a_key_is_explained(pneumo, words: list[str], lines: list[str]) -> None:
    outcome = pneumo("config", "explain", *words)

    assert outcome.code == 0, outcome.err
    for line in lines:
        assert f"\n{line}" in f"\n{outcome.out}", outcome.out


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("trainr.epochz", "trainer.epochs"),
        ("trainer.learning_rate_schedular.max_lr", "trainer.learning_rate_scheduler.max_lr"),
        ("combiner.max_lr", "trainer.learning_rate_scheduler.max_lr"),
        ("encoder.efficientnet", "input_features.0.encoder efficientnet"),
        ("encoder.eficientnet_lite", "input_features.0.encoder efficientnet_lite"),
        ("qwertz", "`pneumo config explain` lists the sections"),
    ],
)
def test_a_wrong_name_is_led_to_the_nearest(words: str, near: str) -> None:
    try:
        text = explain([words])[0].key
    except InputError as error:
        text = str(error)
        assert text.startswith(f"{words}: no such key; ")

    assert near in text


def test_what_lies_under_a_section_is_told_to_programs_too(pneumo) -> None:
    (found,) = json.loads(pneumo("config", "explain", "trainer.optimizer", "--json").out)

    assert found["key"] == "trainer.optimizer"
    below = {each["name"]: each for each in found["below"]}
    assert below["type"]["default"] == "adam"
    assert "Adam with decoupled weight decay." in below["adamw"]["description"]
    assert below["adamw"]["key"] == "trainer.optimizer adamw"


@pytest.mark.parametrize(("name", "options"), [("schema.json", []), ("gate.schema.json", ["--gate"])])
def test_the_schemas_for_editors_are_current(pneumo, tmp_path: Path, name: str, options: list[str]) -> None:
    assert pneumo("config", "schema", *options, "--out", tmp_path / name).code == 0

    assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), "run `make schema`"
    assert json.loads(pneumo("config", "schema", *options).out) == json.loads((FOLDER / name).read_bytes())


def test_every_shipped_config_begins_with_the_place_of_its_schema_and_fits_it() -> None:
    files = sorted(FOLDER.glob("*.yaml"))
    assert len(files) > 5
    for path in files:
        text = path.read_text(encoding="utf-8")
        found = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
        assert found, path
        schema = json.loads((path.parent / found[1]).read_bytes())
        jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(text))


def test_the_schema_of_the_gate_refuses_what_the_gate_refuses() -> None:
    validator = jsonschema.Draft202012Validator(json.loads((FOLDER / "gate.schema.json").read_bytes()))

    assert validator.is_valid(Gate().model_dump())
    refused: list[dict[str, object]] = [
        {"marginz": {}},
        {"margins": {"auroc": 2}},
        {"confidence": 0.5},
        {"aliases": []},
        {"undecided": "x"},
    ]
    for wrong in refused:
        assert not validator.is_valid(wrong), wrong
