"""Rules beyond Ludwig's schema: each prevents a wrong result that a valid Ludwig config can give."""

from collections.abc import Callable, Iterator

from pneumo.pipeline.config.document import Document
from pneumo.pipeline.config.problems import Problem
from pneumo.pipeline.config.rules import component_rules
from pneumo.pipeline.config.rules.component_rules import ENCODER, LABEL, find_component_schema
from pneumo.pipeline.config.schema import read_ludwig_schema
from pneumo.pipeline.config.selection_metric import find_fault
from pneumo.pipeline.config.suggestions import number_hint
from pneumo.pipeline.config.upgrade import FEATURE_TYPES

_PIXELS = "input_features.0.preprocessing"


def check_features(document: Document) -> Iterator[Problem]:
    """Require one image and one binary or category label; features of other kinds get a line each."""
    for section, kinds, word in (
        ("input_features", ("image",), "image"),
        ("output_features", ("binary", "category"), "binary or category label"),
    ):
        features = document.get(section)
        if not isinstance(features, list) or not all(isinstance(each, dict) for each in features):
            continue
        if not features:
            yield document.wrong(section, f"must hold exactly one feature, one {word}; it holds 0")
        taken = [index for index, each in enumerate(features) if each.get("type") in kinds]
        for index, feature in enumerate(features):
            kind, name, place = feature.get("type"), feature.get("name"), f"{section}.{index}"
            if kind in FEATURE_TYPES and kind not in kinds:
                fix = "leave it out" if taken else f"state one {word} instead"
                yield document.wrong(place, f"({name}) is of type {kind}; pneumo takes one {word} alone: {fix}")
            elif index in taken[1:]:
                fix = "import each view as an image" if word == "image" else "train one config per label"
                yield document.wrong(place, f"({name}) is a second {word}; pneumo takes one: {fix}")
            elif not name:
                yield document.problem(f"{place}.name", f"missing key 'name' under {place}")
            elif feature.get("tied") is not None:
                yield document.wrong(f"{place}.tied", "needs a second feature, but there is only one; leave it out")


def check_image_size(document: Document) -> Iterator[Problem]:
    """Require a size and channels that can be served, and pixels that are no classes."""
    for key in ("height", "width"):
        value = document.get(f"{_PIXELS}.{key}")
        if value is not None and not 8 <= value <= 4096:
            yield document.wrong(f"{_PIXELS}.{key}", f"is {value}; it must be from 8 to 4096 pixels")
    if document.get(f"{_PIXELS}.num_channels") not in (None, 1, 3):
        yield document.wrong(f"{_PIXELS}.num_channels", "must be 1, or 3 for three copies of the gray image")
    for key in ("num_classes", "infer_image_num_classes"):
        if document.get(f"{_PIXELS}.{key}"):
            yield document.wrong(f"{_PIXELS}.{key}", "makes classes of pixels, for masks; leave it out")


def check_scaling(document: Document) -> Iterator[Problem]:
    """Refuse pixel scaling outside the network, which the exported graph would lack."""
    path = f"{_PIXELS}.standardize_image"
    if document.get(path) is not None:
        yield document.wrong(path, "is lost at export; use an encoder that scales pixels itself, or leave it out")
    kind = document.get(f"{ENCODER}.type")
    if kind == "squeezenet":
        why = "takes the scores of photographs' classes for features, and its scaling of pixels is lost at export"
        yield document.wrong(f"{ENCODER}.type", f"is {kind}, which {why}; choose another, such as mobilenetv3")


def check_pretrained_channels(document: Document) -> Iterator[Problem]:
    """Require three channels for networks made for photographs; Ludwig would fail with torch's message in training."""
    kind, path = document.get(f"{ENCODER}.type"), f"{_PIXELS}.num_channels"
    if "use_pretrained" in find_component_schema("encoder", kind) and document.get(path) == 1:
        yield document.problem(
            path, f"encoder {kind!r} takes three channels; write num_channels: 3 (copies of the gray image)"
        )


def check_validation_metric(document: Document) -> Iterator[Problem]:
    """Require a metric of the label, which chooses the best epoch."""
    metric, field = document.get("trainer.validation_metric"), document.get("trainer.validation_field")
    if metric is not None and (fault := find_metric_fault(document, metric)):
        yield document.wrong("trainer.validation_metric", fault)
    if field not in (None, document.get(f"{LABEL}.name")):
        yield document.wrong("trainer.validation_field", f"is {field!r}, but there is only one label; leave it out")


def find_metric_fault(document: Document, metric: str) -> str | None:
    """Return what is wrong with a metric that chooses epochs or ranks trials, and the fix."""
    kind, backend = document.get(f"{LABEL}.type"), document.get("backend.type", "local")
    return find_fault(metric, read_ludwig_schema()["metrics"][kind], label_type=kind, backend=backend)


def check_learning_rate(document: Document) -> Iterator[Problem]:
    """Require a number in (0, 1] or `auto`; Ludwig takes any number, and text."""
    path = "trainer.learning_rate"
    value = document.get(path)
    if value is None or value == "auto":
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield document.wrong(path, f"must be a number, not {value!r}{number_hint(value)}")
    elif not 0 < value <= 1:
        yield document.wrong(path, f"is {value}; it must be above 0 and at most 1")


def check_batch_sizes(document: Document) -> Iterator[Problem]:
    """Require batch sizes that are whole numbers or `auto`; Ludwig takes text."""
    for path in ("trainer.batch_size", "trainer.eval_batch_size"):
        value = document.get(path)
        is_size = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not is_size and value not in (None, "auto"):
            yield document.wrong(
                path, f"must be a whole number from 1, or auto, not {value!r}{number_hint(value, True)}"
            )


def check_learning_rate_schedule(document: Document) -> Iterator[Problem]:
    """Require `t_0` for `cosine` (else it restarts) and `max_lr` for `one_cycle`, if they cannot be completed."""
    section = "trainer.learning_rate_scheduler"
    path, schedule = f"{section}.decay", document.get(section) or {}
    others = [key for key in document.get("preprocessing") or () if key != "split"]
    if schedule.get("decay") == "cosine" and not schedule.get("t_0") and others:
        why = f"restarts at every evaluation unless t_0 is stated, in steps, whose number depends on {others[0]}"
        yield document.wrong(path, f"is cosine, which {why}; state t_0", f"{section}.t_0")
    is_auto = document.get("trainer.learning_rate") == "auto"
    if schedule.get("decay") == "one_cycle" and not schedule.get("max_lr") and is_auto:
        yield document.wrong(path, "is one_cycle, whose peak is not known; state max_lr", f"{section}.max_lr")


RULES: tuple[Callable[[Document], Iterator[Problem]], ...] = (
    *(check_image_size, check_scaling, check_pretrained_channels, check_validation_metric),
    *(check_learning_rate, check_batch_sizes, check_learning_rate_schedule),
    *(component_rules.check_augmentation, component_rules.check_ensemble, component_rules.check_frozen_network),
    *(component_rules.check_loss_options, component_rules.check_class_balancing),
)
