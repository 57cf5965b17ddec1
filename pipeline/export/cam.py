"""Class activation maps as one more output of an exported graph (Zhou et al., Learning Deep Features, CVPR 2016).

If logits are linear over globally averaged features, the same linear map at each place of the features gives a map of
logits whose mean over the image is the logit itself. All of it is read from the ONNX graph, so that it works for any
network. The graph's edges give the averages that the logits depend on. Running the part after the averages on unit
vectors gives the linear map, and on random vectors the proof that it is linear. There may be several averages: of the
members of an ensemble, and of the views of one member.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float32, Float64
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.predictor import MAPS, open_session

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto
    from onnxruntime import InferenceSession

TOLERANCE = 1e-4
"""Largest difference between the mean of a map and its logit."""

_PREFIX = "maps."
_CHUNK = 256
_TRIES = 96

_Constants = Mapping[str, NDArray[np.generic]]


class NoMapsError(InputError):
    """A graph whose logits are not linear over globally averaged features."""


@dataclass(frozen=True)
class _Average:
    """A mean over height and width, the tensor `pooled`, of the tensor `features` [N, C, h, w]."""

    features: str
    pooled: str
    mirrored: bool


@dataclass(frozen=True)
class _Head:
    """The part after the averages: logits = sum over averages of pooled @ weights [C, K] + bias [K]."""

    weights: tuple[Float32, ...]
    bias: Float32


def add_cam_output(model: "ModelProto", images: Float32) -> "ModelProto":
    """Return a copy of a graph with the output `maps`, float32 [N, K, h, w], whose mean over h and w is `logits`.

    The bias is part of the maps, the same at each place. Maps of several sizes are enlarged to the largest, each cell
    by the area it covers, which keeps their means; those of mirror images are mirrored back. Real images, float32
    [N, C, H, W] with N >= 1, are the input `image` for the proof.

    Raises:
        NoMapsError: Logits are not linear over globally averaged features, or not to `TOLERANCE`.
    """
    averages, between = _find_averages(model.graph)
    tensors = _read_tensors(model, [name for each in averages for name in (each.features, each.pooled)], images)
    if any(tensors[each.features].ndim != 4 for each in averages):
        raise NoMapsError("the logits depend on means over something else than height and width")
    head = _measure_head(model, averages, between, [tensors[each.pooled] for each in averages], images.shape[1:])
    mapped = copy.deepcopy(model)
    _append_maps(mapped.graph, averages, head, [tensors[each.features].shape[2:] for each in averages])
    logits, maps = start_session(mapped).run(["logits", MAPS], {"image": images})
    error = float(np.abs(maps.mean(axis=(2, 3), dtype=np.float64) - logits).max())
    if not error <= TOLERANCE:
        raise NoMapsError(f"the means of the maps differ from the logits by {error:.1e}, more than {TOLERANCE:.0e}")
    return mapped


def _find_averages(graph: "GraphProto") -> "tuple[list[_Average], list[NodeProto]]":
    """Return the averages that the logits depend on, and the nodes between them and the logits in the graph's order."""
    constants = _read_constants(graph)
    producers = {name: node for node in graph.node for name in node.output}
    mirrored = _trace_mirroring(graph, constants)
    averages: dict[str, _Average] = {}
    between: set[str] = set()
    ahead = ["logits"]
    while ahead:
        name = ahead.pop()
        if name in constants or name in between or name in averages or not name:
            continue
        if name not in producers:
            raise NoMapsError("the logits depend on more than globally averaged features")
        node = producers[name]
        if _is_global_average(node, constants):
            sides = mirrored[node.input[0]]
            if len(sides) != 1:
                raise NoMapsError("features of an image and of its mirror image are mixed before they are averaged")
            averages[name] = _Average(node.input[0], name, next(iter(sides)))
        else:
            between.update(node.output)
            ahead += [] if node.op_type == "Shape" else node.input
    if not averages:
        raise NoMapsError("the logits depend on no globally averaged features")
    nodes = [node for node in graph.node if node.output[0] in between]
    inputs = between | averages.keys() | {"image"}
    if any(node.op_type == "Shape" and node.input[0] not in inputs for node in nodes):
        raise NoMapsError("the logits depend on sizes inside the network")
    return list(averages.values()), nodes


def _read_constants(graph: "GraphProto") -> _Constants:
    from onnx import numpy_helper

    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return constants


def _is_global_average(node: "NodeProto", constants: _Constants) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
        return False
    return sorted(constants[node.input[1]].tolist()) in ([2, 3], [-2, -1])


def _trace_mirroring(graph: "GraphProto", constants: _Constants) -> dict[str, frozenset[bool]]:
    """Return for each tensor if it depends on the image (False), its mirror image (True), both, or neither."""
    sides: dict[str, frozenset[bool]] = {"image": frozenset({False})}
    for node in graph.node:
        inherited: frozenset[bool] = frozenset().union(*(sides.get(name, frozenset()) for name in node.input))
        if node.op_type == "Shape":
            inherited = frozenset()
        elif node.op_type == "Slice" and inherited and (axes := _reversed_axes(node, constants)):
            if axes not in ([3], [-1]):
                raise NoMapsError("the network flips the image along an axis that maps cannot follow")
            inherited = frozenset(not side for side in inherited)
        sides.update(dict.fromkeys(node.output, inherited))
    return sides


