"""Rules about augmentations, encoders and losses: checks beyond Ludwig's schema, and options that Ludwig ignores."""

from collections.abc import Iterator
from typing import Any

from pneumo.pipeline.config.document import Document, parse_key_path
from pneumo.pipeline.config.problems import Problem
from pneumo.pipeline.config.schema import Schema, read_branches, read_ludwig_schema

ENCODER = "input_features.0.encoder"
LABEL = "output_features.0"


def check_augmentation(document: Document) -> Iterator[Problem]:
    """Refuse a range whose minimum is above its maximum, and shares that add up to more than 1."""
    path = "input_features.0.augmentation"
    entries = document.get(path)
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        place = f"{path}.{index}"
        if not isinstance(entry, dict) or "type" not in entry:
            yield document.wrong(place, "must be a mapping with a type", f"{place}.type")
            continue
        options = find_component_schema("augmentation", entry["type"])
        values: dict[str, Any] = {name: option.get("default") for name, option in options.items()} | entry
        for low in options:
            high = f"{low.removesuffix('min')}max"
            if low.endswith("min") and high in options and values[low] > values[high]:
                stated = low if low in entry else high
                yield document.problem(
                    f"{place}.{stated}", f"{place}: {low} is {values[low]}, more than {high}, {values[high]}"
                )
        shares = [name for name in ("blur", "downsample", "unsharp") if name in options]
        if sum(values[name] for name in shares) > 1 + 1e-6:
            yield document.problem(place, f"{place}: the shares {', '.join(shares)} add up to more than 1")


def check_ensemble(document: Document) -> Iterator[Problem]:
    """Refuse what makes members dependent: only a linear layer may lie between their features and the label."""
    if document.get(f"{ENCODER}.type") != "ensemble":
        return
    if document.get(f"{ENCODER}.members") == []:
        yield document.wrong(f"{ENCODER}.members", "is empty; name at least one encoder")
    if document.get("trainer.should_shuffle") is False:
        problem = "must not be false: each member would see the same images in every epoch; leave it out"
        yield document.wrong("trainer.should_shuffle", problem)
    for section in ("combiner", f"{LABEL}.decoder"):
        for path in (f"{section}.fc_layers", f"{section}.num_fc_layers"):
            if document.get(path):
                yield document.wrong(
                    path, "adds layers over the ensemble, which mix its independent members; leave it out"
                )


def check_frozen_network(document: Document) -> Iterator[Problem]:
    """Refuse an average of frozen weights, which equals them and takes time, and cached features of trained weights."""
    path = f"{ENCODER}.cached_views"
    if document.get(path) is not None and document.get(f"{ENCODER}.trainable") is not False:
        yield document.wrong(path, "keeps the features of a frozen network; set trainable: false, or leave it out")
    members = document.get(f"{ENCODER}.members")
    count = len(members) if isinstance(members, list) else 0
    for place in [f"{ENCODER}.members.{index}" for index in range(count)] or [ENCODER]:
        path = f"{place}.weight_average"
        if document.get(path) is not None and document.get(f"{place}.trainable") is False:
            yield document.wrong(path, "averages weights, but trainable: false freezes them; leave one out")


def check_loss_options(document: Document) -> Iterator[Problem]:
    """Refuse losses and options of Ludwig that switch the loss off, or depend on the order of classes."""
    is_category = document.get(f"{LABEL}.type") == "category"
    kind = document.get(f"{LABEL}.loss.type")
    if kind in ("entropic_open_set", "objectosphere") and not is_category:
        fix = "of a binary label it would be that over the images of a batch; use focal, or three classes"
        yield document.wrong(f"{LABEL}.loss.type", f"is {kind}, a softmax over classes; {fix}")
    path = f"{LABEL}.loss.robust_lambda"
    if document.get(path) and not is_category:
        fix = "use type: smoothed_binary_cross_entropy with smoothing: 0.1"
        yield document.wrong(path, f"takes whole numbers, and 1 switches the loss off; {fix}")
    path = f"{LABEL}.loss.class_weights"
    weights = document.get(path)
    if is_category and isinstance(weights, list):
        yield document.wrong(path, "is a list, which Ludwig reads in order of class frequency; write class: weight")
    for name, weight in weights.items() if isinstance(weights, dict) else ():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0:
            yield document.wrong((*parse_key_path(path), name), f"must be a number above 0, not {weight!r:.100}")


def check_class_balancing(document: Document) -> Iterator[Problem]:
    """Refuse class balancing for a category: Ludwig supports it for a binary label, and fails only after reading."""
    options = ("preprocessing.oversample_minority", "preprocessing.undersample_majority")
    stated = [path for path in options if document.get(path) is not None]
    if stated and document.get(f"{LABEL}.type") != "binary":
        yield document.wrong(stated[0], f"works for a binary label only; use {LABEL}.loss.class_weights")
    if len(stated) > 1:
        yield document.problem(stated[0], f"{' and '.join(stated)} exclude each other; leave one out")
    if stated and not 0 < (value := document.get(stated[0])) <= 1:
        yield document.wrong(stated[0], f"is {value}; it is the ratio of minority to majority, above 0 and at most 1")


def find_component_schema(section: str, kind: str | None) -> dict[str, Schema]:
    """Return the options of an encoder or augmentation, as schemas by name; empty for an unknown type."""
    part = read_ludwig_schema()["properties"]["input_features"]["items"]["allOf"][0]["then"]["properties"][section]
    if section == "augmentation":
        part = next(alternative["items"] for alternative in part["oneOf"] if "items" in alternative)
    options: dict[str, Schema] = read_branches(part)[kind]["properties"] if kind in read_branches(part) else {}
    return options
