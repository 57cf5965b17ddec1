"""Rules about augmentations, encoders and losses: checks beyond Ludwig's schema, and options that Ludwig ignores."""

from typing import Any

from pneumo.pipeline.config.document import Document
from pneumo.pipeline.config.schema import Schema, read_ludwig_schema

ENCODER = "input_features.0.encoder"
LABEL = "output_features.0"


def check_augmentation(document: Document) -> None:
    """Refuse a range whose minimum is above its maximum, and shares that add up to more than 1."""
    path = "input_features.0.augmentation"
    entries = document.get(path)
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        place = f"{path}.{index}"
        if not isinstance(entry, dict) or "type" not in entry:
            document.reject(place, "must be a mapping with a type")
        options = find_component_schema("augmentation", entry["type"])
        values: dict[str, Any] = {name: option.get("default") for name, option in options.items()} | entry
        for low in options:
            high = f"{low.removesuffix('min')}max"
            if low.endswith("min") and high in options and values[low] > values[high]:
                stated = low if low in entry else high
                document.fail(f"{place}.{stated}", f"{place}: {low} is {values[low]}, more than {high}, {values[high]}")
        shares = [name for name in ("blur", "downsample", "unsharp") if name in options]
        if sum(values[name] for name in shares) > 1 + 1e-6:
            document.fail(place, f"{place}: the shares {', '.join(shares)} add up to more than 1")


def check_ensemble(document: Document) -> None:
    """Refuse what makes members dependent: only a linear layer may lie between their features and the label."""
    if document.get(f"{ENCODER}.type") != "ensemble":
        return
    if document.get(f"{ENCODER}.members") == []:
        document.reject(f"{ENCODER}.members", "is empty; name at least one encoder")
    if document.get("trainer.should_shuffle") is False:
        problem = "must not be false: each member would see the same images in every epoch; leave it out"
        document.reject("trainer.should_shuffle", problem)
    for section in ("combiner", f"{LABEL}.decoder"):
        for path in (f"{section}.fc_layers", f"{section}.num_fc_layers"):
            if document.get(path):
                document.reject(path, "adds layers over the ensemble, which mix its independent members; leave it out")


def check_weight_average(document: Document) -> None:
    """Refuse an average of frozen weights: it equals the weights and takes time."""
    members = document.get(f"{ENCODER}.members")
    count = len(members) if isinstance(members, list) else 0
    for place in [f"{ENCODER}.members.{index}" for index in range(count)] or [ENCODER]:
        path = f"{place}.weight_average"
        if document.get(path) is not None and document.get(f"{place}.trainable") is False:
            document.reject(path, "averages weights, but trainable: false freezes them; leave one out")


def check_loss_options(document: Document) -> None:
    """Refuse options of Ludwig's losses that are ignored, or that switch the loss off."""
    is_category = document.get(f"{LABEL}.type") == "category"
    path = f"{LABEL}.loss.robust_lambda"
    if document.get(path) and is_category:
        document.reject(path, "is ignored by Ludwig; leave it out")
    if document.get(path):
        fix = "use type: smoothed_binary_cross_entropy with smoothing: 0.1"
        document.reject(path, f"takes whole numbers, and 1 switches the loss off; {fix}")
    path = f"{LABEL}.loss.confidence_penalty"
    if is_category and document.get(path):
        document.reject(path, "is ignored by Ludwig for a category; leave it out")
    path = f"{LABEL}.loss.class_weights"
    if is_category and isinstance(document.get(path), list):
        document.reject(path, "is a list, which Ludwig reads in order of class frequency; write class: weight")


def check_class_balancing(document: Document) -> None:
    """Refuse class balancing for a category: Ludwig supports it for a binary label, and fails only after reading."""
    options = ("preprocessing.oversample_minority", "preprocessing.undersample_majority")
    stated = [path for path in options if document.get(path) is not None]
    if stated and document.get(f"{LABEL}.type") != "binary":
        document.reject(stated[0], f"works for a binary label only; use {LABEL}.loss.class_weights")
    if len(stated) > 1:
        document.fail(stated[0], f"{' and '.join(stated)} exclude each other; leave one out")
    if stated and not 0 < (value := document.get(stated[0])) <= 1:
        document.reject(stated[0], f"is {value}; it is the ratio of minority to majority, above 0 and at most 1")


def check_model_soup(document: Document) -> None:
    """Refuse the greedy model soup: Ludwig averages uniformly under that name."""
    if document.get("trainer.model_soup") == "greedy":
        document.reject("trainer.model_soup", "is 'greedy', which Ludwig computes as uniform; write uniform")


def find_component_schema(section: str, kind: str | None) -> dict[str, Schema]:
    """Return the options of an encoder or augmentation, as schemas by name; empty for an unknown type."""
    part = read_ludwig_schema()["properties"]["input_features"]["items"]["allOf"][0]["then"]["properties"][section]
    if section == "augmentation":
        part = next(alternative["items"] for alternative in part["oneOf"] if "items" in alternative)
    branches = {branch["if"]["properties"]["type"]["const"]: branch["then"]["properties"] for branch in part["allOf"]}
    options: dict[str, Schema] = branches.get(kind, {})
    return options
