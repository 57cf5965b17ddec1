"""Static quantisation with ONNX Runtime: which nodes, with which ranges.

Convolutions compute in integers, with the ReLU or clip behind them, which the range of the output replaces. They take
nearly all of the time; sums between them ONNX Runtime puts into integers by itself. Weights are int8 with a scale for
each channel, activations uint8 with a zero point, ranges the least and the greatest value that calibration images gave.
All of that was chosen by measurement (docs/benchmarks.md): int8 activations are slower than float, percentiles and
entropy take 2 to 6 times as long for errors a little smaller, which layers in float make smaller still, and weights of
7 bits, which never overflow, err three times as much.
"""

import contextlib
import copy
import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.images.types import Gray

METHOD = (
    "static, QDQ; convolutions with int8 weights, a scale for each channel, and uint8 activations with a zero point; "
    "ranges least to greatest"
)

BATCH = 8
_ACTIVATIONS = ("Clip", "Relu")
_OUTPUTS = ("logits", "embedding")


def make_batches(images: Sequence[Gray]) -> Iterator[Float32]:
    """Model inputs, uint8 [H, W, C] each, as the graph takes them: float32 [n, C, H, W] in [0, 1]."""
    for start in range(0, len(images), BATCH):
        pixels = np.stack(images[start : start + BATCH]).transpose(0, 3, 1, 2)
        yield np.ascontiguousarray(pixels, dtype=np.float32) / np.float32(255)


def fold_batch_norms(graph: bytes) -> Any:
    """Fold what is constant, batch norm above all, into weights, and name every node; an `onnx.ModelProto`."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(graph, sess_options=options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    given = onnx.load_from_string(graph)
    for field in ("opset_import", "metadata_props"):  # to which ONNX Runtime adds every domain that it knows
        model.ClearField(field)
        getattr(model, field).extend(getattr(given, field))
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"unnamed_{index}"
    return model


def list_convolutions(model: Any) -> list[str]:
    """Names of the convolutions with constant weights that logits or embedding depend on, in the graph's order."""
    constants = {item.name for item in model.graph.initializer}
    needed = set(_OUTPUTS)
    found = []
    for node in reversed(model.graph.node):
        if needed.isdisjoint(node.output):
            continue
        needed.update(node.input)
        if node.op_type == "Conv" and node.input[1] in constants:
            found.append(node.name)
    return found[::-1]


def calibrate_ranges(model: Any, images: Sequence[Gray]) -> Any:
    """The range of every tensor that could be quantised, over model inputs uint8 [H, W, C]."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self._batches = make_batches(images)

        def get_next(self) -> dict[str, Float32] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": batch}

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        path.write_bytes(model.SerializeToString())
        calibrator = create_calibrator(
            path,
            ["Conv", *_ACTIVATIONS],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(Reader())
        return calibrator.compute_data()


def quantize_graph(model: Any, ranges: Any, nodes: Collection[str]) -> bytes:
    """The graph with some of its convolutions, by name, at least one, in integers; `model` stays as it is."""
    from onnxruntime.quantization import QDQQuantizer, QuantType

    outputs = {name for node in model.graph.node if node.name in nodes for name in node.output}
    behind = {node.name for node in model.graph.node if node.op_type in _ACTIVATIONS and node.input[0] in outputs}
    quantizer = QDQQuantizer(
        copy.deepcopy(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[*nodes, *sorted(behind)],
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv", *_ACTIVATIONS],
        extra_options={},
    )
    with _quiet():
        quantizer.quantize_model()
    made = quantizer.model.model
    made.ClearField("metadata_props")
    made.metadata_props.extend(model.metadata_props)
    content: bytes = made.SerializeToString()
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser from logging a line for each channel whose bias is large."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def run_graph(graph: bytes, images: Sequence[Gray]) -> Float32:
    """Logits, float32 [N, K], of model inputs uint8 [H, W, C], as the service would compute them."""
    from pneumo.serving.contracts.cores import available_cores
    from pneumo.serving.model.predictor import open_session

    session = open_session(graph, available_cores())
    return np.concatenate([session.run(["logits"], {"image": batch})[0] for batch in make_batches(images)])
