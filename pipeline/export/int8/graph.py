"""Static quantisation of an ONNX graph with ONNX Runtime: which nodes, with which ranges.

Convolutions compute in integers, with the ReLU or clip that follows: the range of the output replaces it. Convolutions
take nearly all of the time, and ONNX Runtime itself puts the sums between them into integers. Weights are int8 with a
scale for each channel, activations uint8 with a zero point, and ranges the minimum and maximum over calibration images.
All of that was chosen by measurement (docs/benchmarks.md). Int8 activations are slower than float. Percentiles and
entropy take 2 to 6 times as long for errors a little smaller, and layers in float make them smaller still. Weights of
7 bits never overflow but have three times the error.
"""

import copy
import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.images.types import Gray
from pneumo.serving.model.predictor import open_session

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime.quantization.calibrate import TensorsData

METHOD = (
    "static, QDQ; convolutions with int8 weights, a scale for each channel, and uint8 activations with a zero point; "
    "ranges least to greatest"
)

BATCH = 8
_ACTIVATIONS = ("Clip", "Relu")
_OUTPUTS = ("logits", "embedding")


def make_batches(images: Sequence[Gray]) -> Iterator[Float32]:
    """Yield model inputs, uint8 [H, W, C] each, as batches for the graph: float32 [n, C, H, W] in [0, 1]."""
    for start in range(0, len(images), BATCH):
        pixels = np.stack(images[start : start + BATCH]).transpose(0, 3, 1, 2)
        yield np.ascontiguousarray(pixels, dtype=np.float32) / np.float32(255)


def fold_batch_norms(graph: bytes) -> "ModelProto":
    """Fold constants into weights, above all batch norm, and name every node."""
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
    for field in ("opset_import", "metadata_props"):  # ONNX Runtime adds every domain that it has
        model.ClearField(field)
        getattr(model, field).extend(getattr(given, field))
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"unnamed_{index}"
    return model


def list_convolutions(model: "ModelProto") -> list[str]:
    """Return the names of the convolutions with constant weights before logits or embedding, in the graph's order."""
    constants = {item.name for item in model.graph.initializer}
    needed = set(_OUTPUTS)
    names = []
    for node in reversed(model.graph.node):
        if needed.isdisjoint(node.output):
            continue
        needed.update(node.input)
        if node.op_type == "Conv" and node.input[1] in constants:
            names.append(node.name)
    return names[::-1]


def calibrate_ranges(model: "ModelProto", images: Sequence[Gray]) -> "TensorsData":
    """Return the range of every tensor that could be quantised, over model inputs uint8 [H, W, C]."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    batches = ({"image": batch} for batch in make_batches(images))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        path.write_bytes(model.SerializeToString())
        calibrator = create_calibrator(
            path,
            ["Conv", *_ACTIVATIONS],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(SimpleNamespace(get_next=lambda: next(batches, None)))
        return calibrator.compute_data()


def quantize_graph(model: "ModelProto", ranges: "TensorsData", nodes: Collection[str]) -> bytes:
    """Return a copy of a graph with the named convolutions, at least one, in integers."""
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
    logging.root.addFilter(_is_not_quantizer)
    try:
        quantizer.quantize_model()
    finally:
        logging.root.removeFilter(_is_not_quantizer)
    quantized: ModelProto = quantizer.model.model
    quantized.ClearField("metadata_props")
    quantized.metadata_props.extend(model.metadata_props)
    return bytes(quantized.SerializeToString())


def _is_not_quantizer(record: logging.LogRecord) -> bool:
    """Drop the quantizer's lines, one for each channel whose bias is large; it uses the root logger."""
    return "quantizer" not in record.module


def run_graph(graph: bytes, images: Sequence[Gray]) -> Float32:
    """Return the logits, float32 [N, K], of model inputs uint8 [H, W, C], computed as in the service."""
    session = open_session(graph, available_cores())
    return np.concatenate([session.run(["logits"], {"image": batch})[0] for batch in make_batches(images)])
