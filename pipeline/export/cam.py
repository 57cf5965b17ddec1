"""Class activation maps as one more output of an exported graph (Zhou et al., Learning Deep Features, CVPR 2016).

Where logits are linear over globally averaged features, the same linear map at each place of the features gives a map
of logits whose mean over the image is the logit itself. All of it is read off the ONNX graph, so that it holds for any
network: which averages the logits come from by the graph's edges, the linear map by what the part after the averages
says of unit vectors, and that it is linear by what it says of random ones. Averages may be several: members of an
ensemble, and views of one member.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.predictor import MAPS

TOLERANCE = 1e-4
"""Largest difference between the mean of a map and its logit."""

_PREFIX = "maps."
_CHUNK = 256
_TRIES = 96


class NoMapsError(InputError):
    """A graph whose logits are not linear over globally averaged features."""


@dataclass(frozen=True)
class _Average:
    """A mean over height and width that the logits are made of.

    Attributes:
        features: Name of what is averaged, [N, C, h, w].
        pooled: Name of the averages.
        mirrored: Whether the features are of the mirror image.
    """

    features: str
    pooled: str
    mirrored: bool


@dataclass(frozen=True)
class _Head:
    """What lies between the averages and the logits: logits = sum over averages of pooled @ weights + bias.

    Attributes:
        weights: float32 [C, K] of each average.
        bias: float32 [K].
    """

    weights: tuple[Float32, ...]
    bias: Float32


def add_cam_output(model: Any, images: Float32) -> Any:
    """A copy of a graph with the output `maps`, float32 [N, K, h, w], whose mean over h and w is `logits`.

    The bias is part of the maps, the same at each place. Maps of several sizes are brought to the largest, each cell
    by the area it covers, which keeps their means; those of mirror images are turned back.

    Args:
        model: An `onnx.ModelProto` with the input `image` and the output `logits` [N, K].
        images: Inputs that it is proven on, float32 [N, C, H, W] with N >= 1; real ones, for these are what counts.

    Raises:
        NoMapsError: Logits are not linear over globally averaged features, or not to `TOLERANCE`.
    """
    averages, between = _find_averages(model.graph)
    seen = _tensors(model, [name for each in averages for name in (each.features, each.pooled)], images)
    if any(seen[each.features].ndim != 4 for each in averages):
        raise NoMapsError("the logits are of means over something else than height and width")
    head = _measure_head(model, averages, between, [seen[each.pooled] for each in averages], images.shape[1:])
    out = copy.deepcopy(model)
    _append(out.graph, averages, head, [seen[each.features].shape[2:] for each in averages])
    logits, found = _session(out).run(["logits", MAPS], {"image": images})
    off = float(np.abs(found.mean(axis=(2, 3), dtype=np.float64) - logits).max())
    if not off <= TOLERANCE:
        raise NoMapsError(f"the means of the maps are {off:.1e} off the logits, more than {TOLERANCE:.0e}")
    return out


def _find_averages(graph: Any) -> tuple[list[_Average], list[Any]]:
    """The averages that logits are made of, and the nodes between them and the logits in the order of the graph."""
    constants = _constants(graph)
    producers = {name: node for node in graph.node for name in node.output}
    mirrored = _mirrored(graph, constants)
    averages: dict[str, _Average] = {}
    between: set[str] = set()
    ahead = ["logits"]
    while ahead:
        name = ahead.pop()
        if name in constants or name in between or name in averages or not name:
            continue
        if name not in producers:
            raise NoMapsError("the logits are made of more than globally averaged features")
        node = producers[name]
        if _averages_the_image(node, constants):
            sides = mirrored[node.input[0]]
            if len(sides) != 1:
                raise NoMapsError("features of an image and of its mirror image are mixed before they are averaged")
            averages[name] = _Average(node.input[0], name, next(iter(sides)))
        else:
            between.update(node.output)
            ahead += [] if node.op_type == "Shape" else node.input
    if not averages:
        raise NoMapsError("the logits are made of no globally averaged features")
    nodes = [node for node in graph.node if node.output[0] in between]
    known = between | averages.keys() | {"image"}
    if any(node.op_type == "Shape" and node.input[0] not in known for node in nodes):
        raise NoMapsError("the logits depend on sizes inside the network")
    return list(averages.values()), nodes


def _constants(graph: Any) -> dict[str, NDArray[Any]]:
    from onnx import numpy_helper

    found = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _averages_the_image(node: Any, constants: dict[str, NDArray[Any]]) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
        return False
    return sorted(constants[node.input[1]].tolist()) in ([2, 3], [-2, -1])


def _mirrored(graph: Any, constants: dict[str, NDArray[Any]]) -> dict[str, frozenset[bool]]:
    """For each tensor whether it is of the image (False), of its mirror image (True), of both, or of neither."""
    sides: dict[str, frozenset[bool]] = {"image": frozenset({False})}
    for node in graph.node:
        inherited: frozenset[bool] = frozenset().union(*(sides.get(name, frozenset()) for name in node.input))
        if node.op_type == "Shape":
            inherited = frozenset()
        elif node.op_type == "Slice" and inherited and _reversed_axes(node, constants):
            if _reversed_axes(node, constants) not in ([3], [-1]):
                raise NoMapsError("the network turns the image in a way that cannot be followed")
            inherited = frozenset(not side for side in inherited)
        sides.update(dict.fromkeys(node.output, inherited))
    return sides


def _reversed_axes(node: Any, constants: dict[str, NDArray[Any]]) -> list[int]:
    if len(node.input) < 5 or not {node.input[3], node.input[4]} <= constants.keys():
        return []
    axes, steps = (constants[name].tolist() for name in node.input[3:5])
    return [axis for axis, step in zip(axes, steps, strict=True) if step < 0]


def _measure_head(
    model: Any, averages: Sequence[_Average], between: list[Any], pooled: Sequence[Float32], shape: tuple[int, ...]
) -> _Head:
    """Run what lies between averages and logits on unit vectors, and on random ones to see that it is linear."""
    from onnx import TensorProto, helper

    given = [helper.make_tensor_value_info(each.pooled, TensorProto.FLOAT, None) for each in averages]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, None)  # its shape may be asked for
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    used = {name for node in between for name in node.input}
    kept = [item for item in model.graph.initializer if item.name in used]
    graph = helper.make_graph(between, "head", [*given, image], [logits], kept)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    sizes = [each.shape[1] for each in pooled]
    ends = np.cumsum(sizes)[:-1]
    session = _session(part)

    def run(vectors: Float32) -> Float32:
        """Logits [N, K] of all averages side by side, float32 [N, C]."""
        feeds = {"image": np.zeros((len(vectors), *shape), dtype=np.float32)}
        for average, values, kind in zip(averages, np.split(vectors, ends, axis=1), pooled, strict=True):
            feeds[average.pooled] = values.reshape(-1, *kind.shape[1:])
        result: Float32 = session.run(["logits"], feeds)[0]
        return result

    total = sum(sizes)
    bias = run(np.zeros((1, total), dtype=np.float32))[0]
    weights = np.concatenate([run(unit) - bias for unit in _unit_vectors(total)])
    random = np.random.default_rng(0)  # of any size: some functions are nearly linear where their input is small
    tries = (random.normal(0, 1, (_TRIES, total)) * np.logspace(-2, 2, _TRIES)[:, None]).astype(np.float32)
    off = np.abs(run(tries) - (tries @ weights + bias))
    if not (off <= TOLERANCE * (np.abs(tries) @ np.abs(weights) + np.abs(bias))).all():
        raise NoMapsError("the logits are not linear over the averaged features")
    return _Head(tuple(np.split(weights, ends)), bias)


def _unit_vectors(total: int) -> Iterator[Float32]:
    for start in range(0, total, _CHUNK):
        yield np.eye(min(_CHUNK, total - start), total, k=start, dtype=np.float32)


def _append(graph: Any, averages: Sequence[_Average], head: _Head, sizes: Sequence[tuple[int, ...]]) -> None:
    """Add the nodes that make the maps: a 1 x 1 convolution of each average's features, and their sum."""
    from onnx import TensorProto, helper, numpy_helper

    height, width = (max(side) for side in zip(*sizes, strict=True))

    def constant(name: str, values: NDArray[Any]) -> str:
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
            rows = constant(f"{index}.rows", areas(size[0], height))
            name = node("MatMul", [rows, name], f"{_PREFIX}{index}.high")
        if size[1] != width or average.mirrored:
            columns = areas(size[1], width)[:, :: -1 if average.mirrored else 1].T
            name = node("MatMul", [name, constant(f"{index}.columns", columns)], f"{_PREFIX}{index}.wide")
        parts.append(name)
    node("Sum", parts, MAPS)
    logits = next(item for item in graph.output if item.name == "logits").type.tensor_type.shape.dim
    shape = [logits[0].dim_param or "batch", len(head.bias), height, width]
    graph.output.append(helper.make_tensor_value_info(MAPS, TensorProto.FLOAT, shape))


def areas(cells: int, finer: int) -> NDArray[np.float64]:
    """Shares of each of `finer` equal parts of a line that lie in each of its `cells` equal parts, [finer, cells]."""
    edges, borders = np.arange(finer + 1) / finer, np.arange(cells + 1) / cells
    shared = np.minimum(edges[1:, None], borders[None, 1:]) - np.maximum(edges[:-1, None], borders[None, :-1])
    areas: NDArray[np.float64] = np.clip(shared, 0, None) * finer
    return areas


def _tensors(model: Any, names: Sequence[str], images: Float32) -> dict[str, Float32]:
    """Tensors inside a graph by name."""
    from onnx import TensorProto, helper

    seen, wanted = copy.deepcopy(model), list(dict.fromkeys(names))
    del seen.graph.output[:]
    seen.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted)
    return dict(zip(wanted, _session(seen).run(wanted, {"image": images}), strict=True))


def _session(model: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
