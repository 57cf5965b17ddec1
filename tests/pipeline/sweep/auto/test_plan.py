"""Plans of `pneumo sweep --auto`: choices by data, machine and budget, and their validity."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from pneumo.pipeline import config
from pneumo.pipeline.config.document import parse_document
from pneumo.pipeline.data.manifest import Dataset, DatasetInfo, Row, Split
from pneumo.pipeline.sweep import space, sweep_settings
from pneumo.pipeline.sweep.auto import cost, presets
from pneumo.pipeline.sweep.auto import plan as auto
from pneumo.pipeline.sweep.auto.plan import Hardware, Plan, to_yaml
from pneumo.pipeline.sweep.auto.presets import DECAY, LIGHT, MAX_LR
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.types import Fit
from tests.support.paths import CONFIGS

LAPTOP = Hardware(cores=2, memory_gib=24)
GPU_SERVER = Hardware(cores=16, memory_gib=128, gpus=4)
XRAYS = ("NORMAL", "PNEUMONIA")
MINUTE, HOUR = 60, 3600


def images(number: int, *, size: int = 224, classes: tuple[str, ...] = XRAYS) -> Dataset:
    """Make a data set of this many images, 70 / 15 / 15%."""
    splits = [Split.TRAIN] * 14 + [Split.VALIDATION] * 3 + [Split.TEST] * 3
    rows = [
        Row(f"images/{at}.png", classes[at % len(classes)], splits[at % 20], f"p{at}", "x.png", "0" * 64, size, size)
        for at in range(number)
    ]
    info = DatasetInfo(
        classes=list(classes),
        counts={},
        patients={},
        size=size,
        fit=Fit.SQUASH,
        split={},
        source="synthetic",
        skipped=[],
        fingerprint="0",
    )
    return Dataset(Path("data"), tuple(rows), info, {})


def planned(data: Dataset, budget: float, hardware: Hardware = LAPTOP, *, weights: bool = True, **given: Any) -> Plan:
    return auto.make_plan(data, hardware, budget=budget, weights=weights, **given)


def space_of(plan: Plan) -> space.Space:
    return space.read_space(parse_document(to_yaml(plan), "auto.yaml"), "auto")


def parameters(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = plan.config["hyperopt"]["parameters"]
    return found


def first_point(plan: Plan) -> dict[str, Any]:
    """Return the config of the first point."""
    searched = space_of(plan)
    return searched.experiment(searched.decode(plan.config["hyperopt"]["search_alg"]["points_to_evaluate"][0])).config


CASES = {
    "few": (images(80), 20 * MINUTE, LAPTOP, True),
    "few, no weights": (images(80), 20 * MINUTE, LAPTOP, False),
    "real": (images(5216), 30 * MINUTE, LAPTOP, True),
    "real, no weights": (images(5216), 4 * HOUR, LAPTOP, False),
    "real, a night": (images(5216), 10 * HOUR, LAPTOP, True),
    "28 px": (images(5000, size=28), 30 * MINUTE, LAPTOP, True),
    "28 px, no weights": (images(5000, size=28), 30 * MINUTE, LAPTOP, False),
    "28 px, three minutes": (images(5000, size=28), 4 * MINUTE, LAPTOP, True),
    "100 px": (images(3000, size=100), HOUR, LAPTOP, True),
    "many on GPUs": (images(40_000, size=512), 2 * HOUR, GPU_SERVER, True),
    "many on GPUs, no weights": (images(40_000, size=512), 4 * HOUR, GPU_SERVER, False),
    "three classes": (images(3000, classes=("COVID", "NORMAL", "PNEUMONIA")), HOUR, LAPTOP, True),
    "many cores, little memory": (images(3000), HOUR, Hardware(cores=64, memory_gib=8), True),
}

by_case = pytest.mark.parametrize(("data", "budget", "hardware", "weights"), CASES.values(), ids=CASES)


@by_case
def test_every_point_of_every_plan_is_a_valid_config(
    data: Dataset, budget: float, hardware: Hardware, weights: bool
) -> None:
    searched = space_of(planned(data, budget, hardware, weights=weights))

    config.build_experiment(searched.document, "auto")
    searched.check()
    found = sweep_settings.read_settings(searched)  # substitutes the known-good points too

    assert found.search == "optuna"
    assert found.scheduler == "async_hyperband"
    assert found.scheduler_options["max_t"] == searched.document.get(("trainer", "epochs"))


@by_case
def test_a_plan_survives_being_written_and_read(
    data: Dataset, budget: float, hardware: Hardware, weights: bool
) -> None:
    plan = planned(data, budget, hardware, weights=weights)

    text = to_yaml(plan)

    assert yaml.safe_load(text) == plan.config
    assert max(map(len, text.splitlines())) <= 140
    for reason in plan.reasons:
        assert " ".join(reason.text.split()[:4]) in text
    assert {("input_features", 0, "encoder"), ("trainer", "epochs")} <= {reason.path for reason in plan.reasons}


@by_case
def test_the_first_point_ends_in_half_of_the_budget_and_two_whole_trials_fit(
    data: Dataset, budget: float, hardware: Hardware, weights: bool
) -> None:
    plan = planned(data, budget, hardware, weights=weights)
    image = first_point(plan)["input_features"][0]
    met = cost.Images(len(data.select(Split.TRAIN)), len(data.select(Split.VALIDATION)), len(data.rows))

    seconds = cost.trial_seconds(image["encoder"], image["preprocessing"]["height"], met, plan.epochs, plan.share)

    assert cost.STARTUP + seconds <= budget / 2 + cost.STARTUP / 2
    assert plan.share.at_once * (budget - cost.STARTUP) / plan.trial_seconds >= 2
    assert plan.trials >= 2


@by_case
def test_no_plan_asks_for_more_than_there_is(data: Dataset, budget: float, hardware: Hardware, weights: bool) -> None:
    plan = planned(data, budget, hardware, weights=weights)
    executor = plan.config["hyperopt"]["executor"]

    assert executor["cpu_resources_per_trial"] * executor["max_concurrent_trials"] <= hardware.cores
    assert executor["gpu_resources_per_trial"] * executor["max_concurrent_trials"] <= hardware.gpus
    assert executor["time_budget_s"] == budget
    assert executor["num_samples"] == plan.trials


def test_thirty_minutes_on_two_cores_start_with_the_fine_tune_that_is_known_to_reach_0_998() -> None:
    plan = planned(images(5216), 30 * MINUTE)
    first = first_point(plan)

    image = first["input_features"][0]
    shipped = config.load_config(CONFIGS / "efficientnet_lite0.yaml").config
    assert image["encoder"] == {"type": "efficientnet_lite", "pretrained": True, "dropout": 0.2, "size": 128}
    assert image["augmentation"] == shipped["input_features"][0]["augmentation"]
    for key in ("batch_size", "optimizer", "learning_rate_scheduler"):
        assert first["trainer"][key] == shipped["trainer"][key]
    assert first["trainer"]["epochs"] >= 3
    assert plan.trial_seconds <= 8 * MINUTE
    assert plan.config["hyperopt"]["metric"] == "roc_auc + stress.auroc"
    assert plan.config["hyperopt"]["goal"] == "maximize"


def test_the_second_network_from_random_weights_is_that_of_the_baseline() -> None:
    baseline = config.load_config(CONFIGS / "baseline.yaml").config["input_features"][0]["encoder"]

    assert presets.make_cnns(128)[1] == baseline


def test_moderate_augmentation_is_that_of_the_recommended_config() -> None:
    shipped = config.load_config(CONFIGS / "recommended.yaml").config["input_features"][0]["augmentation"]

    assert shipped == presets.MODERATE


def test_images_are_never_enlarged_but_where_the_network_needs_it() -> None:
    for size, budget in itertools.product((64, 100, 128, 224), (30 * MINUTE, 20 * HOUR)):
        plan = planned(images(2000, size=size), budget)

        asked = parameters(plan).get("image.encoder.size", {"categories": []})["categories"]
        assert max([plan.config["input_features"][0]["preprocessing"]["height"], *asked]) <= size

    tiny = planned(images(2000, size=28), HOUR)
    assert tiny.config["input_features"][0]["preprocessing"]["height"] == 84
    assert "Enlarged from 28 px" in to_yaml(tiny)


def test_height_and_width_stay_equal_and_smaller_sizes_go_through_the_encoder() -> None:
    plan = planned(images(5216), 30 * MINUTE)

    image = plan.config["input_features"][0]["preprocessing"]
    assert image["height"] == image["width"] == max(parameters(plan)["image.encoder.size"]["categories"])
    assert not any(name.startswith("image.preprocessing") for name in parameters(plan))


def test_more_time_buys_more_trials_and_more_parameters_and_only_much_more_larger_images() -> None:
    short, long, night = (planned(images(5216), hours * HOUR) for hours in (0.5, 4, 24))

    assert short.trials < long.trials <= night.trials
    assert DECAY not in parameters(short)
    assert {DECAY, "image.encoder.dropout"} <= set(parameters(long))
    assert max(parameters(long)["image.encoder.size"]["categories"]) == 128
    assert max(parameters(night)["image.encoder.size"]["categories"]) > 128
    assert first_point(night)["input_features"][0]["encoder"]["size"] == 128


def test_few_images_also_try_frozen_features_and_small_batches() -> None:
    few, many = planned(images(200), HOUR), planned(images(5216), HOUR)

    assert parameters(few)["image.encoder.trainable"]["categories"] == [True, False]
    assert "image.encoder.trainable" not in parameters(many)
    assert min(parameters(few)["trainer.batch_size"]["categories"]) < 32
    assert few.epochs > many.epochs


def test_without_weights_networks_of_several_sizes_are_tried_from_random_weights() -> None:
    plan = planned(images(5216), HOUR, weights=False)

    kinds = [encoder["type"] for encoder in parameters(plan)["image.encoder"]["categories"]]
    assert kinds[:3] == ["stacked_cnn"] * 3
    assert first_point(plan)["input_features"][0]["encoder"]["type"] == "stacked_cnn"
    assert "pretrained" in next(r.text for r in plan.reasons if r.path == ("input_features", 0, "encoder"))


def test_a_larger_network_from_random_weights_joins_where_images_and_time_allow() -> None:
    large, small = (planned(images(n), 4 * HOUR, GPU_SERVER, weights=False) for n in (10_000, 600))

    assert presets.RESNET in parameters(large)["image.encoder"]["categories"]
    assert presets.RESNET not in parameters(small)["image.encoder"]["categories"]


def test_a_budget_for_nothing_is_refused_with_the_one_that_would_do() -> None:
    with pytest.raises(InputError, match=r"5 min is too little for 28,000 .* --time-budget (\d+)m") as refused:
        planned(images(40_000), 5 * MINUTE)
    enough = int(str(refused.value).rsplit(" ", 1)[1].removesuffix("m"))

    assert planned(images(40_000), enough * MINUTE).trials >= 2
    with pytest.raises(InputError):
        planned(images(40_000), (enough - 1) * MINUTE)


def test_several_classes_minimise_the_loss() -> None:
    plan = planned(images(3000, classes=("COVID", "NORMAL", "PNEUMONIA")), HOUR)

    assert plan.config["output_features"] == [{"name": "label", "type": "category"}]
    assert (plan.config["hyperopt"]["metric"], plan.config["hyperopt"]["goal"]) == ("loss", "minimize")


@pytest.mark.parametrize(
    ("classes", "positive"),
    [(XRAYS, "PNEUMONIA"), (("Effusion", "Normal"), "Effusion"), (("negative", "tb"), "tb"), (("cat", "dog"), "dog")],
)
def test_the_positive_class_is_the_one_that_is_not_healthy(classes: tuple[str, str], positive: str) -> None:
    plan = planned(images(1000, classes=classes), HOUR)

    assert plan.config["output_features"][0]["preprocessing"]["fallback_true_label"] == positive
    assert f"{positive} is assumed to be the positive class" in to_yaml(plan)


def test_gpus_get_a_trial_each_and_cores_are_shared_in_fours() -> None:
    on_gpus = planned(images(5216), HOUR, GPU_SERVER)
    on_cores = planned(images(5216), HOUR, Hardware(cores=16, memory_gib=64))
    little = planned(images(5216), HOUR, Hardware(cores=16, memory_gib=6))

    assert (on_gpus.share.cpus, on_gpus.share.gpus, on_gpus.share.at_once) == (4, 1, 4)
    assert (on_cores.share.cpus, on_cores.share.gpus, on_cores.share.at_once) == (4, 0, 4)
    assert little.share.at_once == 2
    assert on_gpus.trial_seconds < on_cores.trial_seconds


def test_a_frozen_network_costs_its_cached_views_and_not_its_epochs() -> None:
    met, share = cost.Images(train=1000, validation=100, total=1300), cost.Share(2, 0, 1)
    frozen = {"type": "efficientnet_lite", "trainable": False}

    seconds = {
        (views, epochs): cost.trial_seconds({**frozen, "cached_views": views}, 128, met, epochs, share) - cost.FIXED
        for views in (0, 2)
        for epochs in (2, 20)
    }

    assert seconds[2, 20] == seconds[2, 2] < seconds[0, 2]  # validation images pass once
    assert seconds[0, 20] > 5 * seconds[2, 20]
    assert cost.trial_seconds(frozen, 128, met, 20, share) == cost.trial_seconds(frozen, 128, met, 8, share)
    member = {"type": "ensemble", "members": [frozen], "trainable": False}
    assert cost.trial_seconds(member, 128, met, 20, share) > cost.trial_seconds(member, 128, met, 8, share)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("[!g]*.yaml")))
def test_a_search_around_a_shipped_config_keeps_what_it_states_and_starts_with_it(name: str) -> None:
    base = config.load_config(CONFIGS / f"{name}.yaml")

    plan = planned(images(5216), 12 * HOUR, base=base)
    searched = space_of(plan)
    searched.check()
    first = first_point(plan)

    assert sweep_settings.read_settings(searched).metric == base.config["trainer"]["validation_metric"]
    expected = base.config["input_features"][0]
    assert first["input_features"][0]["preprocessing"] == expected["preprocessing"]
    assert first["input_features"][0].get("augmentation", []) == expected.get("augmentation", [])
    stated = expected["encoder"]
    assert {key: first["input_features"][0]["encoder"][key] for key in stated} == stated
    assert first["output_features"] == base.config["output_features"]
    assert first["decisions"] == base.config["decisions"]
    assert first["trainer"] | {"epochs": 0} == base.config["trainer"] | {"epochs": 0}
    assert first["trainer"]["epochs"] <= base.config["trainer"]["epochs"]


def test_a_search_around_a_config_varies_the_rate_that_counts(tmp_path: Path) -> None:
    shipped = CONFIGS / "efficientnet_lite0.yaml"
    one_cycle = planned(images(5216), HOUR, base=config.load_config(shipped))
    linear = planned(
        images(5216), HOUR, base=config.load_config(shipped, ["trainer.learning_rate_scheduler={decay: linear}"])
    )

    assert MAX_LR in parameters(one_cycle)
    assert "trainer.learning_rate" not in parameters(one_cycle)
    assert "trainer.learning_rate" in parameters(linear)


def test_a_config_with_too_many_epochs_for_the_budget_gets_fewer_and_is_told_why() -> None:
    base = config.load_config(CONFIGS / "efficientnet_lite0.yaml", ["trainer.epochs=50"])

    plan = planned(images(5216), 30 * MINUTE, base=base)

    assert 2 <= plan.epochs < 10
    assert "efficientnet_lite0.yaml has 50 epochs" in to_yaml(plan)
    with pytest.raises(InputError, match="too little"):
        planned(images(5216), 5 * MINUTE, base=base)


def test_a_config_that_has_a_space_already_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "swept.yaml"
    path.write_text(to_yaml(planned(images(5216), HOUR)))

    with pytest.raises(InputError, match=r"swept\.yaml:\d+: --auto chooses the space itself"):
        planned(images(5216), HOUR, base=config.load_config(path))


@pytest.mark.lengthy
@pytest.mark.slow
def test_ludwig_itself_tries_the_known_good_points_first() -> None:
    """Through Ludwig's own executor and substitution, Ray Tune's Optuna, and back through pneumo's checks."""
    from pneumo.pipeline.ludwig import runtime

    runtime.load_ludwig()
    from ludwig.hyperopt.execution import RayTuneExecutor
    from ludwig.hyperopt.utils import substitute_parameters
    from ray.tune.search.optuna import OptunaSearch

    for weights in (True, False):
        plan = planned(images(5216), HOUR, weights=weights)
        section = plan.config["hyperopt"]
        spaces, decoders = RayTuneExecutor._get_search_space(RayTuneExecutor, section["parameters"])  # type: ignore[arg-type]
        search = OptunaSearch(points_to_evaluate=section["search_alg"]["points_to_evaluate"], seed=1)
        search.set_search_properties("roc_auc", "max", spaces)

        drawn = RayTuneExecutor.decode_values(search.suggest("first"), decoders)
        base: Any = {key: value for key, value in plan.config.items() if key != "hyperopt"}
        made = substitute_parameters(base, drawn)

        checked = config.build_experiment(parse_document(yaml.safe_dump(made), "made.yaml"), "made").config
        assert checked == first_point(plan)
        assert drawn["image.augmentation"] == LIGHT
