"""Settings from the shipped configs that are known to be good: augmentations, networks, and their training length."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Augmentation = list[dict[str, Any]]

NONE: Augmentation = []
LIGHT: Augmentation = [{"type": "random_brightness"}, {"type": "random_contrast"}]
"""Augmentation of efficientnet_lite0.yaml."""
MODERATE: Augmentation = yaml.safe_load("""
- {type: radiograph_affine, probability: 0.85, rotation: 10, scale_min: 0.85, scale_max: 1.25, aspect: 1.4,
   translate: 0.06, shear: 5, flip: 0.5}
- {type: radiograph_intensity, probability: 0.85, gamma_min: 0.67, gamma_max: 1.5, brightness_min: -0.08,
   brightness_max: 0.08, curve: 0.3}
- {type: radiograph_sharpness, probability: 0.6, blur: 0.5, downsample: 0.2, unsharp: 0.3, sigma_max: 2, amount: 1.5}
- {type: radiograph_noise, probability: 0.3, gaussian: 0.04}
""")
"""Augmentation of recommended.yaml."""

MAX_LR, RATE = "trainer.learning_rate_scheduler.max_lr", "trainer.learning_rate"
DECAY, BATCH = "trainer.optimizer.weight_decay", "trainer.batch_size"

WHY_PEAK = "Peak of one_cycle, which replaces learning_rate."
WHY_AUGMENTATION = (
    "None, light, or moderate, which is recommended.yaml's against other scanners. Clean validation images hardly "
    "reward it; `pneumo evaluate --stress` shows its benefit."
)

USUAL = 128
"""Side in pixels of the shipped configs: larger images were never better (docs/benchmarks.md)."""

PRETRAINED: dict[str, Any] = {"type": "efficientnet_lite", "pretrained": True, "dropout": 0.2}
RESNET: dict[str, Any] = {"type": "backbone", "network": "resnet18"}

_SHOWN = {
    **dict.fromkeys((224, 192, 160), (18_000,)),
    128: (18_000, 14_500, 11_000),
    112: (11_000,),
    96: (14_500, 11_000, 7_300),
    64: (7_300,),
}
"""Number of images shown to a pretrained network by side in pixels, from the best. On the real X-rays 18,000 at 128
pixels reached a validation AUROC of 0.998 to 1.000, 11,000 one of 0.999; 5,600 at 96 pixels one of 0.998."""

_SHOWN_RANDOM = {128: (55_000, 28_000), 96: (28_000,), 64: (28_000, 15_000)}
"""The same for a small network from random weights: baseline.yaml shows 55,000."""

_WIDTHS = (16, 32, 64, 128, 256)
_LEAST_SIDE = 3
_LEAST_EPOCHS, _MOST_EPOCHS = 2, 40


@dataclass(frozen=True)
class Network:
    """The section `encoder` of a network, the side of its images in pixels, and its epochs."""

    encoder: dict[str, Any]
    size: int
    epochs: int

    @property
    def pretrained(self) -> bool:
        """True if it starts from ImageNet weights."""
        return bool(self.encoder["type"] == PRETRAINED["type"])


def list_networks(stored: int, train: int, *, weights: bool) -> Iterator[Network]:
    """Yield candidate networks for `train` images of `stored` pixels a side, the best first."""

    def count_epochs(shown: int) -> int:
        return min(max(round(shown / train), _LEAST_EPOCHS), _MOST_EPOCHS)

    if weights and stored < 64:
        for shown in (18_000, 11_000):  # the network halves its images five times, so small images are enlarged
            yield Network(PRETRAINED, min(3 * stored, 96), count_epochs(shown))
    elif weights:
        for side in filter(lambda side: side <= stored, _SHOWN):
            yield from (Network(PRETRAINED, side, count_epochs(shown)) for shown in _SHOWN[side])
    for side in filter(lambda side: side <= max(stored, 64), _SHOWN_RANDOM):
        for shown in _SHOWN_RANDOM[side]:
            yield Network({"type": "stacked_cnn"}, min(side, stored), count_epochs(shown))


def make_cnns(size: int) -> list[dict[str, Any]]:
    """Return networks like that of baseline.yaml, the second; each layer halves the side `size` to 3 pixels or more."""
    depth = max(2, sum(size >> layer >= _LEAST_SIDE for layer in range(1, 5)))
    layer = {"kernel_size": 3, "stride": 1, "padding": "same", "pool_kernel_size": 2, "pool_stride": 2, "norm": "batch"}
    return [
        {
            "type": "stacked_cnn",
            "conv_layers": [{"out_channels": width} | layer for width in widths],
            "fc_layers": [{"output_size": 128, "dropout": 0.3}],
        }
        for widths in (_WIDTHS[: depth - 1], _WIDTHS[:depth], _WIDTHS[1 : depth + 1])
    ]