def _reversed_axes(node: "NodeProto", constants: _Constants) -> list[int]:
    if len(node.input) < 5 or not {node.input[3], node.input[4]} <= constants.keys():
        return []
    axes, steps = (constants[name].tolist() for name in node.input[3:5])
    return [axis for axis, step in zip(axes, steps, strict=True) if step < 0]


def _measure_head(
    model: "ModelProto",
    averages: Sequence[_Average],
    between: "Sequence[NodeProto]",
    pooled: Sequence[Float32],
    shape: tuple[int, ...],
) -> _Head:
    """Run the part between averages and logits on unit vectors, and on random ones to prove that it is linear."""
    from onnx import TensorProto, helper

    inputs = [*(each.pooled for each in averages), "image"]  # a node may read the image's shape
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    used = {name for node in between for name in node.input}
    kept = [item for item in model.graph.initializer if item.name in used]
    graph = helper.make_graph(between, "head", given, [logits], kept)
    session = start_session(helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version))
    sizes = [each.shape[1] for each in pooled]
    total, ends = sum(sizes), np.cumsum(sizes)[:-1]

    def run(vectors: Float32) -> Float32:
        """Return the logits [N, K] of all averages side by side, float32 [N, C]."""
        feeds = {"image": np.zeros((len(vectors), *shape), dtype=np.float32)}
        for average, values, kind in zip(averages, np.split(vectors, ends, axis=1), pooled, strict=True):
            feeds[average.pooled] = values.reshape(-1, *kind.shape[1:])
        return np.asarray(session.run(["logits"], feeds)[0])

    bias = run(np.zeros((1, total), dtype=np.float32))[0]
    starts = range(0, total, _CHUNK)
    units = (np.eye(min(_CHUNK, total - start), total, k=start, dtype=np.float32) for start in starts)
    weights = np.concatenate([run(unit) - bias for unit in units])
    random = np.random.default_rng(0)  # of any size: some functions are nearly linear for small inputs
    tries = (random.normal(0, 1, (_TRIES, total)) * np.logspace(-2, 2, _TRIES)[:, None]).astype(np.float32)
    error = np.abs(run(tries) - (tries @ weights + bias))
    if not (error <= TOLERANCE * (np.abs(tries) @ np.abs(weights) + np.abs(bias))).all():
        raise NoMapsError("the logits are not linear over the averaged features")
    return _Head(tuple(np.split(weights, ends)), bias)


def _append_maps(
    graph: "GraphProto", averages: Sequence[_Average], head: _Head, sizes: Sequence[tuple[int, ...]]
) -> None:
    """Add the nodes that make the maps: a 1 x 1 convolution of each average's features, and their sum."""
    from onnx import TensorProto, helper, numpy_helper

    height, width = (max(side) for side in zip(*sizes, strict=True))

    def constant(name: str, values: Float32 | Float64) -> str:
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), _PREFIX + name))
        return _PREFIX + name

    def node(kind: str, inputs: list[str], output: str) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], name=f"{_PREFIX}{len(graph.node)}"))
        return output

    parts = []
    for index, (average, weights, size) in enumerate(zip(averages, head.weights, sizes, strict=True)):
        kernel = constant(f"{index}.weights", weights.T[:, :, None, None])
        bias = [constant("bias", head.bias)] if index == 0 else []  # the same at each place: the mean is the logit
        name = node("Conv", [average.features, kernel, *bias], f"{_PREFIX}{index}")
        if size[0] != height:
            rows = constant(f"{index}.rows", overlap_shares(size[0], height))
            name = node("MatMul", [rows, name], f"{_PREFIX}{index}.high")
        if size[1] != width or average.mirrored:
            columns = overlap_shares(size[1], width)[:, :: -1 if average.mirrored else 1].T
            name = node("MatMul", [name, constant(f"{index}.columns", columns)], f"{_PREFIX}{index}.wide")
        parts.append(name)
    node("Sum", parts, MAPS)
    logits = next(item for item in graph.output if item.name == "logits").type.tensor_type.shape.dim
    shape: list[str | int] = [logits[0].dim_param or "batch", len(head.bias), height, width]
    graph.output.append(helper.make_tensor_value_info(MAPS, TensorProto.FLOAT, shape))


def overlap_shares(cells: int, finer: int) -> Float64:
    """Return the share of each of `finer` equal parts of a line that lies in each of its `cells`, [finer, cells]."""
    edges, borders = np.arange(finer + 1) / finer, np.arange(cells + 1) / cells
    shared = np.minimum(edges[1:, None], borders[None, 1:]) - np.maximum(edges[:-1, None], borders[None, :-1])
    return np.asarray(np.clip(shared, 0, None) * finer)


def _read_tensors(model: "ModelProto", names: Sequence[str], images: Float32) -> dict[str, Float32]:
    """Return tensors inside a graph by name."""
    from onnx import TensorProto, helper

    probe, unique = copy.deepcopy(model), list(dict.fromkeys(names))
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in unique)
    return dict(zip(unique, start_session(probe).run(unique, {"image": images}), strict=True))


def start_session(model: "ModelProto") -> "InferenceSession":
    """Load a graph as the service does, with threads for the available cores."""
    return open_session(model.SerializeToString(), available_cores())
