"""What pneumo asks of a config beyond Ludwig's schema: each rule closes a trap that cost someone a wrong result."""

from collections.abc import Callable

from pneumo.pipeline.config import schema
from pneumo.pipeline.config.document import Document, KeyPath
from pneumo.pipeline.config.rules import component_rules
from pneumo.pipeline.config.rules.component_rules import IMAGE, LABEL


def check_rules(document: Document) -> None:
    """Apply every rule.

    Raises:
        InputError: The first rule that is broken, with file, line and mend.
    """
    for rule in RULES:
        rule(document)


def check_features(document: Document) -> None:
    """A classifier of radiographs has one image in and one label out."""
    for section, kind, word in (
        ("input_features", ("image",), "an image"),
        ("output_features", ("binary", "category"), "a binary or category label"),
    ):
        features = document.data[section]
        if len(features) != 1:
            document.fail((section,), f"{section} must hold exactly one feature, {word}; it holds {len(features)}")
        feature = features[0]
        for key in ("name", "type"):
            if not feature.get(key):
                document.fail((section, 0), f"missing key {key!r} under {section}.0")
        if feature.get("column", feature["name"]) != feature["name"]:
            document.fail((section, 0, "column"), f"{section}.0.column differs from its name; leave it out")
        if feature.get("tied") is not None:
            document.fail((section, 0, "tied"), f"{section}.0.tied needs a second feature, and there is none")
        if feature["type"] not in kind:
            document.fail((section, 0, "type"), f"{section}.0.type is {feature['type']!r}; it must be {word}")


def check_image_mode(document: Document) -> None:
    """Ludwig's other modes decode each epoch (`lazy`) or can show test images as validation images (`lazy_cached`)."""
    path = (*IMAGE, "preprocessing", "mode")
    mode = document.get(path)
    if mode != "eager":
        why = {
            "lazy_cached": "Ludwig's cache mixes up data sets of equal size, so validation can become test",
            None: "Ludwig's default 'lazy' decodes every image again each epoch",
        }.get(mode, "it decodes every image again each epoch")
        document.fail(path, f"input_features.0.preprocessing.mode must be 'eager': {why}")


def check_image_size(document: Document) -> None:
    """Size and channels are part of the exported contract, so they are written, not inferred."""
    for key in ("height", "width"):
        value = document.get((*IMAGE, "preprocessing", key))
        if not isinstance(value, int) or not 8 <= value <= 4096:
            document.fail(
                (*IMAGE, "preprocessing", key),
                f"input_features.0.preprocessing.{key} must be stated, from 8 to 4096 pixels, such as {key}: 224",
            )
    if document.get((*IMAGE, "preprocessing", "num_channels")) not in (1, 3):
        document.fail(
            (*IMAGE, "preprocessing", "num_channels"),
            "input_features.0.preprocessing.num_channels must be stated: 1, or 3 for the gray image three times",
        )


def check_scaling(document: Document) -> None:
    """What Ludwig does to pixels outside the network is lost at export."""
    path = (*IMAGE, "preprocessing", "standardize_image")
    if document.get(path) is not None:
        document.fail(path, "standardize_image is lost at export; use an encoder that scales inside, or leave it out")
    kind = document.get((*IMAGE, "encoder", "type"))
    if "model_variant" in component_rules.find_component_schema("encoder", kind):
        document.fail(
            (*IMAGE, "encoder", "type"),
            f"encoder {kind!r} forces torchvision's own size, channels and scaling, which are lost at export; "
            "use {type: backbone, library: torchvision, network: ...}, which takes the same networks",
        )


def check_pretrained_channels(document: Document) -> None:
    """Networks made for photographs take three channels; Ludwig says so only with torch's own message, in training."""
    kind = document.get((*IMAGE, "encoder", "type"))
    path = (*IMAGE, "preprocessing", "num_channels")
    if "use_pretrained" in component_rules.find_component_schema("encoder", kind) and document.get(path) != 3:
        document.fail(
            path, f"encoder {kind!r} takes three channels: num_channels: 3 gives it the gray image three times"
        )


