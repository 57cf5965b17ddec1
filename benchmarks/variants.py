"""Variants of the recommended config that `screening.py` and `leave_source_out.py` train: one network a variant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from pneumo.pipeline import config
from pneumo.pipeline.config.experiment import Experiment

ROOT = Path(__file__).parents[1]
RECOMMENDED = ROOT / "ludwig_configs" / "recommended.yaml"
NETWORK = {
    "type": "efficientnet_lite",
    "batch_norm": "frozen",
    "normalization": "standardize",
    "views": 1,
    "dropout": 0.3,
}
Step = Mapping[str, object]

LIGHT: tuple[Step, ...] = (
    {
        "type": "radiograph_affine",
        "rotation": 5,
        "scale_min": 1,
        "scale_max": 1,
        "aspect": 1,
        "translate": 0,
        "flip": 0.5,
    },
    {
        "type": "radiograph_intensity",
        "contrast_min": 0.9,
        "contrast_max": 1.1,
        "gamma_min": 1,
        "gamma_max": 1,
        "curve": 0,
    },
)
STYLE: Step = {"type": "radiograph_style", "probability": 0.5, "strength": 0.8, "band": 0.03}
ERASING: Step = {"type": "radiograph_erasing", "probability": 0.3}


@dataclass(frozen=True)
class Variant:
    """What differs from one EfficientNet-Lite0 at 96 pixels with the recommended augmentation.

    Attributes:
        encoder: Options of the encoder.
        without: Kinds of augmentation that are left out.
        added: Augmentations after the recommended ones.
        light: Only light augmentation instead.
        longer: Factor to the number of epochs. Each of three members of an ensemble sees a third of the images in an
            epoch, so that 3 is what a member gets that is shown all of them.
        overrides: Other values of the config.
    """

    encoder: Mapping[str, object] = field(default_factory=dict)
    side: int = 96
    without: tuple[str, ...] = ()
    added: tuple[Step, ...] = ()
    light: bool = False
    longer: float = 1
    overrides: tuple[str, ...] = ()


VARIANTS = {
    "base": Variant(),
    "three times as long": Variant(longer=3),
    "three times as long, half the rate": Variant(
        longer=3, overrides=("trainer.learning_rate=0.0002", "trainer.learning_rate_scheduler.max_lr=0.0002")
    ),
    "three times as long, lite2": Variant({"network": "lite2"}, longer=3),
    "lite1": Variant({"network": "lite1"}),
    "lite2": Variant({"network": "lite2"}),
    "with style": Variant(added=(STYLE,)),
    "with style and erasing": Variant(added=(STYLE, ERASING)),
    "no standardising": Variant({"normalization": "none"}),
    "batch norm trained": Variant({"batch_norm": "train"}),
    "stochastic depth": Variant({"drop_path": 0.2}),
    "weight average 0.998": Variant({"weight_average": 0.998}),
    "two views": Variant({"views": 2}),
    "no smoothing": Variant(overrides=("output_features.0.loss.smoothing=0",)),
    "64 px": Variant(side=64),
    "128 px": Variant(side=128),
    "160 px": Variant(side=160),
    "without affine": Variant(without=("affine",)),
    "without intensity": Variant(without=("intensity",)),
    "without sharpness": Variant(without=("sharpness",)),
    "light augmentation": Variant(light=True),
    "light, batch norm trained, no standardising": Variant(
        {"batch_norm": "train", "normalization": "none"}, light=True
    ),
    "frozen network": Variant(  # a head needs more steps, and features are computed for eight of its epochs only
        {"trainable": False},
        longer=8,
        overrides=("trainer.learning_rate=0.004", "trainer.learning_rate_scheduler.max_lr=0.004"),
    ),
    "random weights": Variant({"pretrained": False, "batch_norm": "train"}),
}


def load_variant(name: str, epochs: int, overrides: Sequence[str] = ()) -> Experiment:
    """Return the recommended config with a variant's encoder, augmentations and input size."""
    variant = VARIANTS[name]
    recommended = yaml.safe_load(RECOMMENDED.read_text(encoding="utf-8"))["input_features"][0]["augmentation"]
    left = [step for step in recommended if step["type"].removeprefix("radiograph_") not in variant.without]
    steps = [dict(step) for step in (*(LIGHT if variant.light else left), *variant.added)]
    return config.load_config(
        RECOMMENDED,
        [
            f"input_features.0.encoder={yaml.safe_dump(NETWORK | dict(variant.encoder), default_flow_style=True)}",
            f"input_features.0.augmentation={yaml.safe_dump(steps, default_flow_style=True)}",
            *(f"input_features.0.preprocessing.{key}={variant.side}" for key in ("height", "width")),
            f"trainer.epochs={max(1, round(epochs * variant.longer))}",
            "trainer.batch_size=32",
            *variant.overrides,
            *overrides,
        ],
    )
