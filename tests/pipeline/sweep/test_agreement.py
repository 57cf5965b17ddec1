"""`pneumo config validate`, `pneumo sweep` and `ludwig hyperopt` agree on the parameters of a space."""

import copy
import json
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from pneumo.pipeline import config
from pneumo.pipeline.config.document import Document, parse_document
from pneumo.pipeline.sweep import space, sweep_settings
from pneumo.serving.contracts.errors import InputError
from tests.support.paths import CONFIGS

BASE = yaml.safe_load((CONFIGS / "smoke.yaml").read_text(encoding="utf-8"))
GOAL = {"goal": "maximize", "metric": "roc_auc", "output_feature": "label"}
RATE = "trainer.learning_rate_scheduler.max_lr"
AUGMENTATIONS = [[], [{"type": "random_brightness"}]]


@dataclass(frozen=True)
class Taken:
    """A parameter that is taken: its space, a value, where the value is put, and why Ludwig takes no such parameter."""

    name: str
    space: dict[str, Any]
    value: Any
    path: str
    unlike_ludwig: str = ""


@dataclass(frozen=True)
class Refused:
    """Parameters that are refused, the reason, and whether Ludwig takes them."""

    parameters: dict[str, dict[str, Any]]
    reason: str
    search: str = "variant_generator"
    ludwig_takes: bool = False


def choice(*values: Any) -> dict[str, Any]:
    return {"space": "choice", "categories": list(values)}


def ranged(kind: str, lower: float, upper: float, **more: float) -> dict[str, Any]:
    return {"space": kind, "lower": lower, "upper": upper, **more}


