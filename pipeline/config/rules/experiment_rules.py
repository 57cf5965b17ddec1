"""Rules beyond Ludwig's schema: each prevents a wrong result that a valid Ludwig config can give."""

from collections.abc import Callable

from pneumo.pipeline.config import schema
from pneumo.pipeline.config.document import Document
from pneumo.pipeline.config.rules import component_rules
from pneumo.pipeline.config.rules.component_rules import ENCODER, LABEL, find_component_schema

_PIXELS = "input_features.0.preprocessing"


def check_rules(document: Document) -> None:
    """Apply every rule; raise an `InputError` for the first that is broken, with file, line and fix."""
    for rule in RULES:
        rule(document)


def check_features(document: Document) -> None:
    """Require exactly one image feature and one label feature."""
    for section, kinds, word in (
        ("input_features", ("image",), "an image"),
        ("output_features", ("binary", "category"), "a binary or category label"),
    ):
        features = document.data[section]
        if len(features) != 1:
            document.reject(section, f"must hold exactly one feature, {word}; it holds {len(features)}")
        feature, place = features[0], f"{section}.0"
        for key in ("name", "type"):
            if not feature.get(key):
                document.fail(place, f"missing key {key!r} under {place}")
        if feature.get("column", feature["name"]) != feature["name"]:
            document.reject(f"{place}.column", "differs from its name; leave it out")
        if feature.get("tied") is not None:
            document.reject(f"{place}.tied", "needs a second feature, but there is only one; leave it out")
        if feature["type"] not in kinds:
            document.reject(f"{place}.type", f"is {feature['type']!r}; it must be {word}")


def check_image_mode(document: Document) -> None:
    """Require `eager`: `lazy` decodes in every epoch, `lazy_cached` can use test images for validation."""
    if document.get(f"{_PIXELS}.mode") != "eager":
        why = "lazy, the default, decodes all images in every epoch; lazy_cached can use test images for validation"
        document.reject(f"{_PIXELS}.mode", f"must be 'eager' ({why})")


def check_image_size(document: Document) -> None:
    """Require size and channels: the exported model's input must not depend on what Ludwig infers."""
    for key in ("height", "width"):
        value = document.get(f"{_PIXELS}.{key}")
        if not isinstance(value, int) or not 8 <= value <= 4096:
            document.reject(f"{_PIXELS}.{key}", f"must be stated, from 8 to 4096 pixels, such as {key}: 224")
    if document.get(f"{_PIXELS}.num_channels") not in (1, 3):
        document.reject(f"{_PIXELS}.num_channels", "must be stated: 1, or 3 for three copies of the gray image")


def check_scaling(document: Document) -> None:
    """Refuse pixel scaling outside the network, which the exported graph would lack."""
    path = f"{_PIXELS}.standardize_image"
    if document.get(path) is not None:
        document.reject(path, "is lost at export; use an encoder that scales pixels itself, or leave it out")
    kind = document.get(f"{ENCODER}.type")
    if "model_variant" in find_component_schema("encoder", kind):
        document.fail(
            f"{ENCODER}.type",
            f"encoder {kind!r} forces torchvision's own size, channels and scaling, which are lost at export; "
            "use {type: backbone, library: torchvision, network: ...}, which has the same networks",
        )


def check_pretrained_channels(document: Document) -> None:
    """Require three channels for networks made for photographs; Ludwig would fail with torch's message in training."""
    kind, path = document.get(f"{ENCODER}.type"), f"{_PIXELS}.num_channels"
    if "use_pretrained" in find_component_schema("encoder", kind) and document.get(path) != 3:
        document.fail(path, f"encoder {kind!r} takes three channels; write num_channels: 3 (copies of the gray image)")


def check_positive_class(document: Document) -> None:
    """Require the positive class: Ludwig takes the first in alphabetical order, which is NORMAL."""
    path = f"{LABEL}.preprocessing.fallback_true_label"
    if document.get(f"{LABEL}.type") == "binary" and not document.get(path):
        why = "Ludwig takes the first in alphabetical order"
        document.fail(path, f"a binary label needs its positive class stated: {path}: PNEUMONIA ({why})")


def check_calibration(document: Document) -> None:
    """Refuse Ludwig's calibration: pneumo fits a temperature itself, and would apply its own on top."""
    if document.get(f"{LABEL}.calibration"):
        problem = "must not be set: pneumo fits a temperature on validation itself; leave it out"
        document.reject(f"{LABEL}.calibration", problem)


def check_split(document: Document) -> None:
    """Require the data set's split: Ludwig's own ignore patients."""
    path = "preprocessing.split"
    split = document.get(path) or {}
    if split.get("type") != "fixed" or split.get("column", "split") != "split":
        document.reject(path, "must be {type: fixed, column: split}: any other split puts a patient on both sides")


def check_validation_metric(document: Document) -> None:
    """Require a metric of the label, which chooses the best epoch."""
    metric, field = document.get("trainer.validation_metric"), document.get("trainer.validation_field")
    metrics = schema.read_ludwig_schema()["metrics"][document.get(f"{LABEL}.type")]
    if metric is not None and metric not in metrics:
        document.reject("trainer.validation_metric", f"is {metric!r}; choose from {', '.join(metrics)}")
    if field not in (None, document.get(f"{LABEL}.name")):
        document.reject("trainer.validation_field", f"is {field!r}, but there is only one label; leave it out")


def check_learning_rate(document: Document) -> None:
    """Require a number in (0, 1] or `auto`; Ludwig takes any number, and text."""
    path = "trainer.learning_rate"
    value = document.get(path)
    if value is None or value == "auto":
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = schema.number_hint(value) if isinstance(value, str) else ""
        document.reject(path, f"must be a number, not {value!r}{hint}")
    if not 0 < value <= 1:
        document.reject(path, f"is {value}; it must be above 0 and at most 1")


def check_batch_sizes(document: Document) -> None:
    """Require batch sizes: Ludwig's `auto` measures time, so that two runs differ."""
    for path in ("trainer.batch_size", "trainer.eval_batch_size"):
        value = document.get(path)
        is_size = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not is_size and (value is not None or path == "trainer.batch_size"):
            why = "Ludwig's 'auto' measures time, so that two runs differ"
            document.reject(path, f"must be a whole number from 1 ({why})")


def check_learning_rate_schedule(document: Document) -> None:
    """Require `t_0` for `cosine` (else it restarts) and `max_lr` for `one_cycle` (else 1/25 of the rate)."""
    path = "trainer.learning_rate_scheduler.decay"
    schedule = document.get("trainer.learning_rate_scheduler") or {}
    if schedule.get("decay") == "cosine" and not schedule.get("t_0"):
        fix = "state t_0, or use one_cycle, linear or polynomial"
        document.reject(path, f"is cosine, which restarts at every evaluation unless t_0 (in steps) is stated; {fix}")
    if schedule.get("decay") == "one_cycle" and not schedule.get("max_lr"):
        why = "peaks at 1/25 of the learning rate unless max_lr is stated"
        document.reject(path, f"is one_cycle, which {why}; state max_lr")


RULES: tuple[Callable[[Document], None], ...] = (
    *(check_features, check_image_mode, check_image_size, check_scaling, check_pretrained_channels),
    *(check_positive_class, check_calibration, check_split, check_validation_metric),
    *(check_learning_rate, check_batch_sizes, check_learning_rate_schedule),
    *(component_rules.check_augmentation, component_rules.check_ensemble, component_rules.check_weight_average),
    *(component_rules.check_loss_options, component_rules.check_class_balancing, component_rules.check_model_soup),
)
