import pytest

from pneumo.pipeline.sweep.parameter_format import axes, label, number, short_names
from pneumo.serving.contracts.quantities import format_duration


def test_a_short_name_is_as_long_as_it_takes_to_tell_it_from_others() -> None:
    names = ["trainer.learning_rate", "image.encoder.dropout", "combiner.dropout", "."]
    assert short_names(names) == {
        "trainer.learning_rate": "learning_rate",
        "image.encoder.dropout": "encoder.dropout",
        "combiner.dropout": "combiner.dropout",
        ".": "whole config",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00123456, "0.001235"),
        (32, "32"),
        (True, "true"),
        (None, "null"),
        ("a\nb", "a b"),
        ({"type": "efficientnet_lite", "size": 0}, "efficientnet_lite size 0"),
        ([{"type": "random_rotate", "degree": 10}, {"type": "noise"}], "[random_rotate degree 10, noise]"),
        ({"encoder": {"type": "a", "size": 2}}, "encoder (a size 2)"),
        ({}, "{}"),
        ([], "[]"),
    ],
)
def test_any_value_has_a_short_text(value, text) -> None:
    assert label(value) == text


def test_a_long_value_is_cut() -> None:
    assert len(label({"type": "x", "layers": list(range(100))})) <= 40


def test_values_that_look_alike_once_cut_stay_apart(synthesise_sweep) -> None:
    long = [{"layers": [1] * 50 + [last]} for last in (1, 2)]
    sweep = synthesise_sweep(0, space={"a": {"space": "choice", "categories": long}})
    labels = axes(sweep)[0].labels
    assert len(set(labels)) == 2


def test_true_and_one_are_different_values_but_one_and_its_float_are_not(synthesise_sweep) -> None:
    axis = axes(synthesise_sweep(0, space={"a": {"space": "choice", "categories": ["x", True, 1]}}))[0]
    assert [axis.place(value) for value in ("x", True, 1, 1.0, "1")] == [0, 1, 2, 2, None]


def test_numbers_among_categories_stand_in_order(synthesise_sweep) -> None:
    axis = axes(synthesise_sweep(0, space={"a": {"space": "grid_search", "values": [64, 16, 32]}}))[0]
    assert axis.categories == (16, 32, 64)
    assert axis.ordered


def test_a_category_that_only_a_trial_has_is_shown_too(synthesise_sweep) -> None:
    sweep = synthesise_sweep(1)
    sweep.trials[0].parameters["image.encoder.norm"] = "layer"
    axis = next(axis for axis in axes(sweep) if axis.name == "image.encoder.norm")
    assert axis.text("layer") == "layer"
    assert axis.labels == ("batch", "null", "layer")


def test_a_parameter_that_is_in_no_space_is_shown_too(synthesise_sweep) -> None:
    sweep = synthesise_sweep(2)
    for index, trial in enumerate(sweep.trials):
        trial.parameters["extra"] = index
    assert axes(sweep)[-1].kind == "linear"


@pytest.mark.parametrize(
    ("space", "kind", "low", "high"),
    [
        ({"space": "uniform", "lower": 0, "upper": 1}, "linear", 0, 1),
        ({"space": "quniform", "lower": 0, "upper": 1, "q": 0.1}, "linear", 0, 1),
        ({"space": "loguniform", "lower": 1e-4, "upper": 1}, "log", 1e-4, 1),
        ({"space": "qloguniform", "lower": 1e-4, "upper": 1, "q": 1e-4, "base": 2}, "log", 1e-4, 1),
        ({"space": "randn", "mean": 1, "sd": 2}, "linear", None, None),
        ({"space": "qrandn", "mean": 1, "sd": 2, "q": 0.5}, "linear", None, None),
        ({"space": "randint", "lower": 1, "upper": 5}, "linear", 1, 4),
        ({"space": "qrandint", "lower": 2, "upper": 8, "q": 2}, "linear", 2, 8),
        ({"space": "lograndint", "lower": 1, "upper": 100}, "log", 1, 99),
        ({"space": "qlograndint", "lower": 8, "upper": 128, "q": 8}, "log", 8, 128),
        ({"space": "no such"}, "linear", None, None),
        ("nonsense", "linear", None, None),
    ],
)
def test_every_space_of_ludwig_has_an_axis(synthesise_sweep, space, kind, low, high) -> None:
    sweep = synthesise_sweep(0, space={})
    sweep.space = {"a": space}
    axis = axes(sweep)[0]
    assert (axis.kind, axis.low, axis.high) == (kind, low, high)


def test_a_log_axis_that_a_trial_left_below_zero_becomes_linear(synthesise_sweep) -> None:
    sweep = synthesise_sweep(1)
    sweep.trials[0].parameters["trainer.learning_rate"] = 0.0
    assert axes(sweep)[0].kind == "linear"


def test_numbers_and_times_read_well() -> None:
    assert [number(value) for value in (0.98765, 0.0012345, 1e-5, 12345.6, 0.0, None, float("nan"))] == [
        "0.988",
        "0.00123",
        "1.00e-05",
        "1.23e+04",
        "0.000",
        "-",
        "-",
    ]
    assert [format_duration(value) for value in (3.21, 42.4, 59.9, 200, 7500, None)] == [
        "3.2 s",
        "42 s",
        "1 min 00 s",
        "3 min 20 s",
        "2 h 05 min",
        "-",
    ]