DROPOUT = ranged("uniform", 0.1, 0.4)
ENCODER = "input_features.0.encoder"
TAKEN = [
    Taken(RATE, ranged("uniform", 0.001, 0.01), 0.002, RATE),
    Taken(RATE, ranged("quniform", 0.001, 0.01, q=0.001), 0.003, RATE),
    Taken(RATE, ranged("loguniform", 0.001, 0.01), 0.002, RATE),
    Taken(RATE, ranged("loguniform", 0.001, 0.01, base=2), 0.002, RATE),
    Taken(RATE, ranged("qloguniform", 0.001, 0.01, q=0.001), 0.002, RATE),
    Taken(RATE, {"space": "randn", "mean": 0.01, "sd": 0.0001}, 0.01, RATE),
    Taken(RATE, {"space": "qrandn", "mean": 0.01, "sd": 0.0001, "q": 0.0001}, 0.01, RATE),
    Taken("trainer.batch_size", ranged("randint", 8, 12), 9, "trainer.batch_size"),
    Taken("trainer.batch_size", ranged("qrandint", 8, 32, q=8), 16, "trainer.batch_size"),
    Taken("trainer.batch_size", ranged("qrandint", 8, 12), 9, "trainer.batch_size"),
    Taken("trainer.batch_size", ranged("lograndint", 8, 64), 9, "trainer.batch_size"),
    Taken("trainer.batch_size", ranged("qlograndint", 8, 64, q=8), 16, "trainer.batch_size"),
    Taken("trainer.batch_size", choice(8, 16), 16, "trainer.batch_size"),
    Taken("trainer.batch_size", {"space": "grid_search", "values": [8, 16]}, 16, "trainer.batch_size"),
    Taken("trainer.optimizer.type", choice("adamw", "sgd"), "sgd", "trainer.optimizer.type"),
    Taken("trainer.optimizer", choice({"type": "adamw"}, {"type": "sgd"}), {"type": "adamw"}, "trainer.optimizer"),
    Taken("trainer.should_shuffle", choice(True, False), False, "trainer.should_shuffle"),
    Taken("trainer", choice({"epochs": 1}, {"epochs": 2, "batch_size": 8}), {"epochs": 2}, "trainer"),
    Taken("combiner", choice({"type": "concat", "dropout": 0.2}), {"dropout": 0.2, "type": "concat"}, "combiner"),
    Taken("image.encoder.fc_dropout", DROPOUT, 0.2, f"{ENCODER}.fc_dropout"),
    Taken("image.encoder", choice({"fc_dropout": 0.1}, {"fc_dropout": 0.2}), {"fc_dropout": 0.2}, ENCODER),
    Taken("image.encoder.fc_layers", choice([{"output_size": 8}], []), [], f"{ENCODER}.fc_layers"),
    Taken("image.augmentation", choice(*AUGMENTATIONS), AUGMENTATIONS[1], "input_features.0.augmentation"),
    Taken("label.loss.positive_class_weight", ranged("uniform", 1, 3), 2.0,
          "output_features.0.loss.positive_class_weight"),
    Taken("input_features.image.encoder.fc_dropout", DROPOUT, 0.2, f"{ENCODER}.fc_dropout"),
    Taken("defaults.binary.loss.positive_class_weight", ranged("uniform", 1, 3), 2.0,
          "output_features.0.loss.positive_class_weight"),
    Taken("image", choice({"encoder": {"fc_dropout": 0.1}}, {"augmentation": []}), {"augmentation": []},
          "input_features.0"),
    Taken("input_features", choice({"image": {"augmentation": []}}), {"image": {"augmentation": []}}, "input_features"),
    Taken(".", choice({"trainer": {"epochs": 1, "batch_size": 8}}), {"trainer": {"epochs": 1}}, "."),
    Taken(".", choice({"input_features": {"image": {"augmentation": []}}}),
          {"input_features": {"image": {"augmentation": []}}}, ".", "it takes that list for the config's own"),
    Taken(f"{ENCODER}.fc_dropout", DROPOUT, 0.2, f"{ENCODER}.fc_dropout", "its paths have no positions"),
    Taken("output_features.0.loss.positive_class_weight", ranged("uniform", 1, 3), 2.0,
          "output_features.0.loss.positive_class_weight", "its paths have no positions"),
    Taken(f"{ENCODER}.conv_layers.0.out_channels", choice(8, 16), 8, f"{ENCODER}.conv_layers.0.out_channels",
          "its paths have no positions"),
]  # fmt: skip
REFUSED = [
    Refused({"trainer.learning_rte": DROPOUT}, "unknown key 'learning_rte'"),
    Refused({"imge.encoder.fc_dropout": DROPOUT}, "unknown top-level key 'imge'"),
    Refused({f"{ENCODER}.conv_layers.9.out_channels": choice(8)}, "is a list of"),
    Refused({"input_features.3.encoder.fc_dropout": DROPOUT}, "is a list of 1, without 3"),
    Refused({"trainer.epochs.most": choice(8)}, "holds no keys"),
    Refused({"trainer": {"space": "sample_from"}}, "'sample_from'; choose from"),
    Refused({"trainer.batch_size": {"space": "int", "lower": 8, "upper": 9}}, "'int'; choose from"),
    Refused({RATE: {"space": "uniform", "lower": 0.001}}, "needs 'upper'"),
    Refused({RATE: ranged("quniform", 0.001, 0.01)}, "needs 'q'"),
    Refused({RATE: ranged("quniform", 0.001, 0.01, q=0.004)}, "no multiple of q"),
    Refused({RATE: {"space": "qrandn", "q": 0.001}}, "needs 'mean'"),
    Refused({RATE: {"space": "randn", "mean": 0.01, "sd": 0}}, "not above 0"),
    Refused({RATE: {"space": "choice", "categories": []}}, "needs 'categories', a list"),
    Refused({RATE: {"space": "grid_search", "values": [0.1]}}, "is a grid", search="optuna"),
    Refused({RATE: {"space": "grid_search", "values": [0.1]}}, "is a grid", search="hyperopt"),
    Refused({RATE: {"space": "randn", "mean": 0.01, "sd": 0.0001}}, "normal distribution", search="optuna"),
    Refused({"trainer.batch_size": ranged("qlograndint", 8, 64, q=8)}, "with steps", search="optuna"),
    Refused({RATE: ranged("qloguniform", 0.001, 0.01, q=0.001)}, "with steps", search="optuna", ludwig_takes=True),
    Refused({"trainer.batch_size": ranged("qrandint", 5, 12, q=4)}, "no multiple of q", ludwig_takes=True),
    Refused({"trainer.batch_size": choice(8, 8)}, "twice", ludwig_takes=True),
    Refused({"hyperopt.goal": choice("maximize")}, "cannot be varied", ludwig_takes=True),
    Refused({"defaults.image.encoder.fc_dropout": DROPOUT}, "has no effect", ludwig_takes=True),
    Refused({"combiner.dropout": DROPOUT}, "missing key 'type'", ludwig_takes=True),  # its trials fail
    Refused({"backend.type": choice("local")}, "cannot be varied"),
    Refused({"trainer.batch_size": ranged("randint", 0, 12)}, "batch_size", ludwig_takes=True),
    Refused({".": choice({"input_features": {"imge": {"augmentation": []}}})}, "which input_features lacks"),
    Refused({".": choice(1, 2)}, "no mapping of sections"),
    Refused({"image.encoder.fc_dropout": DROPOUT, f"{ENCODER}.fc_dropout": DROPOUT}, "is another name of"),
    Refused({"image.encoder.fc_dropout": DROPOUT, "input_features.image.encoder.fc_dropout": DROPOUT},
            "is another name of", ludwig_takes=True),
]  # fmt: skip


