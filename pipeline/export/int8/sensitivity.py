"""Choice of the convolutions that stay in float: those that change the logits most, as few as possible."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.export.int8.graph import quantize_graph, run_graph
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.images.types import Gray

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime.quantization.calibrate import TensorsData

ENOUGH = 0.2
"""Root mean square change of calibrated log odds that is small enough: a probability of 0.5 moves by 0.05.

EfficientNet-Lite0 on chest X-rays had 0.24 with every layer in integers, and one image whose probability moved by 0.28.
With the two most harmful layers in float it had 0.16 and 0.08, at the same speed. Five gave 0.11 and took a quarter of
the speed (docs/benchmarks.md)."""

GROUPS = 64
"""Most groups of neighbouring convolutions that are tried one by one: it bounds the time for large networks."""

IMAGES = 64
"""Calibration images per trial."""

_GROWTH = 1.5
_MOST = 0.5


@dataclass(frozen=True)
class CalibratedGraph:
    """A folded graph with the ranges of its tensors and the names of its convolutions, at least one, in its order."""

    model: "ModelProto"
    ranges: "TensorsData"
    convolutions: Sequence[str]


def choose_float_layers(
    calibrated: CalibratedGraph,
    images: Sequence[Gray],
    logits: NDArray[np.floating],
    temperature: float,
    reporter: Reporter,
) -> tuple[bytes, list[str]]:
    """Quantise all convolutions, then put the most harmful ones back into float until the change is small.

    Each group of neighbouring convolutions is quantised alone, and groups are ordered by the change. Errors of layers
    add up like independent ones, so that the worst alone are the worst together. At most half of the groups are put
    back. Images are model inputs, uint8 [H, W, C]; logits [N, K] are those of the float graph.

    Returns:
        The graph, and the names of the convolutions in float.
    """
    images, logits = images[:IMAGES], logits[:IMAGES]
    nodes = calibrated.convolutions

    def quantize(integers: Sequence[str]) -> tuple[bytes, float]:
        """Return a graph and its change of log odds."""
        graph = quantize_graph(calibrated.model, calibrated.ranges, integers)
        return graph, rms(log_odds_change(run_graph(graph, images), logits, temperature))

    graph, change = quantize(nodes)
    reporter.message(f"all {len(nodes)} convolutions in integers: log odds change by {change:.3f}")
    if change <= ENOUGH or len(nodes) == 1:
        return graph, []
    groups = group_neighbours(nodes)
    order = np.argsort([quantize(group)[1] for group in groups])[::-1]
    for count in _counts(len(groups)):
        floats = {name for index in order[:count] for name in groups[index]}
        graph, change = quantize([name for name in nodes if name not in floats])
        reporter.message(f"{len(floats)} of {len(nodes)} convolutions in float: log odds change by {change:.3f}")
        if change <= ENOUGH:
            break
    return graph, [name for name in nodes if name in floats]


def log_odds_change(after: NDArray[np.floating], before: NDArray[np.floating], temperature: float) -> Float64:
    """Return the largest change [N] of the calibrated log odds of any two classes, for logits [N, K]."""
    return np.asarray(np.ptp((np.asarray(after, dtype=np.float64) - before) / temperature, axis=1))


def rms(values: Float64) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(values**2)))


def group_neighbours(nodes: Sequence[str]) -> list[list[str]]:
    """Return at most GROUPS groups of consecutive nodes, all of one size except the last."""
    size = -(-len(nodes) // GROUPS)
    return [list(nodes[start : start + size]) for start in range(0, len(nodes), size)]


def _counts(groups: int) -> list[int]:
    """Return the numbers of groups to put back: 1, 2, 3, 5, 8, ... up to half of them, at least one."""
    most = max(1, int(groups * _MOST))
    counts = [1]
    while counts[-1] < most:
        counts.append(min(most, int(np.ceil(counts[-1] * _GROWTH))))
    return counts
