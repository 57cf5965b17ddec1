"""The JSON Schema of configs: valid, complete, and of one mind with `pneumo config validate`."""

import copy
import importlib.resources
import json
import random
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import pytest
import yaml

from pneumo.pipeline import config
from pneumo.pipeline.config import json_schema
from pneumo.pipeline.config.document import Document
from pneumo.pipeline.config.schema import check_schema, read_ludwig_schema
from pneumo.pipeline.decisions.policies import Policy
from pneumo.pipeline.sweep import space, sweep_settings
from pneumo.serving.contracts.errors import InputError
from tests.support.paths import ROOT

CONFIGS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "ludwig_configs").glob("[!g]*.yaml")}
RICH = """
input_features:
  - name: image
    type: image
    preprocessing: {mode: eager, height: 64, width: 64, num_channels: 3, requires_equal_dimensions: true}
    encoder: {type: timm, model_name: resnet18, use_pretrained: false}
    augmentation: [{type: random_rotate, degree: 5}, {type: radiograph_erasing, fill: noise, count: 3}]
output_features:
  - name: label
    type: category
    decoder: {type: mlp_classifier, weights_initializer: orthogonal, bias_initializer: zeros}
    loss: {type: softmax_cross_entropy, class_weights: {NORMAL: 1.0, PNEUMONIA: 0.5}}
combiner: {type: concat, fc_layers: [{output_size: 8}]}
preprocessing: {split: {type: fixed, column: split}}
backend: {type: ray, trainer: {num_workers: 2, resources_per_worker: {CPU: 2}}}
decisions: {coverage: 0.8, outliers: 0.95}
trainer:
  epochs: 6
  batch_size: 16
  learning_rate: 0.001
  gradient_clipping: {clipglobalnorm: 1.5}
  learning_rate_scheduler: {decay: linear, warmup_fraction: 0.5}
  optimizer: {type: sgd, momentum: 0.5}
hyperopt:
  metric: loss
  output_feature: label
  parameters:
    trainer.batch_size: {space: randint, lower: 8, upper: 33}
    trainer.learning_rate: {space: loguniform, lower: 1.0e-4, upper: 1.0e-2}
    trainer.epochs: {space: choice, categories: [4, 6]}
  search_alg: {type: optuna, seed: 3}
  executor: {num_samples: 4, scheduler: {type: async_hyperband, grace_period: 2}}
"""
VALUES: tuple[Any, ...] = (None, True, -1, 0, 3, 0.5, -0.5, 10**9, "x", "0.5", "auto", [], [1], ["x"], {}, {"x": 1})
EDITS = 160


@cache
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json_schema.build_json_schema())


def schema_problems(data: dict[str, Any]) -> list[str]:
    """What `pneumo config validate` says of keys and types."""
    return [str(problem) for problem in check_schema(Document("a.yaml", data, {(): 1}))]


def is_taken_silently(data: dict[str, Any]) -> bool:
    """True if `pneumo config validate` refuses nothing, and remarks nothing as completed, replaced or ignored."""
    try:
        experiment = config.build_experiment(Document("a.yaml", copy.deepcopy(data), {(): 1}), "a")
        if experiment.document.data.get("hyperopt") is not None:
            searched = space.read_space(experiment.document, "a")
            sweep_settings.read_settings(searched)
            searched.check()
    except InputError:
        return False
    return not experiment.remarks


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def edit(data: dict[str, Any], draw: random.Random) -> str:
    """Misspell, add, drop or replace one thing of a config; return what was done."""
    path = draw.choice(list(places(data)))
    parent: Any = data
    for key in path[:-1]:
        parent = parent[key]
    last, done = path[-1], draw.choice(["misspell", "add", "drop", "replace", "replace", "replace"])
    if done == "replace":
        parent[last] = copy.deepcopy(draw.choice(VALUES))
        return f"{path} = {parent[last]!r}"
    if not isinstance(parent, dict):
        return "nothing"
    if done == "misspell":
        parent[last[:-1] + "q"] = parent.pop(last)
    elif done == "add":
        options = [option.names[-1] for option in json_schema.list_options(json_schema.describe_schema())]
        parent[draw.choice([name for name in options if not name.startswith("<")])] = draw.choice(VALUES)
    else:
        del parent[last]
    return f"{done} {path}"


