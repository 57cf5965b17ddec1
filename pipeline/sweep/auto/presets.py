"""What is known to be good: augmentations, networks and how much they are shown, from the shipped configs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NONE: list[dict[str, Any]] = []
LIGHT: list[dict[str, Any]] = [{"type": "random_brightness"}, {"type": "random_contrast"}]
MODERATE: list[dict[str, Any]] = [
    {
        "type": "radiograph_affine",
        "probability": 0.85,
        "rotation": 10,
        "scale_min": 0.85,
        "scale_max": 1.25,
        "aspect": 1.4,
        "translate": 0.06,
        "shear": 5,
        "flip": 0.5,
    },
    {
        "type": "radiograph_intensity",
        "probability": 0.85,
        "gamma_min": 0.67,
        "gamma_max": 1.5,
        "brightness_min": -0.08,
        "brightness_max": 0.08,
        "curve": 0.3,
    },
    {
        "type": "radiograph_sharpness",
        "probability": 0.6,
        "blur": 0.5,
        "downsample": 0.2,
        "unsharp": 0.3,
        "sigma_max": 2,
        "amount": 1.5,
    },
    {"type": "radiograph_noise", "probability": 0.3, "gaussian": 0.04},
]
"""Augmentation by strength: `LIGHT` is that of efficientnet_lite0.yaml, `MODERATE` that of recommended.yaml."""

MAX_LR, RATE = "trainer.learning_rate_scheduler.max_lr", "trainer.learning_rate"
DECAY, BATCH = "trainer.optimizer.weight_decay", "trainer.batch_size"

WHY_PEAK = "Peak of one_cycle, which takes the place of learning_rate."
WHY_AUGMENTATION = (
    "None, light, or moderate: what recommended.yaml does against other scanners. Clean validation images hardly "
    "reward it; `pneumo evaluate --stress` shows what it is good for."
)

USUAL = 128
"""Side in pixels that the shipped configs use: larger was never better (docs/benchmarks.md)."""

PRETRAINED: dict[str, Any] = {"type": "efficientnet_lite", "pretrained": True, "dropout": 0.2}
RESNET: dict[str, Any] = {"type": "backbone", "network": "resnet18"}

_LARGE = (224, 192, 160)
_SHOWN = (
    (128, 18_000),
    (128, 14_500),
    (128, 11_000),
    (112, 11_000),
    (96, 14_500),
    (96, 11_000),
    (96, 7_300),
    (64, 7_300),
)
"""Side in pixels and images shown, from the best. On the real X-rays 18,000 at 128 pixels reached a validation AUROC of
0.998 to 1.000, 11,000 one of 0.999; 5,600 at 96 pixels one of 0.998."""

_SHOWN_RANDOM = ((128, 55_000), (128, 28_000), (96, 28_000), (64, 28_000), (64, 15_000))
"""The same for a small network from random weights: baseline.yaml shows 55,000."""

_WIDTHS = (16, 32, 64, 128, 256)
_LEAST_SIDE = 3
_LEAST_EPOCHS, _MOST_EPOCHS = 2, 40


@dataclass(frozen=True)
class Network:
    """A network as a config says it, the side of its images in pixels, and the epochs that it should have."""

    encoder: dict[str, Any]
    size: int
    epochs: int

    @property
    def pretrained(self) -> bool:
        """Whether it starts from ImageNet weights."""
        return bool(self.encoder["type"] == PRETRAINED["type"])


def networks(stored: int, train: int, *, weights: bool) -> Iterator[Network]:
    """What to choose from, the best first; none takes images larger than the stored ones, but for very small ones.

    Args:
        stored: Side of the stored images, in pixels.
        train: Training images.
        weights: Whether ImageNet weights are at hand.
    """
    if weights and stored < 64:
        for shown in (18_000, 11_000):  # the network halves its images five times: it needs them enlarged
            yield Network(PRETRAINED, min(3 * stored, 96), _epochs(shown, train))
    elif weights:
        steps = [(side, 18_000) for side in _LARGE] + list(_SHOWN)
        for side, shown in steps:
            if side <= stored:
                yield Network(PRETRAINED, side, _epochs(shown, train))
    for side, shown in _SHOWN_RANDOM:
        if side <= max(stored, 64):
            yield Network({"type": "stacked_cnn"}, min(side, stored), _epochs(shown, train))


def cnns(size: int) -> list[dict[str, Any]]:
    """Networks like that of baseline.yaml from small to large, the second one it.

    Args:
        size: Side of the images, in pixels; each layer halves it, to 3 pixels at least.
    """
    depth = max(2, sum(size >> layer >= _LEAST_SIDE for layer in range(1, 5)))
    return [_cnn(widths) for widths in (_WIDTHS[: depth - 1], _WIDTHS[:depth], _WIDTHS[1 : depth + 1])]


def _cnn(widths: tuple[int, ...]) -> dict[str, Any]:
    layer = {"kernel_size": 3, "stride": 1, "padding": "same", "pool_kernel_size": 2, "pool_stride": 2, "norm": "batch"}
    return {
        "type": "stacked_cnn",
        "conv_layers": [{"out_channels": width} | layer for width in widths],
        "fc_layers": [{"output_size": 128, "dropout": 0.3}],
    }


def _epochs(shown: int, train: int) -> int:
    return min(max(round(shown / train), _LEAST_EPOCHS), _MOST_EPOCHS)
