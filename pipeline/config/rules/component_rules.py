"""Rules about augmentations, encoders and losses: checks beyond Ludwig's schema, and options that Ludwig ignores."""

from pneumo.pipeline.config.document import Document, KeyPath
from pneumo.pipeline.config.schema import Schema, read_ludwig_schema

IMAGE: KeyPath = ("input_features", 0)
ENCODER: KeyPath = (*IMAGE, "encoder")
LABEL: KeyPath = ("output_features", 0)


def check_augmentation(document: Document) -> None:
    """Refuse a range whose minimum is above its maximum, and shares that add up to more than 1."""
    path = (*IMAGE, "augmentation")
    entries = document.get(path)
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        place = (*path, index)
        if not isinstance(entry, dict) or "type" not in entry:
            document.reject(place, "must be a mapping with a type")
        options = find_component_schema("augmentation", entry["type"])
        values = {name: option.get("default") for name, option in options.items()} | entry
        for low in options:
            high = f"{low.removesuffix('min')}max"
            if low.endswith("min") and high in options and values[low] > values[high]:
                document.reject(
                    (*place, low if low in entry else high),
                    f"is out of range: {low} is {values[low]}, more than {high}, {values[high]}",
                )
        shares = [name for name in ("blur", "downsample", "unsharp") if name in options]
        if sum(values[name] for name in shares) > 1 + 1e-6:
            document.reject(place, f"is wrong: the shares {', '.join(shares)} add up to more than 1")


def check_ensemble(document: Document) -> None:
    """Refuse what makes members dependent: only a linear layer may lie between their features and the label."""
    if document.get((*ENCODER, "type")) != "ensemble":
        return
    if document.get((*ENCODER, "members")) == []:
        document.reject((*ENCODER, "members"), "is empty; name at least one encoder")
    if document.get(("trainer", "should_shuffle")) is False:
        document.reject(
            ("trainer", "should_shuffle"),
            "must not be false: each member of the ensemble would see the same images in every epoch; leave it out",
        )
    for section in (("combiner",), (*LABEL, "decoder")):
        for key in ("fc_layers", "num_fc_layers"):
            if document.get((*section, key)):
                document.reject(
                    (*section, key), "adds layers over the ensemble, which mix its independent members; leave it out"
                )


def check_weight_average(document: Document) -> None:
    """Refuse an average of frozen weights: it equals the weights and takes time."""
    members = document.get((*ENCODER, "members"))
    count = len(members) if isinstance(members, list) else 0
    for place in [(*ENCODER, "members", index) for index in range(count)] or [ENCODER]:
        if document.get((*place, "weight_average")) is not None and document.get((*place, "trainable")) is False:
            document.reject(
                (*place, "weight_average"), "averages weights, but trainable: false freezes them; leave one out"
            )


def check_loss_options(document: Document) -> None:
    """Refuse options of Ludwig's losses that are ignored, or that switch the loss off."""
    path, kind = (*LABEL, "loss"), document.get((*LABEL, "type"))
    if document.get((*path, "robust_lambda")):
        document.reject(
            (*path, "robust_lambda"),
            "takes whole numbers, and 1 switches the loss off; use type: smoothed_binary_cross_entropy with "
            "smoothing: 0.1"
            if kind == "binary"
            else "is ignored by Ludwig; leave it out",
        )
    if kind == "category":
        if document.get((*path, "confidence_penalty")):
            document.reject((*path, "confidence_penalty"), "is ignored by Ludwig for a category; leave it out")
        if isinstance(document.get((*path, "class_weights")), list):
            document.reject(
                (*path, "class_weights"),
                "is a list, which Ludwig reads in order of class frequency; write a mapping, class: weight",
            )


def check_class_balancing(document: Document) -> None:
    """Refuse class balancing for a category: Ludwig supports it for a binary label, and fails only after reading."""
    keys = ("oversample_minority", "undersample_majority")
    paths: list[KeyPath] = [("preprocessing", key) for key in keys if document.get(("preprocessing", key)) is not None]
    if paths and document.get((*LABEL, "type")) != "binary":
        document.reject(paths[0], "works for a binary label only; use output_features.0.loss.class_weights")
    if len(paths) > 1:
        document.fail(paths[0], f"preprocessing.{keys[0]} and {keys[1]} exclude each other; leave one out")
    if paths and not 0 < (value := document.get(paths[0])) <= 1:
        document.reject(paths[0], f"is {value}; it is the ratio of minority to majority, above 0 and at most 1")


def check_model_soup(document: Document) -> None:
    """Refuse the greedy model soup: Ludwig averages uniformly under that name."""
    if document.get(("trainer", "model_soup")) == "greedy":
        document.reject(("trainer", "model_soup"), "is 'greedy', which Ludwig computes as uniform; write uniform")


def find_component_schema(section: str, kind: str | None) -> dict[str, Schema]:
    """Return the options of an encoder or augmentation, as schemas by name; empty for an unknown type."""
    part = read_ludwig_schema()["properties"]["input_features"]["items"]["allOf"][0]["then"]["properties"][section]
    if section == "augmentation":
        part = next(alternative["items"] for alternative in part["oneOf"] if "items" in alternative)
    branches = {branch["if"]["properties"]["type"]["const"]: branch["then"]["properties"] for branch in part["allOf"]}
    options: dict[str, Schema] = branches.get(kind, {})
    return options