def test_the_schema_is_a_valid_one_of_2020_12() -> None:
    built = json_schema.build_json_schema()

    jsonschema.Draft202012Validator.check_schema(built)
    assert built["$schema"].endswith("2020-12/schema")


@pytest.mark.parametrize("name", [*CONFIGS, "rich"])
def test_what_validate_says_of_keys_and_types_the_json_schema_says_too(name: str) -> None:
    base, draw = yaml.safe_load(CONFIGS.get(name, RICH)), random.Random(name)
    assert schema_problems(base) == []
    validator().validate(base)
    assert is_taken_silently(base)
    refused = 0
    for _ in range(EDITS // (1 if name == "rich" else 6)):
        data = copy.deepcopy(base)
        done = " and ".join(edit(data, draw) for _ in range(draw.choice([1, 1, 2])))
        wrong, faults = schema_problems(data), [error.message for error in validator().iter_errors(data)]
        refused += bool(wrong)
        assert faults or not wrong, (done, wrong)  # a mark for each that validate refuses
        if faults and not wrong:
            assert not is_taken_silently(data), f"{done}: marked, but neither refused nor remarked: {faults}"
    assert refused > 10


@pytest.mark.parametrize(
    ("section", "is_marked"),
    [
        ({"conv_norm": "batch"}, False),  # a key of stacked_cnn, the default
        ({"network": "resnet18"}, True),
        ({"type": "backbone", "network": "resnet18"}, False),
        ({"type": "backbone", "conv_norm": "batch"}, True),
    ],
)
def test_a_section_without_a_type_has_the_keys_of_its_default(section: dict[str, Any], is_marked: bool) -> None:
    data = yaml.safe_load(RICH)
    data["input_features"][0]["encoder"] = section

    assert validator().is_valid(data) is not is_marked


def test_every_key_and_kind_is_described() -> None:
    options = list(json_schema.list_options(json_schema.describe_schema()))

    assert len(options) > 900
    assert [option.path for option in options if not option.schema.get("description")] == []
    assert [option.words for option in options if option.is_kind and "examples" not in option.schema] == []


def test_no_description_is_of_a_key_that_does_not_exist() -> None:
    text = importlib.resources.files("pneumo.pipeline.config").joinpath("descriptions.json").read_text("utf-8")
    options = list(json_schema.list_options(json_schema.describe_schema()))
    told = {option.schema["description"] for option in options}
    for key, value in json.loads(text)["keys"].items():
        assert (value if isinstance(value, str) else value["description"]) in told, key
    kinds = {option.words[-1] for option in options if option.is_kind}
    for key in json.loads(text)["kinds"]:
        assert key.split(".")[-1] in kinds, key


def test_what_ludwig_registers_and_pneumo_supports_is_offered() -> None:
    """Encoders, augmentations and losses of the installed Ludwig and ours; searches and spaces that a sweep takes."""
    words = {option.words[-2:] for option in json_schema.list_options(json_schema.describe_schema()) if option.is_kind}
    image = read_ludwig_schema()["properties"]["input_features"]["items"]["allOf"][0]["then"]["properties"]

    assert {("encoder", name) for name in image["encoder"]["properties"]["type"]["enum"]} <= words
    for section, name in {
        ("encoder", "ensemble"),
        ("augmentation", "radiograph_affine"),
        ("loss", "smoothed_binary_cross_entropy"),
        ("loss", "softmax_cross_entropy"),
        ("parameters", "qloguniform"),
        ("search_alg", "optuna"),
        ("scheduler", "async_hyperband"),
    }:
        assert (section, name) in words
    assert {name for section, name in words if section == "parameters"} == set(json_schema.list_spaces())


def test_the_policies_it_offers_are_policies() -> None:
    offered = json_schema.build_json_schema()["properties"]["decisions"]["properties"]["threshold"]

    assert [str(Policy.parse(text)) for text in offered["examples"]] == offered["examples"]
    assert str(Policy()) == offered["default"]
    assert len({re.split("[>=]", text)[0] for text in offered["examples"]}) == 5
