"""A search around a config that a person has: what it states stays, what it leaves open is searched."""

import copy
from typing import Any

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.config.rules import component_rules
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.sweep.auto import cost, presets
from pneumo.pipeline.sweep.auto.cost import Images, Share
from pneumo.pipeline.sweep.auto.plan_builder import Draft, Plan, between, choice, fits, too_little
from pneumo.pipeline.sweep.auto.presets import BATCH, DECAY, LIGHT, MAX_LR, MODERATE, NONE, RATE

FULL_TRIALS = 4
"""Trials that should fit from beginning to end."""

_LEAST_EPOCHS, _LEAST_SIDE = 2, 64


def plan_from_config(base: Experiment, dataset: Dataset, images: Images, budget: float, given: Share) -> Plan:
    """Search around a config.

    Args:
        base: The config; its own values are the first point that is tried.
        dataset: What is trained on.
        images: How many there are.
        budget: Seconds for the whole sweep.
        given: What each trial gets.

    Raises:
        InputError: It has a `hyperopt` section already, or the budget is too small for two epochs of it.
    """
    document = base.document
    if document.get(("hyperopt",)) is not None:
        document.fail(("hyperopt",), "--auto chooses a space itself; leave --auto or this section out")
    content = copy.deepcopy(base.config)
    image, trainer = content["input_features"][0], content["trainer"]
    encoder = image.get("encoder") or {}
    size = max(image["preprocessing"][key] for key in ("height", "width"))
    stated = int(trainer.setdefault("epochs", 100))
    for epochs in range(stated, 0, -1):
        seconds = cost.trial_seconds(encoder, size, images, epochs, given)
        if fits(seconds, FULL_TRIALS, budget, given):
            break
        if epochs <= _LEAST_EPOCHS:
            raise too_little(budget, FULL_TRIALS, seconds, images.train)
    trainer["epochs"] = epochs
    draft = Draft(content, epochs=epochs, seconds=seconds, budget=budget, given=given)
    draft.introduce(images, dataset.info.size)
    if epochs < stated:
        draft.say(f"{document.name} says {stated}; so many fit the time budget.", "trainer", "epochs")
    first = _network(draft, image, encoder, size) | _optimizer(draft, trainer)
    return draft.finish(str(trainer["validation_metric"]), [first])


def _network(draft: Draft, image: dict[str, Any], encoder: dict[str, Any], size: int) -> dict[str, Any]:
    """Vary what the image feature leaves open; returns what it is without that."""
    name, options = image["name"], component_rules.find_component_schema("encoder", encoder.get("type", "stacked_cnn"))
    first: dict[str, Any] = {}
    smaller = size * 3 // 4 // 16 * 16
    if "size" in options and encoder.get("size") is None and smaller >= _LEAST_SIDE:
        first[f"{name}.encoder.size"] = size
        draft.vary(f"{name}.encoder.size", choice([smaller, size]), "Side in pixels that the network sees.")
    if "dropout" in options and "dropout" not in encoder:
        first[f"{name}.encoder.dropout"] = options["dropout"].get("default", 0.2)
        draft.vary(f"{name}.encoder.dropout", between(0.0, 0.5, space="uniform"), "Of the features.")
    if "augmentation" not in image:
        first[f"{name}.augmentation"] = NONE
        draft.vary(f"{name}.augmentation", choice([NONE, LIGHT, MODERATE]), presets.WHY_AUGMENTATION)
    return first


def _optimizer(draft: Draft, trainer: dict[str, Any]) -> dict[str, Any]:
    """Vary learning rate, weight decay and batch size around what the trainer states; returns what it states."""
    schedule, optimizer = trainer.get("learning_rate_scheduler") or {}, trainer.get("optimizer") or {}
    if schedule.get("decay") == "one_cycle":
        name, rate, why = MAX_LR, schedule["max_lr"], presets.WHY_PEAK
    else:
        rate = trainer.get("learning_rate")
        rate = rate if isinstance(rate, int | float) else 0.001
        name, why = RATE, "Around what the config states."
    first = {name: rate}
    draft.vary(name, between(rate / 5, min(rate * 5, 1.0)), why)
    decay = optimizer.get("weight_decay")
    if decay:
        first[DECAY] = decay
        draft.vary(DECAY, between(decay / 5, decay * 5), "Around what the config states.")
    batch = int(trainer["batch_size"])
    first[BATCH] = batch
    draft.vary(BATCH, choice([*([batch // 2] if batch >= 8 else []), batch]), "No larger than the config's, to fit.")
    return first