def check_positive_class(document: Document) -> None:
    """Ludwig takes the first class of the alphabet as positive, which is NORMAL."""
    path = (*LABEL, "preprocessing", "fallback_true_label")
    if document.get((*LABEL, "type")) == "binary" and not document.get(path):
        document.fail(
            path,
            "a binary label needs its positive class stated: "
            "output_features.0.preprocessing.fallback_true_label: PNEUMONIA (Ludwig takes the first of the alphabet)",
        )


def check_calibration(document: Document) -> None:
    """Pneumo fits a temperature itself, on validation only, and ships it; two would be applied one over the other."""
    path = (*LABEL, "calibration")
    if document.get(path):
        document.fail(path, "calibration is pneumo's own (temperature on validation, in the bundle); leave it out")


def check_split(document: Document) -> None:
    """Any other split of Ludwig's ignores patients."""
    split = document.get(("preprocessing", "split")) or {}
    if split.get("type") != "fixed" or split.get("column", "split") != "split":
        document.fail(
            ("preprocessing", "split"),
            "preprocessing.split must be {type: fixed, column: split}: any other split puts a patient on both sides",
        )


def check_validation_metric(document: Document) -> None:
    """Which epoch is best is decided by a metric of the label."""
    path: KeyPath = ("trainer", "validation_metric")
    name, known = document.get(path), schema.read_ludwig_schema()["metrics"][document.get((*LABEL, "type"))]
    if name is not None and name not in known:
        document.fail(path, f"trainer.validation_metric is {name!r}; choose from {', '.join(known)}")
    path = ("trainer", "validation_field")
    field = document.get(path)
    if field is not None and field != document.get((*LABEL, "name")):
        document.fail(path, f"trainer.validation_field is {field!r}; leave it out, there is one label")


def check_learning_rate(document: Document) -> None:
    """Ludwig takes any learning rate, and text."""
    path: KeyPath = ("trainer", "learning_rate")
    value = document.get(path)
    if isinstance(value, str) and value != "auto":
        document.fail(path, f"trainer.learning_rate must be a number, not {value!r}{schema.number_hint(value)}")
    if isinstance(value, bool) or (value is not None and not isinstance(value, int | float | str)):
        document.fail(path, f"trainer.learning_rate must be a number, not {value!r}")
    if isinstance(value, int | float) and not 0 < value <= 1:
        document.fail(path, f"trainer.learning_rate is {value}; it must lie above 0 and at most at 1")


def check_batch_sizes(document: Document) -> None:
    """Ludwig's automatic batch size is timed, so that two runs differ."""
    for key in ("batch_size", "eval_batch_size"):
        path: KeyPath = ("trainer", key)
        value = document.get(path)
        if value is None and key == "eval_batch_size":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            document.fail(
                path, f"trainer.{key} must be a whole number from 1 (Ludwig's 'auto' is timed, so that two runs differ)"
            )


def check_learning_rate_schedule(document: Document) -> None:
    """`cosine` restarts at each evaluation without t_0; `one_cycle` peaks at 1/25 of the rate without max_lr."""
    path: KeyPath = ("trainer", "learning_rate_scheduler")
    schedule = document.get(path) or {}
    if schedule.get("decay") == "cosine" and not schedule.get("t_0"):
        document.fail(
            (*path, "decay"),
            "Ludwig's cosine restarts at every evaluation unless t_0 (steps) is stated; "
            "state t_0, or use one_cycle, linear or polynomial",
        )
    if schedule.get("decay") == "one_cycle" and not schedule.get("max_lr"):
        document.fail(
            (*path, "decay"),
            "Ludwig's one_cycle peaks at 1/25 of the learning rate unless max_lr is stated; state max_lr",
        )


RULES: tuple[Callable[[Document], None], ...] = (
    check_features,
    check_image_mode,
    check_image_size,
    check_scaling,
    check_pretrained_channels,
    check_positive_class,
    check_calibration,
    check_split,
    check_validation_metric,
    check_learning_rate,
    check_batch_sizes,
    check_learning_rate_schedule,
    component_rules.check_augmentation,
    component_rules.check_ensemble,
    component_rules.check_weight_average,
    component_rules.check_loss_options,
    component_rules.check_class_balancing,
    component_rules.check_model_soup,
)
