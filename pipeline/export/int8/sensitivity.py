"""Which convolutions stay in float: those that change the logits most, as few as it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.export.int8.graph import quantize_graph, run_graph
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.images.types import Gray

ENOUGH = 0.2
"""Root mean square change of calibrated log odds at which no more layers are put back: a probability of 0.5 moves by
0.05. EfficientNet-Lite0 on chest X-rays had 0.24 with every layer in integers, and an image whose probability moved by
0.28; with the two layers in float that hurt most 0.16 and 0.08, at the same speed. Five gave 0.11 and took a quarter of
the speed (docs/benchmarks.md)."""

GROUPS = 64
"""Most groups of neighbouring convolutions that are tried one by one: it bounds the time for large networks."""

IMAGES = 64
"""Calibration images that a trial runs on."""

_GROWTH = 1.5
_MOST = 0.5


@dataclass(frozen=True)
class FloatLayers:
    """A quantised graph, and the names of the convolutions that it computes in integers and in float."""

    graph: bytes
    integers: list[str]
    floats: list[str]


def choose_float_layers(
    model: Any,
    ranges: Any,
    nodes: Sequence[str],
    images: Sequence[Gray],
    logits: NDArray[np.floating],
    temperature: float,
    reporter: Reporter,
) -> FloatLayers:
    """Quantise all convolutions, then put back into float those that hurt most until the change is small.

    Each group of neighbouring convolutions is quantised alone and the groups are ordered by what that changes: errors
    of layers add up as independent ones do, so that the worst alone are the worst together.

    Args:
        model: The folded graph.
        ranges: Of its tensors.
        nodes: Names of its convolutions, at least one, in the graph's order.
        images: Model inputs, uint8 [H, W, C] each.
        logits: What the float graph says of them, [N, K].
        temperature: What logits are divided by.
        reporter: Receives progress.

    Returns:
        The first graph that changes little enough; with half of the groups in float, that one, however much it changes.
    """
    images, logits = images[:IMAGES], logits[:IMAGES]

    def changed(graph: bytes) -> float:
        return rms(log_odds_change(run_graph(graph, images), logits, temperature))

    graph = quantize_graph(model, ranges, nodes)
    change = changed(graph)
    reporter.message(f"all {len(nodes)} convolutions in integers: log odds change by {change:.3f}")
    if change <= ENOUGH or len(nodes) == 1:
        return FloatLayers(graph, list(nodes), [])
    groups = neighbours(nodes)
    alone = [changed(quantize_graph(model, ranges, group)) for group in groups]
    order = np.argsort(alone)[::-1]
    for count in _counts(len(groups)):
        back = {name for index in order[:count] for name in groups[index]}
        integers = [name for name in nodes if name not in back]
        graph = quantize_graph(model, ranges, integers)
        change = changed(graph)
        reporter.message(f"{len(back)} of {len(nodes)} convolutions in float: log odds change by {change:.3f}")
        if change <= ENOUGH:
            break
    return FloatLayers(graph, integers, [name for name in nodes if name in back])


def log_odds_change(after: NDArray[np.floating], before: NDArray[np.floating], temperature: float) -> Float64:
    """Largest change of the calibrated log odds of any two classes, for logits [N, K]; [N]."""
    change = (np.asarray(after, dtype=np.float64) - before) / temperature
    return np.asarray(change.max(axis=1) - change.min(axis=1))


def rms(values: Float64) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(values**2)))


def neighbours(nodes: Sequence[str]) -> list[list[str]]:
    """At most GROUPS groups of nodes that follow each other, of one size but the last."""
    size = -(-len(nodes) // GROUPS)
    return [list(nodes[start : start + size]) for start in range(0, len(nodes), size)]


def _counts(groups: int) -> list[int]:
    """How many groups to put back: 1, 2, 3, 5, 8, ... up to half of them, at least one."""
    most = max(1, int(groups * _MOST))
    counts = [1]
    while counts[-1] < most:
        counts.append(min(most, int(np.ceil(counts[-1] * _GROWTH))))
    return counts
