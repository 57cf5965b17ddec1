"""Complete a config that Ludwig takes: what it leaves open, and what pneumo does in its own way, with a remark each.

`docs/reference/ludwig-configs.md` lists these steps; a test runs its rows.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pneumo.pipeline.config.draft import Draft
from pneumo.pipeline.config.rules.component_rules import ENCODER, LABEL, find_component_schema

if TYPE_CHECKING:
    from pneumo.pipeline.data.manifest import Dataset

BATCH_SIZE = 64
"""Batch size of a config that states none; Ludwig would measure one."""
HEALTHY = frozenset(
    ("normal", "negative", "healthy", "no finding", "no_finding", "benign", "control", "clean", "no", "false", "0")
)
"""Names of classes without a finding, in lower case."""
TORCHVISION = dict(
    re.findall(
        r"(\w+):(\S+)",
        "alexnet:alexnet convnext:convnext_{} densenet:densenet{} efficientnet:efficientnet_{} googlenet:googlenet "
        "inceptionv3:inception_v3 maxvit:maxvit_{} mnasnet:mnasnet{} mobilenetv2:mobilenet_v2 resnet:resnet{} "
        "mobilenetv3:mobilenet_v3_{} regnet:regnet_{} resnext:resnext{} shufflenet_v2:shufflenet_v2_{} "
        "swin_transformer:swin_{} vgg:vgg{} vit:vit_{} wide_resnet:wide_resnet{}",
    )
)
"""Ludwig's encoders over torchvision, and the network's name there, with its `model_variant`."""
_SIZES = {"vit": 224, "maxvit": 224, "inceptionv3": 299}
"""Side in pixels of the images that networks of torchvision need."""
_NOT_OF_BACKBONE = ("type", "model_variant", "use_pretrained")
_PIXELS, _SCHEDULE = "input_features.0.preprocessing", "trainer.learning_rate_scheduler"
_POSITIVE = f"{LABEL}.preprocessing.fallback_true_label"


def complete(draft: Draft) -> None:
    """Complete what is known without a data set, in a draft that fits Ludwig's schema."""
    kind, label = draft.get(f"{ENCODER}.type", "stacked_cnn"), str(draft.get(f"{LABEL}.type"))
    size = 224 if kind in ("clip", "dinov2", "siglip") else None
    _complete_images(draft, needs_colours="use_pretrained" in find_component_schema("encoder", kind), size=size)
    if kind in TORCHVISION:
        _name_torchvision_network(draft, kind)
    split = draft.get("preprocessing.split") or {}
    if split.get("type") != "fixed" or split.get("column", "split") != "split":
        why = "the data set's, in which no patient is in two splits"
        draft.put("preprocessing.split", {"type": "fixed", "column": "split"}, why)
    draft.drop(f"{LABEL}.calibration", "is left out: pneumo fits a temperature itself")
    if label == "category":
        for key in ("robust_lambda", "confidence_penalty"):
            draft.drop(f"{LABEL}.loss.{key}", "is ignored by Ludwig for a category")
    elif draft.get(f"{LABEL}.threshold") is not None:
        draft.drop(f"{LABEL}.threshold", "is ignored: decisions.threshold chooses it on the validation split")
    _complete_trainer(draft)


def _complete_images(draft: Draft, *, needs_colours: bool, size: int | None) -> None:
    if draft.get(f"{_PIXELS}.mode") != "eager":
        draft.put(f"{_PIXELS}.mode", "eager", "each image is decoded once")
    if draft.get(f"{_PIXELS}.num_channels") is None:
        why = "copies of the gray image, for a network made for photographs" if needs_colours else "images are gray"
        draft.put(f"{_PIXELS}.num_channels", 3 if needs_colours else 1, why)
    height, width = draft.get(f"{_PIXELS}.height"), draft.get(f"{_PIXELS}.width")
    for key, own, other in (("height", height, width), ("width", width, height)):
        if own is None and (size or other):
            draft.put(f"{_PIXELS}.{key}", size or other, "the encoder's size" if size else "images are square")
    if draft.get(f"{_PIXELS}.in_memory") is False:
        draft.put(f"{_PIXELS}.in_memory", True, "images are held in memory")
    if draft.get(f"{_PIXELS}.resize_method") == "crop_or_pad":
        draft.put(f"{_PIXELS}.resize_method", "interpolate", "`pneumo data import --fit` says how images are fitted")


def _name_torchvision_network(draft: Draft, kind: str) -> None:
    """Replace one of Ludwig's encoders over torchvision by `backbone` with the same network, which scales pixels."""
    variant = draft.get(f"{ENCODER}.model_variant", find_component_schema("encoder", kind)["model_variant"]["default"])
    weights = "cached" if draft.get(f"{ENCODER}.use_pretrained", True) else None
    encoder = {"type": "backbone", "library": "torchvision", "network": TORCHVISION[kind].format(variant)}
    encoder |= {"weights": weights, "dropout": 0.0} | ({"size": _SIZES[kind]} if kind in _SIZES else {})
    draft.drop(f"{ENCODER}.model_cache_dir", "is ignored: TORCH_HOME says where weights lie")
    own = {key: value for key, value in (draft.get(ENCODER) or {}).items() if key not in _NOT_OF_BACKBONE}
    draft.put(ENCODER, encoder | own, "the same network, which scales pixels itself, so that the scaling is exported")


