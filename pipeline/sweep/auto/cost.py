"""How long a trial takes, from figures that were measured on two cores (docs/benchmarks.md). Works without Ludwig."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REFERENCE = 128
"""Side, in pixels, that the rates below are for; time grows with the number of pixels."""

RATES = {"efficientnet_lite": 53.0, "stacked_cnn": 100.0, "resnet18": 30.0, "xrv_densenet": 15.0}
"""Images a second in training on two cores at 128 pixels. Measured: EfficientNet-Lite0 in Ludwig (53; 95 at 96 pixels);
the others as ratios to it in a bare torch loop, channels last."""

OTHER_RATE = 12.0
"""Any other network: like one of the size of a ResNet-50."""

MOST = 1700.0
"""Images a second that Ludwig's loop reaches on two cores, however small the network is (measured at 28 pixels)."""

GPU_FACTOR, GPU_MOST = 15.0, 2500.0
"""A GPU against two cores, and what the loop feeds it at most. Careful guesses: no GPU was at hand."""

FORWARD = 3.0
"""Evaluation and frozen networks against training: they need no gradients (measured: 3.0)."""

STARTUP = 60.0
"""Seconds before the first trial trains: Ray, the import of Ludwig in each worker, reading images."""

FIXED = 15.0
"""Seconds a trial takes besides epochs and predictions: building the network, measuring, writing."""

_WORKER_GIB = 2.5
_BEST_CORES = 4
"""More cores than this serve two trials better than one."""


@dataclass(frozen=True)
class Hardware:
    """What there is to use.

    Attributes:
        cores: Processor cores.
        memory_gib: Main memory in GiB, None where unknown.
        gpus: GPUs.
    """

    cores: int
    memory_gib: float | None = None
    gpus: int = 0

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> "Hardware":
        """From what `pneumo.pipeline.runs.provenance.read_hardware` says."""
        return cls(described["cores"], described.get("memory_gib"), len(described.get("accelerators") or ()))


@dataclass(frozen=True)
class Share:
    """What one trial gets: cores, GPUs (0 or 1), and how many trials run at once."""

    cpus: int
    gpus: int
    at_once: int


@dataclass(frozen=True)
class Images:
    """How many images a trial meets: in training, in validation, and in all splits together."""

    train: int
    validation: int
    total: int


def share(hardware: Hardware, *, images_gib: float = 0.0) -> Share:
    """Divide a machine among trials: a trial a GPU, or one for every four cores, as memory allows.

    Args:
        hardware: The machine.
        images_gib: The data set as it lies in memory, once for all trials, in GiB.
    """
    at_once = hardware.gpus or max(1, hardware.cores // _BEST_CORES)
    if hardware.memory_gib is not None:
        at_once = min(at_once, max(1, int((hardware.memory_gib - images_gib) // _WORKER_GIB)))
    return Share(max(1, hardware.cores // at_once), min(1, hardware.gpus), at_once)


def rate(encoder: Mapping[str, Any], size: int, given: Share) -> float:
    """Images a second in training.

    Args:
        encoder: The section `encoder` of a config.
        size: Side of the images that the model takes, in pixels; an encoder's own `size` goes before it.
        given: What the trial gets.
    """
    factor = GPU_FACTOR if given.gpus else (given.cpus / 2) ** 0.8
    most = GPU_MOST if given.gpus else MOST * factor
    return min(most, factor / _seconds(encoder, size))


def trial_seconds(encoder: Mapping[str, Any], size: int, images: Images, epochs: int, given: Share) -> float:
    """Seconds of one trial that nothing stops early: epochs with their evaluations, and predictions at the end."""
    trained = rate(encoder, size, given)
    evaluated = trained * FORWARD / _evaluations(encoder)
    epoch = images.train / trained + images.validation / evaluated
    return FIXED + epochs * epoch + images.total / evaluated


def _seconds(encoder: Mapping[str, Any], size: int) -> float:
    """Seconds to train on one image, on two cores."""
    if encoder.get("type") == "ensemble":
        members = encoder.get("members") or [{"type": "efficientnet_lite"}]
        return sum(_seconds(member, size) for member in members) / len(members)  # each image goes through one
    kind = encoder.get("network") if encoder.get("type") == "backbone" else encoder.get("type", "stacked_cnn")
    pixels = ((encoder.get("size") or size) / REFERENCE) ** 2
    frozen = FORWARD if encoder.get("trainable") is False else 1.0
    return pixels / (RATES.get(str(kind), OTHER_RATE) * frozen)


def _evaluations(encoder: Mapping[str, Any]) -> int:
    """How many passes through a network an image takes in evaluation."""
    if encoder.get("type") == "ensemble":
        members = encoder.get("members") or [{}]
        return int(encoder.get("copies", 1)) * sum(_evaluations(member) for member in members)
    return int(encoder.get("views", 1))
