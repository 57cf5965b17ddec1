import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.pipeline.config.document import Document, parse_document
from pneumo.pipeline.sweep import space
from pneumo.pipeline.sweep.space import Parameter, Space
from pneumo.serving.contracts.errors import InputError
from tests.support.paths import CONFIGS

BASELINE = (CONFIGS / "baseline.yaml").read_text(encoding="utf-8").replace("{decay: one_cycle, max_lr: 0.001}", "{}")


def document(parameters: str, base: str = BASELINE) -> Document:
    lines = "".join(f"    {line}\n" for line in parameters.splitlines())
    return parse_document(f"{base}hyperopt:\n  parameters:\n{lines}", "f.yaml")


def read(parameters: str, base: str = BASELINE) -> Space:
    return space.read_space(document(parameters, base), "f")


def line_of(parameters: str, text: str) -> int:
    whole = f"{BASELINE}hyperopt:\n  parameters:\n{parameters}"
    return next(number for number, line in enumerate(whole.splitlines(), 1) if text in line)


RATE = "trainer.learning_rate: {space: loguniform, lower: 0.0001, upper: 0.01}"


def test_a_good_space_is_accepted_and_substituted() -> None:
    asked = read(f"{RATE}\nimage.encoder.fc_layers: {{space: choice, categories: [[{{output_size: 8}}], []]}}")
    asked.check()
    experiment = asked.experiment({"trainer.learning_rate": 0.002, "image.encoder.fc_layers": [{"output_size": 8}]})
    assert experiment.config["trainer"]["learning_rate"] == 0.002
    assert experiment.config["input_features"][0]["encoder"]["fc_layers"] == [{"output_size": 8}]
    assert "hyperopt" not in experiment.config


def test_the_config_itself_stays_as_it_was() -> None:
    asked = read(RATE)
    before = json.dumps(asked.document.data)
    asked.experiment({"trainer.learning_rate": 0.002})
    assert json.dumps(asked.document.data) == before


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("image.encoder.droput: {space: uniform, lower: 0.1, upper: 0.2}", "unknown key 'droput'"),
        ("trainer.learning_rate: {space: uniform, lower: 0.1, upper: 5}", "at most 1"),
        ("trainer.batch_size: {space: choice, categories: [32, many]}", "batch_size"),
        ("trainer.learning_rate: {space: uniform, lower: 0.2, upper: 0.1}", "'lower' must be less than 'upper'"),
        ("trainer.learning_rate: {space: loguniform, lower: 0, upper: 0.1}", "'lower' must be more than 0"),
        ("trainer.learning_rate: {space: loguniform, lower: 1e-4, upper: 0.1}", "YAML reads it as text"),
        ("trainer.learning_rate: {space: loguniform, upper: 0.1}", "needs 'lower'"),
        ("trainer.learning_rate: {space: normal, lower: 0, upper: 0.1}", "choose from choice, grid_search, uniform"),
        ("trainer.learning_rate: {space: uniform, low: 0, upper: 0.1}", "unknown key 'low'"),
        ("trainer: {learning_rate: {space: uniform, lower: 0.1, upper: 0.2}}", "trainer.learning_rate: {space: ...}"),
    ],
)
def test_a_wrong_parameter_is_refused_with_its_line_and_the_fix(parameters: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(parameters).check()
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"f.yaml:{line_of(parameters, parameters[:12])}: ")


def test_a_rate_that_one_cycle_ignores_is_refused() -> None:
    base = (CONFIGS / "baseline.yaml").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="max_lr instead"):
        read(RATE, base).check()
    read("trainer.learning_rate_scheduler.max_lr: {space: loguniform, lower: 0.0001, upper: 0.01}", base).check()


def test_a_parameter_that_nothing_reads_is_found_before_a_trial_starts() -> None:
    asked = read(
        "image.encoder: {space: choice, categories: [{type: efficientnet_lite, pretrained: false}]}\n"
        "image.encoder.fc_layers: {space: choice, categories: [[{output_size: 8}], []]}"
    )
    with pytest.raises(InputError, match="fc_layers has no effect"):
        asked.check()


def test_another_type_of_encoder_drops_what_only_the_first_one_knows() -> None:
    asked = read(RATE)
    encoder = asked.experiment({"image.encoder": {"type": "efficientnet_lite", "pretrained": False}}).config[
        "input_features"
    ][0]["encoder"]
    assert encoder == {"type": "efficientnet_lite", "pretrained": False}


def test_a_grid_has_as_many_points_as_its_lists_make() -> None:
    asked = read(
        "trainer.batch_size: {space: grid_search, values: [16, 32, 64]}\n"
        "trainer.epochs: {space: grid_search, values: [1, 2]}\n" + RATE
    )
    assert asked.grid == 6


SCALARS = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.none())
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2)
)


@given(st.lists(VALUES, min_size=1, max_size=5, unique_by=lambda value: json.dumps(value, sort_keys=True)))
def test_what_goes_out_to_a_search_comes_back_as_it_was(values: list[object]) -> None:
    parameter = Parameter("x", "choice", {"categories": values})
    assert parameter.encoded is not None
    for value, encoded in zip(values, parameter.encoded, strict=True):
        if len({json.dumps(each) for each in parameter.encoded}) == len(values):
            assert parameter.decode(encoded) == value


@given(st.integers(0, 2**32))
def test_draws_stay_inside_their_range(seed: int) -> None:
    source = random.Random(seed)
    for kind, options in (
        ("uniform", {"lower": 0.1, "upper": 0.4}),
        ("quniform", {"lower": 0.1, "upper": 0.4, "q": 0.25}),
        ("loguniform", {"lower": 1e-5, "upper": 1.0}),
        ("randint", {"lower": 1, "upper": 3}),
        ("qlograndint", {"lower": 1, "upper": 64, "q": 8}),
    ):
        parameter = Parameter("x", kind, options)
        low, high = parameter.ends()
        assert low <= parameter.draw(source) <= high
