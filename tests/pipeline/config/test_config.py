import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pneumo.pipeline import config
from pneumo.pipeline.config.document import Document, parse_document
from pneumo.pipeline.decisions import DecisionRules, Policy
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.preparation import Storage
from tests.support.paths import ROOT

CONFIGS = sorted((ROOT / "ludwig_configs").glob("[!g]*.yaml"))  # gate.yaml is no config
SMOKE = ROOT / "ludwig_configs" / "smoke.yaml"


def error_of(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        config.load_config(file)
    return str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_passes(path: Path) -> None:
    experiment = config.load_config(path)

    assert experiment.image == "image"
    assert experiment.label == "label"


@pytest.mark.parametrize(
    ("find", "replace", "line", "message"),
    [
        ("epochs: 25", "epoch: 15", 29, "unknown key 'epoch' under trainer; did you mean 'epochs'?"),
        ("epochs: 25", "epochs: many", 29, "trainer.epochs must be a whole number, not 'many'"),
        ("epochs: 25", "epochs: 0", 29, "trainer.epochs is 0; the least is 1"),
        ("learning_rate: 0.002", "learning_rate: 5", 32, "trainer.learning_rate is 5; it must be above 0"),
        ("learning_rate: 0.002", "learning_rate: 2e-3", 32, "YAML reads it as text; write 2.0e-3"),
        ("learning_rate: 0.002", 'learning_rate: "0.002"', 32, "the quotes make it text; write 0.002"),
        ("type: adamw", "type: adamq", 33, "trainer.optimizer.type is 'adamq'; did you mean 'adam"),
        ("weight_decay", "weigth_decay", 33, "did you mean 'weight_decay'?"),
        ("      type: stacked_cnn", "      type: stacked_cnnn", 7, "did you mean 'stacked_cnn'?"),
        ("num_channels: 1", "num_channels: 4", 5, "num_channels must be 1, or 3"),
        ("{output_size: 32,", "{output_size: 0,", 13, "output_size is 0; the least is 1"),
        ("weight_decay: 0.01", "weight_decay: .nan", 33, "must be a finite number"),
        ("  early_stop: -1", "  early_stop: -1\n  validation_metric: auc", 31, "did you mean 'roc_auc'?"),
        ("trainer:", "trainers:", 23, "did you mean 'trainer'?"),
        ("    type: binary", "    type: numbr", 19, "output_features.0.type is 'numbr'"),
    ],
)
def test_a_wrong_config_is_one_line_with_file_line_and_fix(
    tmp_path: Path, find: str, replace: str, line: int, message: str
) -> None:
    text = SMOKE.read_text(encoding="utf-8")
    assert text.count(find) == 1
    expected_line = text[: text.index(find)].count("\n") + 1

    error = error_of(tmp_path, text.replace(find, replace))

    assert message in error
    assert "\n" not in error
    place = re.match(r"mine\.yaml:(\d+): ", error)
    assert place
    assert abs(int(place[1]) - expected_line) <= 1


def test_an_error_names_the_line_of_the_key(tmp_path: Path) -> None:
    text = SMOKE.read_text(encoding="utf-8").replace("  batch_size: 32", "  batch_size: 32\n  batchsize: 3")
    line = text.splitlines().index("  batchsize: 3") + 1

    assert error_of(tmp_path, text).startswith(f"mine.yaml:{line}: unknown key 'batchsize'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.yaml:1: a config is a mapping"),
        ("- 1", "mine.yaml:1: a config is a mapping"),
        ("a: [", "mine.yaml:2: cannot be read as YAML: a value is missing, or a bracket is not closed"),
        (
            "input_features: &a [*a]\noutput_features: []",
            "mine.yaml:1: cannot be read as YAML: an anchor that contains itself",
        ),
        ("a: " + "[" * 3000, "mine.yaml:1: cannot be read as YAML: nested deeper than 100 levels"),
        ("a: 1\na: 2", "mine.yaml:2: duplicate key 'a'; the first is in line 1"),
        ("a: !!python/object:os.system 1", "mine.yaml:1: cannot be read as YAML"),
        ("input_features: []", "mine.yaml:1: missing top-level key 'output_features'"),
        ("input_features: {}\noutput_features: []", "input_features must be a list"),
        ("input_features: []\noutput_features: []", "must hold exactly one feature, one image; it holds 0"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in error_of(tmp_path, text)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such file"):
        config.load_config(Path("nowhere.yaml"))


def test_a_key_in_the_wrong_place_is_told_where_it_belongs(tmp_path: Path) -> None:
    error = error_of(tmp_path, SMOKE.read_text(encoding="utf-8") + "epochs: 3\n")

    assert "unknown top-level key 'epochs'; it belongs under trainer" in error


def test_overrides_replace_values_and_are_named_in_errors() -> None:
    experiment = config.load_config(SMOKE, ["trainer.epochs=2", "input_features.0.preprocessing.height=96"])
    assert experiment.config["trainer"]["epochs"] == 2
    assert experiment.preparation(Storage(size=224)).height == 96

    with pytest.raises(InputError, match=r"^-o trainer\.epochs: trainer\.epochs is 0"):
        config.load_config(SMOKE, ["trainer.epochs=0"])


@pytest.mark.parametrize("assignment", ["trainer.epochs", "=3", "input_features.7.name=x", "trainer.epochs.x=1", "a=["])
def test_an_override_that_cannot_be_is_refused(assignment: str) -> None:
    with pytest.raises(InputError, match=r"^-o "):
        config.load_config(SMOKE, [assignment])


def test_what_pneumo_decides_is_written_into_the_resolved_config() -> None:
    resolved = yaml.safe_load(config.load_config(SMOKE).to_yaml())

    assert resolved["trainer"]["eval_batch_size"] == resolved["trainer"]["batch_size"]
    assert resolved["trainer"]["validation_metric"] == "roc_auc"
    assert resolved["trainer"]["evaluate_training_set"] is False


def test_a_resolved_config_resolves_to_itself(tmp_path: Path) -> None:
    again = tmp_path / "config.yaml"
    again.write_text(config.load_config(SMOKE).to_yaml(), encoding="utf-8")

    assert config.load_config(again).to_yaml() == again.read_text(encoding="utf-8")


DECIDED = "decisions:\n  threshold: 'sensitivity >= 0.95'\n  coverage: 0.8\n  outliers: 0.95\n"


def test_the_decisions_of_a_config_are_read_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(SMOKE.read_text(encoding="utf-8") + DECIDED, encoding="utf-8")

    experiment = config.load_config(file, ["decisions.coverage=0.85"])

    assert experiment.decisions == DecisionRules(Policy("sensitivity", 0.95), 0.85, 0.95)
    resolved = yaml.safe_load(experiment.to_yaml())
    expected = {"threshold": "sensitivity >= 0.95", "coverage": 0.85, "outliers": 0.95, "fit_on": "validation"}
    assert resolved["decisions"] == expected
    shifts = config.load_config(SMOKE, ["decisions.fit_on=shifts"])
    assert shifts.decisions == DecisionRules(fit_on="shifts")
    assert shifts.config["decisions"]["fit_on"] == "shifts"


def test_a_config_that_is_silent_about_decisions_says_the_defaults_once_resolved() -> None:
    resolved = yaml.safe_load(config.load_config(SMOKE).to_yaml())

    expected = {"threshold": "max balanced accuracy", "coverage": 0.9, "outliers": 0.97, "fit_on": "validation"}
    assert resolved["decisions"] == expected


@pytest.mark.parametrize(
    ("find", "replace", "line", "message"),
    [
        ("threshold", "treshold", 1, "unknown key 'treshold' under decisions; did you mean 'threshold'?"),
        ("sensitivity >= 0.95", "sensitivity > 0.95", 1, "decisions.threshold 'sensitivity > 0.95': not a rule; write"),
        ("sensitivity >= 0.95", "sensitivity >= 95", 1, "the floor must be above 0 and at most 1"),
        ("sensitivity >= 0.95", "cost FN:FP = 5:0", 1, "both costs must be above 0"),
        ("'sensitivity >= 0.95'", "0.95", 1, "decisions.threshold must be text, not 0.95"),
        ("0.8", "80", 2, "decisions.coverage is 80; it must be less than 1"),
        ("0.8", "'80 %'", 2, "decisions.coverage must be a number, not '80 %'"),
        ("outliers: 0.95", "outliers: 0", 3, "decisions.outliers is 0; it must be more than 0"),
        ("outliers: 0.95", "fit_on: shift", 3, "decisions.fit_on is 'shift'; did you mean 'shifts'?"),
        ("outliers: 0.95", "fit_on: shifts", 3, "under changes the threshold must trade both errors; write 'max bal"),
        ("decisions:", "decision:", 0, "unknown top-level key 'decision'; did you mean 'decisions'?"),
    ],
)
def test_a_wrong_decision_is_one_line_with_file_line_and_fix(
    tmp_path: Path, find: str, replace: str, line: int, message: str
) -> None:
    text = SMOKE.read_text(encoding="utf-8")
    assert DECIDED.count(find) == 1

    error = error_of(tmp_path, text + DECIDED.replace(find, replace))

    assert message in error
    assert "\n" not in error
    assert error.startswith(f"mine.yaml:{text.count(chr(10)) + 1 + line}: ")


def test_a_decision_on_the_command_line_is_named_in_the_error() -> None:
    with pytest.raises(InputError, match=r"^-o decisions\.threshold: decisions\.threshold 'best': not a rule"):
        config.load_config(SMOKE, ["decisions.threshold=best"])


def test_a_threshold_for_more_than_two_classes_is_refused() -> None:
    label = "output_features=[{name: label, type: category}]"

    with pytest.raises(InputError, match="is for a binary label; leave it out"):
        config.load_config(SMOKE, [label, "decisions.threshold=max accuracy"])
    assert "threshold" not in config.load_config(SMOKE, [label, "decisions.coverage=0.8"]).config["decisions"]


def test_hyperopt_sections_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    text = SMOKE.read_text(encoding="utf-8") + (
        "hyperopt:\n  goal: maximize\n  metric: roc_auc\n  output_feature: label\n  parameters:\n"
        "    trainer.learning_rate: {space: loguniform, lower: 0.0001, upper: 0.01}\n"
        "  executor: {type: ray, num_samples: 4}\n"
    )
    file.write_text(text, encoding="utf-8")

    assert config.load_config(file).config["hyperopt"]["goal"] == "maximize"


@given(st.text(max_size=200))
def test_any_text_is_a_document_or_an_input_error(text: str) -> None:
    try:
        document = parse_document(text, "any.yaml")
    except InputError as error:
        assert str(error).startswith("any.yaml")
    else:
        assert isinstance(document, Document)


def test_the_stored_schema_is_that_of_the_installed_ludwig(ludwig: object) -> None:
    from pneumo.pipeline.ludwig import schema_extract

    assert schema_extract.TARGET.read_text(encoding="utf-8") == schema_extract.text(), "run `make schema`"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_ludwig_accepts_every_shipped_config_as_it_is(ludwig: object, path: Path) -> None:
    from ludwig.schema.model_types.base import ModelConfig

    loaded = ModelConfig.from_dict(yaml.safe_load(path.read_text(encoding="utf-8")))

    assert loaded.input_features[0].type == "image"


def test_ludwig_passes_over_the_decisions(ludwig: object) -> None:
    from ludwig.api import LudwigModel

    resolved = yaml.safe_load(config.load_config(SMOKE, ["decisions.threshold=max accuracy"]).to_yaml())

    model = LudwigModel(resolved)

    assert "decisions" in resolved
    assert "decisions" not in model.config