def make_document(parameters: dict[str, Any], search: str = "variant_generator") -> Document:
    section = {**GOAL, "parameters": parameters, "search_alg": {"type": search}, "executor": {"type": "ray"}}
    return parse_document(yaml.safe_dump({**BASE, "hyperopt": section}), "f.yaml")


@pytest.mark.parametrize("taken", TAKEN, ids=lambda taken: f"{taken.name}-{taken.space['space']}")
def test_a_parameter_that_is_taken_is_validated_drawn_and_written(taken: Taken) -> None:
    from pneumo.pipeline.sweep import tune_setup

    document = make_document({taken.name: taken.space})
    config.build_experiment(document, "f", [sweep_settings.check_search])  # as validate and sweep do
    searched = space.read_space(document, "f")
    tune_setup.make_domains(searched)  # raises what Ray Tune cannot draw
    experiment = searched.experiment({taken.name: taken.value})
    if isinstance(taken.value, dict):
        assert contains(experiment.config if taken.path == "." else experiment.document.get(taken.path), taken.value)
    else:
        assert experiment.document.get(taken.path) == taken.value
    best = config.build_experiment(parse_document(experiment.to_yaml(), "best.yaml"), "best")
    assert best.config == experiment.config


def contains(value: Any, part: Any) -> bool:
    """Return True if a mapping has all values of another; a list of features is taken as a mapping by name."""
    if isinstance(part, dict):
        mapping = {item["name"]: item for item in value} if isinstance(value, list) else value
        return all(contains(mapping[key], item) for key, item in part.items())
    return bool(value == part)


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: f"{next(iter(refused.parameters))}-{refused.reason}")
def test_a_parameter_that_is_refused_has_its_line_and_a_reason(refused: Refused) -> None:
    with pytest.raises(InputError) as caught:
        config.build_experiment(make_document(refused.parameters, refused.search), "f", [sweep_settings.check_search])
    assert refused.reason in str(caught.value)
    assert str(caught.value).startswith("f.yaml:")


@pytest.mark.lengthy
@pytest.mark.slow
def test_ludwig_takes_the_same_parameters_and_puts_values_at_the_same_places(ludwig: object) -> None:
    from ludwig.hyperopt.utils import substitute_parameters

    for taken in TAKEN:
        document = make_document({taken.name: taken.space})
        assert ludwig_takes(document) is not bool(taken.unlike_ludwig), taken
        if not taken.unlike_ludwig:
            changed: Any = copy.deepcopy(document.data)
            theirs = substitute_parameters(changed, {taken.name: taken.value})
            assert space.substitute(document, {taken.name: taken.value}).data == theirs, taken
    for refused in REFUSED:
        assert ludwig_takes(make_document(refused.parameters, refused.search)) is refused.ludwig_takes, refused


def ludwig_takes(document: Document) -> bool:
    """Return True if Ludwig's checks, Ray Tune's functions and the search algorithm take a space."""
    from ludwig.hyperopt.execution import RayTuneExecutor
    from ludwig.schema.model_types.base import ModelConfig
    from ray.tune.search.hyperopt import HyperOptSearch
    from ray.tune.search.optuna import OptunaSearch

    data = json.loads(json.dumps(document.data))
    try:
        settings = ModelConfig.from_dict(data).to_dict()["hyperopt"]
        domains, _ = RayTuneExecutor._get_search_space(RayTuneExecutor, settings["parameters"])  # type: ignore[arg-type]
        kind = settings["search_alg"]["type"]
        searches: dict[str, Any] = {"optuna": OptunaSearch, "hyperopt": HyperOptSearch}
        if kind in searches:
            searches[kind](space=searches[kind].convert_search_space(domains), metric="value", mode="max")
    except Exception:
        return False
    return True