def _complete_trainer(draft: Draft) -> None:
    if draft.get("trainer.batch_size", "auto") == "auto":
        effective, steps = draft.get("trainer.effective_batch_size"), draft.get("trainer.gradient_accumulation_steps")
        size = BATCH_SIZE
        if isinstance(effective, int):
            size = effective // steps if isinstance(steps, int) else effective
        draft.put("trainer.batch_size", size, "a measured size would differ from run to run")
    if draft.get("trainer.eval_batch_size") in (None, "auto"):
        draft.put("trainer.eval_batch_size", draft.get("trainer.batch_size"))
    if draft.get("trainer.validation_field") == "combined":
        draft.put("trainer.validation_field", draft.get(f"{LABEL}.name"), "the only label")
        if draft.get("trainer.validation_metric") is None:
            draft.put("trainer.validation_metric", "loss")
    if draft.get("trainer.model_soup") == "greedy":
        draft.put("trainer.model_soup", "uniform", "what Ludwig computes under that name")
    rate, decay = draft.get("trainer.learning_rate", 0.001), draft.get(f"{_SCHEDULE}.decay")
    if decay == "one_cycle" and draft.get(f"{_SCHEDULE}.max_lr") is None and rate != "auto":
        draft.put(f"{_SCHEDULE}.max_lr", rate, "the learning rate is the peak; Ludwig's default would be 1/25 of it")
    if decay == "cosine" and draft.get(f"{_SCHEDULE}.t_0") is None and draft.get("trainer.train_steps"):
        draft.put(f"{_SCHEDULE}.t_0", draft.get("trainer.train_steps"), "one decay; Ludwig would restart it")


def complete_from_data(draft: Draft, dataset: "Dataset") -> None:
    """Complete what only a data set knows: size, type of the label, positive class, steps of a schedule."""
    from pneumo.pipeline.data.manifest import Split

    classes = dataset.info.classes
    for key in ("height", "width"):
        if draft.get(f"{_PIXELS}.{key}") is None:
            limit = draft.get(f"{_PIXELS}.infer_image_max_{key}") or dataset.info.size
            draft.put(f"{_PIXELS}.{key}", min(dataset.info.size, limit), "the data set's size")
    if draft.get(f"{LABEL}.type") == "category" and len(classes) == 2:
        _make_binary(draft)
    if draft.get(f"{LABEL}.type") == "binary" and not draft.get(_POSITIVE) and len(classes) == 2:
        positive = find_positive(classes)
        if positive is None:
            names = " or ".join(classes)
            draft.document.fail(_POSITIVE, f"which class is the positive one? write {_POSITIVE}: {names}")
        draft.put(_POSITIVE, positive, "the class with the finding")
    weights, positive = draft.get(f"{LABEL}.loss.class_weights"), draft.get(_POSITIVE)
    if draft.get(f"{LABEL}.type") == "binary" and isinstance(weights, dict) and weights.keys() == set(classes):
        ratio = weights[positive] / next(weight for name, weight in weights.items() if name != positive)
        draft.put(f"{LABEL}.loss.positive_class_weight", ratio, "the ratio of class_weights")
        draft.drop(f"{LABEL}.loss.class_weights")
    batch, balanced = draft.get("trainer.batch_size"), draft.keys("preprocessing") != ["split"]
    if draft.get(f"{_SCHEDULE}.decay") == "cosine" and not draft.get(f"{_SCHEDULE}.t_0") and not balanced:
        steps = -(-len(dataset.select(Split.TRAIN)) // batch) * draft.get("trainer.epochs", 100)
        draft.put(f"{_SCHEDULE}.t_0", steps, "one decay over all epochs; Ludwig would restart it at every evaluation")


def find_positive(classes: Sequence[str]) -> str | None:
    """Return the positive one of two classes: PNEUMONIA, or the one beside a class without finding; else None."""
    sick = [name for name in classes if name.lower() not in HEALTHY]
    return next((name for name in classes if name.upper() == "PNEUMONIA"), sick[0] if len(sick) == 1 else None)


def _make_binary(draft: Draft) -> None:
    """Make a category of two classes a binary label: softmax over two logits is the sigmoid of their difference."""
    loss = draft.get(f"{LABEL}.loss.type", "softmax_cross_entropy")
    if loss != "softmax_cross_entropy":
        fix = "use type: binary with binary_weighted_cross_entropy, smoothed_binary_cross_entropy or focal"
        draft.document.reject(
            f"{LABEL}.loss.type", f"is {loss}, for three classes or more; the data set has two: {fix}"
        )
    draft.put(f"{LABEL}.type", "binary", "the data set has two classes")
    for key in ("top_k", "default_validation_metric", "preprocessing"):
        draft.drop(f"{LABEL}.{key}")
    for part, old, new in (
        ("loss", "softmax_cross_entropy", "binary_weighted_cross_entropy"),
        ("decoder", "classifier", "regressor"),
    ):
        if draft.get(f"{LABEL}.{part}.type") == old:
            draft.put(f"{LABEL}.{part}.type", new)
    if draft.get("trainer.validation_metric") == "accuracy_micro":
        draft.put("trainer.validation_metric", "accuracy", "its name for a binary label")
