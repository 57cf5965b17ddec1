"""Configs of older Ludwig versions: pneumo's upgrade gives what Ludwig's does."""

import copy
from typing import Any

import pytest
import yaml

from pneumo.pipeline import config
from pneumo.pipeline.config.document import Document, parse_document
from pneumo.pipeline.config.draft import Draft
from pneumo.pipeline.config.upgrade import upgrade
from pneumo.serving.contracts.errors import InputError

BASE = """
input_features:
  - name: scan
    type: image
output_features:
  - name: label
    type: binary
"""
OLD = {
    "names of components": BASE.replace("type: image", "type: image\n    encoder: stacked_cnn")
    + "    decoder: regressor\n",
    "options beside the encoder": BASE.replace(
        "type: image",
        "type: image\n    encoder: stacked_cnn\n    conv_layers: [{num_filters: 8, bias: true}]\n    num_fc_layers: 2",
    ),
    "options of the decoder": BASE + "    fc_layers: [{output_size: 8}]\n    dropout: 0.2\n    num_fc_layers: 1\n",
    "biases": BASE.replace("type: image", "type: image\n    encoder: {type: stacked_cnn, conv_bias: false}"),
    "training": BASE + "training: {epochs: 3, eval_batch_size: 0, type: trainer}\ntrainer: {epochs: 9}\n",
    "scheduler": BASE + "trainer: {decay: true, decay_rate: 0.9, decay_steps: 5, staircase: true}\n",
    "no decay": BASE + "trainer: {decay: false, learning_rate_warmup_epochs: 2}\n",
    "plateau": BASE
    + "trainer: {reduce_learning_rate_on_plateau: true, reduce_learning_rate_on_plateau_patience: 3, "
    + "reduce_learning_rate_eval_metric: loss, learning_rate_scheduler: {reduce_on_plateau_patience: 4}}\n",
    "largest batch": BASE + "trainer: {increase_batch_size_on_plateau_max: 64}\n",
    "split": BASE + "preprocessing: {force_split: true, split_probabilities: [0.7, 0.1, 0.2]}\n",
    "stratified split": BASE + "preprocessing: {stratify: label, force_split: false}\n",
    "only probabilities": BASE + "preprocessing: {split_probabilities: [0.7, 0.1, 0.2]}\n",
    "preprocessing of types": BASE
    + "preprocessing: {image: {height: 32, width: 32}, text: {level: word}}\n"
    + "defaults: {image: {type: image, preprocessing: {width: 8, num_channels: 1}}}\n",
    "defaults": BASE.replace("type: image", "type: image\n    encoder: {type: stacked_cnn, out_channels: 4}")
    + "defaults: {image: {encoder: {type: stacked_cnn, out_channels: 9, num_conv_layers: 2}, augmentation: true, "
    + "decoder: {a: 1}}, number: {encoder: {}}, "
    + "binary: {loss: {type: focal}, preprocessing: {fallback_true_label: A}}}\n",
    "defaults of another type": BASE.replace("type: image", "type: image\n    encoder: {type: mlp_mixer}")
    + "defaults: {image: {encoder: {type: stacked_cnn, out_channels: 9}}}\n",
    "missing values": BASE.replace("type: image", "type: image\n    preprocessing: {missing_value_strategy: backfill}"),
    "class weights": BASE.replace("binary", "category")
    + "    loss: {type: softmax_cross_entropy, class_weights: 0.5}\n",
    "legacy encoder": BASE.replace("type: image", "type: image\n    encoder: {type: _resnet_legacy}"),
    "hyperopt": BASE
    + "hyperopt: {parameters: {training.learning_rate: {space: uniform, lower: 0.1, upper: 0.2}}, "
    + "sampler: {type: ray, num_samples: 4, search_alg: {type: optuna}, scheduler: {}}, executor: {type: serial}}\n",
    "search in the executor": BASE + "hyperopt: {parameters: {}, executor: {type: ray, search_alg: random}}\n",
    "bare hyperopt": BASE + "hyperopt: {parameters: {}, goal: minimize}\n",
    "empty hyperopt": BASE + "hyperopt: {}\n",
    "backend by name": BASE + "backend: local\n",
    "a newer version": BASE + "ludwig_version: 0.6.1\ntraining: {epochs: 3}\ntrainer: {decay: true}\n",
    "the version of a step": BASE + "ludwig_version: '0.5'\ntraining: {epochs: 3}\n",
    "today's form": BASE + "ludwig_version: 0.17.10\ntrainer: {epochs: 3}\npreprocessing: {split: {type: hash}}\n",
}


def upgraded(text: str) -> dict[str, Any]:
    draft = Draft(parse_document(text, "old.yaml"))
    upgrade(draft)
    return draft.document.data


@pytest.mark.lengthy
@pytest.mark.slow
@pytest.mark.parametrize("text", OLD.values(), ids=OLD.keys())
def test_an_old_config_becomes_what_ludwig_makes_of_it(ludwig: object, text: str) -> None:
    from ludwig.schema.model_types.utils import merge_with_defaults
    from ludwig.utils.backward_compatibility import upgrade_config_dict_to_latest_version

    theirs = merge_with_defaults(upgrade_config_dict_to_latest_version(yaml.safe_load(text)))
    ours = copy.deepcopy(upgraded(text))
    for each in (theirs, ours):
        each.pop("ludwig_version", None)
        each.pop("defaults", None)
        for feature in each["output_features"]:
            if feature.get("loss", {}).get("class_weights", 0) is None:
                del feature["loss"]["class_weights"]  # Ludwig states null for every loss
    if isinstance(theirs.get("backend"), str):
        theirs["backend"] = {"type": theirs["backend"]}  # a later step of Ludwig's

    assert ours == theirs


@pytest.mark.parametrize("text", OLD.values(), ids=OLD.keys())
def test_an_upgraded_config_stays_as_it_is(text: str) -> None:
    once = upgraded(text)

    assert upgraded(yaml.safe_dump(once, sort_keys=False)) == once


def test_an_error_names_the_line_in_which_a_moved_value_was_written() -> None:
    text = BASE + "training:\n  epoch: 3\ndefaults:\n  image:\n    preprocessing:\n      height: tall\n"

    with pytest.raises(InputError) as caught:
        config.build_experiment(parse_document(text, "old.yaml"), "old")

    assert str(caught.value).splitlines() == [
        "old.yaml:9: unknown key 'epoch' under trainer; did you mean 'epochs'?",
        "old.yaml:13: input_features.0.preprocessing.height must be a whole number or null, not 'tall'",
    ]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [("enocder: {type: stacked_cnn}", "enocder"), ("encoder: {type: stacked_cnn, out_chanels: 3}", "out_chanels")],
)
def test_a_misspelt_key_is_no_key_of_an_old_version(changes: str, wrong: str) -> None:
    with pytest.raises(InputError, match=f"unknown key '{wrong}' under input_features.0.*did you mean"):
        config.build_experiment(parse_document(BASE.replace("type: image", f"type: image\n    {changes}"), "x"), "x")


def test_any_section_of_a_wrong_type_is_left_to_the_schema() -> None:
    for section in ("training", "trainer", "preprocessing", "defaults", "hyperopt", "backend", "input_features"):
        for value in (None, 3, "text", [], [3, {}], {"type": 3}, {"image": 3}, {"encoder": [], "sampler": 3}):
            data = {**yaml.safe_load(BASE), section: value}
            upgrade(Draft(Document("any.yaml", data, {(): 1})))
