"""Rules about augmentations, encoders and losses: what Ludwig's schema cannot say, and what Ludwig passes over."""

from typing import Any

from pneumo.pipeline.config import schema
from pneumo.pipeline.config.document import Document, KeyPath, format_key_path

IMAGE: KeyPath = ("input_features", 0)
LABEL: KeyPath = ("output_features", 0)


def check_augmentation(document: Document) -> None:
    """A range has its least before its most; shares of one whole add up to 1 at most."""
    path = (*IMAGE, "augmentation")
    entries = document.get(path)
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        place = (*path, index)
        if not isinstance(entry, dict) or "type" not in entry:
            document.fail(place, f"{format_key_path(place)} must be a mapping with a type")
        known = find_component_schema("augmentation", entry["type"])
        values: dict[str, Any] = {name: part.get("default") for name, part in known.items()} | entry
        for low in known:
            high = low[: -len("min")] + "max"
            if low.endswith("min") and high in known and values[low] > values[high]:
                stated = low if low in entry else high
                document.fail(
                    (*place, stated),
                    f"{format_key_path(place)}: {low} is {values[low]}, more than {high}, {values[high]}",
                )
        shares = [name for name in ("blur", "downsample", "unsharp") if name in known]
        if shares and sum(values[name] for name in shares) > 1 + 1e-6:
            document.fail(place, f"{format_key_path(place)}: the shares {', '.join(shares)} add up to more than 1")


def check_ensemble(document: Document) -> None:
    """Members are independent only where nothing but a linear layer lies between them and the label."""
    path = (*IMAGE, "encoder")
    if document.get((*path, "type")) != "ensemble":
        return
    if document.get((*path, "members")) == []:
        document.fail((*path, "members"), f"{format_key_path(path)}.members is empty; name one encoder at least")
    if document.get(("trainer", "should_shuffle")) is False:
        document.fail(
            ("trainer", "should_shuffle"),
            "trainer.should_shuffle: false shows each member of an ensemble the same images for ever; leave it out",
        )
    for section in (("combiner",), (*LABEL, "decoder")):
        for key in ("fc_layers", "num_fc_layers"):
            if document.get((*section, key)):
                document.fail(
                    (*section, key),
                    f"{format_key_path(section)}.{key}: layers over an ensemble mix its members, which are trained "
                    "apart; "
                    "leave it out",
                )


def check_weight_average(document: Document) -> None:
    """An average of weights that do not move is the same weights, evaluated slower."""
    path = (*IMAGE, "encoder")
    members = document.get((*path, "members"))
    places = [(*path, "members", index) for index in range(len(members))] if isinstance(members, list) else [path]
    for place in places:
        if document.get((*place, "weight_average")) is not None and document.get((*place, "trainable")) is False:
            document.fail(
                (*place, "weight_average"),
                f"{format_key_path(place)}: weight_average averages weights, and trainable: false keeps them; "
                "leave one out",
            )


def check_loss_options(document: Document) -> None:
    """Some options of Ludwig's losses are ignored, or switch the loss off."""
    path = (*LABEL, "loss")
    kind = document.get((*LABEL, "type"))
    if document.get((*path, "robust_lambda")):
        mend = "use type: smoothed_binary_cross_entropy with smoothing: 0.1" if kind == "binary" else "leave it out"
        why = "takes whole numbers, and 1 switches the loss off" if kind == "binary" else "is ignored by Ludwig"
        document.fail((*path, "robust_lambda"), f"{format_key_path(path)}.robust_lambda {why}; {mend}")
    if kind == "category":
        if document.get((*path, "confidence_penalty")):
            document.fail(
                (*path, "confidence_penalty"),
                f"{format_key_path(path)}.confidence_penalty is ignored by Ludwig for a category; leave it out",
            )
        if isinstance(document.get((*path, "class_weights")), list):
            document.fail(
                (*path, "class_weights"),
                f"{format_key_path(path)}.class_weights as a list is in order of frequency, which data decide; "
                "write class: weight",
            )


def check_class_balancing(document: Document) -> None:
    """Ludwig repeats or drops training images for a binary label only, and says so after reading all of them."""
    keys = ("oversample_minority", "undersample_majority")
    stated = [key for key in keys if document.get(("preprocessing", key)) is not None]
    if not stated:
        return
    path: KeyPath = ("preprocessing", stated[0])
    if document.get((*LABEL, "type")) != "binary":
        document.fail(
            path,
            f"{format_key_path(path)} works for a binary label only; use {format_key_path(LABEL)}.loss.class_weights",
        )
    if len(stated) > 1:
        document.fail(path, f"preprocessing.{keys[0]} and {keys[1]} exclude each other; keep one")
    value = document.get(path)
    if not 0 < value <= 1:
        document.fail(
            path, f"{format_key_path(path)} is {value}; it is the minority over the majority, above 0 and at most 1"
        )


def check_model_soup(document: Document) -> None:
    """Ludwig's greedy soup is not written: it averages uniformly."""
    path: KeyPath = ("trainer", "model_soup")
    if document.get(path) == "greedy":
        document.fail(path, "trainer.model_soup: Ludwig's greedy is its uniform; write uniform")


def find_component_schema(section: str, kind: str | None) -> dict[str, dict[str, Any]]:
    """Options of an encoder or augmentation: their schemas by name; empty where the type is unknown."""
    features = schema.read_ludwig_schema()["properties"]["input_features"]["items"]
    part = features["allOf"][0]["then"]["properties"][section]
    if section == "augmentation":
        part = next(option["items"] for option in part["oneOf"] if "items" in option)
    for branch in part["allOf"]:
        if branch["if"]["properties"]["type"]["const"] == kind:
            found: dict[str, dict[str, Any]] = branch["then"]["properties"]
            return found
    return {}
