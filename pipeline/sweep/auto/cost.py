"""Estimated time of a trial, from rates measured on two cores (docs/benchmarks.md). Works without Ludwig."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REFERENCE = 128
"""Side in pixels of the images at the rates below; time grows with the number of pixels."""

RATES = {"efficientnet_lite": 53.0, "stacked_cnn": 100.0, "resnet18": 30.0, "xrv_densenet": 15.0}
"""Images per second in training on two cores at 128 pixels. Measured: EfficientNet-Lite0 in Ludwig (53; 95 at 96
pixels); the others as ratios to it in a bare torch loop, channels last."""

OTHER_RATE = 12.0
"""Rate of any other network, as of one of the size of a ResNet-50."""

MOST = 1700.0
"""Images per second that Ludwig's loop reaches on two cores with any network (measured at 28 pixels)."""

GPU_FACTOR, GPU_MOST = 15.0, 2500.0
"""Speed of a GPU relative to two cores, and the loop's limit. Cautious guesses: no GPU was available."""

FORWARD = 3.0
"""Speed of evaluation and of frozen networks relative to training: they need no gradients (measured: 3.0)."""

CACHED_VIEWS = 8
"""Views whose features a frozen network keeps unless its `cached_views` says otherwise."""

STARTUP = 60.0
"""Seconds before the first trial trains: Ray, the import of Ludwig in each worker, reading images."""

FIXED = 15.0
"""Seconds per trial besides epochs and predictions: building the network, measuring, writing."""

USABLE = 0.9
"""Share of a time budget that is planned for."""

_WORKER_GIB = 2.5
_BEST_CORES = 4
"""Cores per trial above which two trials use the cores better than one."""


@dataclass(frozen=True)
class Hardware:
    """The hardware of a machine; the memory is None if it is unknown."""

    cores: int
    memory_gib: float | None = None
    gpus: int = 0

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> "Hardware":
        """Return the hardware of `pneumo.pipeline.runs.provenance.read_hardware`."""
        return cls(described["cores"], described.get("memory_gib"), len(described.get("accelerators") or ()))


@dataclass(frozen=True)
class Share:
    """Cores and GPUs (0 or 1) of one trial, and the number of trials at a time."""

    cpus: int
    gpus: int
    at_once: int


@dataclass(frozen=True)
class Images:
    """Number of images in training, in validation, in all splits, and of changed ones that each epoch measures."""

    train: int
    validation: int
    total: int
    changed: int = 0


@dataclass(frozen=True)
class Budget:
    """Seconds of a whole sweep, and each trial's share of the machine."""

    seconds: float
    share: Share

    @property
    def usable(self) -> float:
        """Seconds in which trials can work."""
        return max(0.0, self.seconds * USABLE - STARTUP)

    def whole_trials(self, seconds: float) -> float:
        """Return how many trials of this length fit."""
        return self.usable * self.share.at_once / seconds

    def fits(self, seconds: float, trials: int) -> bool:
        """Return True if so many trials fit, and one of twice the length, for a busy machine."""
        return self.whole_trials(seconds) >= trials and 2 * seconds <= self.usable


def divide_machine(hardware: Hardware, *, images_gib: float = 0.0) -> Share:
    """Divide a machine among trials, which share `images_gib` of memory: one trial per GPU, or per four cores."""
    at_once = hardware.gpus or max(1, hardware.cores // _BEST_CORES)
    if hardware.memory_gib is not None:
        at_once = min(at_once, max(1, int((hardware.memory_gib - images_gib) // _WORKER_GIB)))
    return Share(max(1, hardware.cores // at_once), min(1, hardware.gpus), at_once)


def trial_seconds(encoder: Mapping[str, Any], size: int, images: Images, epochs: int, share: Share) -> float:
    """Return the seconds of a trial that nothing stops early: epochs with their evaluations, then predictions.

    `encoder` is that section of a config; its own `size` has priority over `size`, the side of the images in pixels.
    """
    factor = GPU_FACTOR if share.gpus else (share.cpus / 2) ** 0.8
    trained = min(GPU_MOST if share.gpus else MOST * factor, factor / _image_seconds(encoder, size))
    evaluated = trained * FORWARD / _count_passes(encoder)
    computed = min(epochs, _count_cached_views(encoder) or epochs)  # epochs that pass images through the network
    validated = 1 if _count_cached_views(encoder) else epochs
    training = computed * images.train / trained
    return FIXED + training + (validated * images.validation + epochs * images.changed + images.total) / evaluated


def _image_seconds(encoder: Mapping[str, Any], size: int) -> float:
    """Return the seconds of training on one image, on two cores."""
    if encoder.get("type") == "ensemble":
        members = encoder.get("members") or [{"type": "efficientnet_lite"}]
        return sum(_image_seconds(member, size) for member in members) / len(members)  # each image goes through one
    kind = encoder.get("network") if encoder.get("type") == "backbone" else encoder.get("type", "stacked_cnn")
    pixels = ((encoder.get("size") or size) / REFERENCE) ** 2
    frozen = FORWARD if encoder.get("trainable") is False else 1.0
    return pixels / (RATES.get(str(kind), OTHER_RATE) * frozen)


def _count_cached_views(encoder: Mapping[str, Any]) -> int:
    """Return how many epochs of a frozen network compute features, which later ones take again; 0: all of them."""
    is_cached = encoder.get("trainable") is False and encoder.get("type") != "ensemble"
    return int(encoder.get("cached_views", CACHED_VIEWS)) if is_cached else 0


def _count_passes(encoder: Mapping[str, Any]) -> int:
    """Return how often an image passes through a network in evaluation."""
    if encoder.get("type") == "ensemble":
        members = encoder.get("members") or [{}]
        return int(encoder.get("copies", 1)) * sum(_count_passes(member) for member in members)
    return int(encoder.get("views", 1))
