"""A search around a user's config: its values stay, and the values it leaves open are searched."""

import copy
from typing import Any

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.config.rules import component_rules
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.sweep.auto import cost, presets
from pneumo.pipeline.sweep.auto.cost import Budget, Images
from pneumo.pipeline.sweep.auto.plan_builder import Draft, Plan, between, choice, refuse_budget
from pneumo.pipeline.sweep.auto.presets import BATCH, DECAY, LIGHT, MAX_LR, MODERATE, NONE, RATE

FULL_TRIALS = 4
"""Number of whole trials that must fit."""

_LEAST_EPOCHS, _LEAST_SIDE = 2, 64
_WHY_AROUND = "Around the config's value."


def plan_from_config(base: Experiment, dataset: Dataset, images: Images, budget: Budget) -> Plan:
    """Plan a search around a config, whose own values are the first point; errors are those of `make_plan`."""
    document = base.document
    if document.get(("hyperopt",)) is not None:
        document.fail(("hyperopt",), "--auto chooses the space itself; remove --auto or this section")
    content = copy.deepcopy(base.config)
    image, trainer = content["input_features"][0], content["trainer"]
    encoder = image.get("encoder") or {}
    size = max(image["preprocessing"][key] for key in ("height", "width"))
    stated = int(trainer.setdefault("epochs", 100))
    for epochs in range(stated, 0, -1):
        seconds = cost.trial_seconds(encoder, size, images, epochs, budget.share)
        if budget.fits(seconds, FULL_TRIALS):
            break
        if epochs <= _LEAST_EPOCHS:
            raise refuse_budget(budget, FULL_TRIALS, seconds, images.train)
    trainer["epochs"] = epochs
    draft = Draft(content, epochs=epochs, seconds=seconds, budget=budget)
    draft.introduce(images, dataset.info.size)
    if epochs < stated:
        draft.explain(f"{document.name} has {stated} epochs; this number fits the time budget.", "trainer", "epochs")
    first = _vary_network(draft, image, encoder, size) | _vary_optimizer(draft, trainer)
    return draft.finish(str(trainer["validation_metric"]), [first])


def _vary_network(draft: Draft, image: dict[str, Any], encoder: dict[str, Any], size: int) -> dict[str, Any]:
    """Vary what the image feature leaves open; return the config's own values."""
    name, options = image["name"], component_rules.find_component_schema("encoder", encoder.get("type", "stacked_cnn"))
    first: dict[str, Any] = {}
    smaller = size * 3 // 4 // 16 * 16
    if "size" in options and encoder.get("size") is None and smaller >= _LEAST_SIDE:
        first[f"{name}.encoder.size"] = size
        draft.vary(f"{name}.encoder.size", choice([smaller, size]), "Side in pixels of the network's input.")
    if "dropout" in options and "dropout" not in encoder:
        first[f"{name}.encoder.dropout"] = options["dropout"].get("default", 0.2)
        draft.vary(f"{name}.encoder.dropout", between(0.0, 0.5, space="uniform"), "Of the features.")
    if "augmentation" not in image:
        first[f"{name}.augmentation"] = NONE
        draft.vary(f"{name}.augmentation", choice([NONE, LIGHT, MODERATE]), presets.WHY_AUGMENTATION)
    return first


def _vary_optimizer(draft: Draft, trainer: dict[str, Any]) -> dict[str, Any]:
    """Vary learning rate, weight decay and batch size around the config's values; return these values."""
    schedule, optimizer = trainer.get("learning_rate_scheduler") or {}, trainer.get("optimizer") or {}
    if schedule.get("decay") == "one_cycle":
        name, rate, why = MAX_LR, schedule["max_lr"], presets.WHY_PEAK
    else:
        rate = trainer.get("learning_rate")
        name, rate, why = RATE, rate if isinstance(rate, int | float) else 0.001, _WHY_AROUND
    batch = int(trainer["batch_size"])
    first = {name: rate, BATCH: batch}
    draft.vary(name, between(rate / 5, min(rate * 5, 1.0)), why)
    if decay := optimizer.get("weight_decay"):
        first[DECAY] = decay
        draft.vary(DECAY, between(decay / 5, decay * 5), _WHY_AROUND)
    smaller = [batch // 2] if batch >= 8 else []
    draft.vary(BATCH, choice([*smaller, batch]), "At most the config's value, so that it fits into memory.")
    return first
