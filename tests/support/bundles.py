"""Make a small bundle without torch."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from pneumo.serving.images.preparation import Preparation
from pneumo.serving.images.thumbnails import make_thumbnails
from pneumo.serving.images.types import DECODING_RULES
from pneumo.serving.model.bundle import Bundle, BundleInfo, Outlier, Parity, seal_bundle
from pneumo.serving.model.outlier_score import ImageFeatures, OutlierScorer

FEATURES = 6


def make_network(channels: int, classes: int, seed: int, *, maps: bool = False, bright: bool = False) -> bytes:
    """Convolution, mean over the image, linear: weights are random but the same for a seed.

    With `maps` the linear layer is applied to each pixel as well, whose mean it is, and the maps count as pointing.
    With `bright` what is bright speaks for the last class, and what is dark against it.
    """
    rng = np.random.default_rng(seed)
    head = rng.normal(0, 4, (FEATURES, classes)).astype(np.float32)
    kernel = rng.normal(0, 1, (FEATURES, channels, 3, 3)).astype(np.float32)
    bias = np.zeros(classes, dtype=np.float32)
    if classes == 2:
        head[:, 0] = 0  # as a binary output is exported
    if bright:
        kernel, head[:, :-1], head[:, -1], bias[-1] = np.abs(kernel), 0, np.abs(head[:, -1]), -5
    weights = {"kernel": kernel, "head": head, "bias": bias}
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["convolved"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["convolved"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "head", "bias"], ["logits"]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", FEATURES]),
    ]
    if maps:
        weights["pixels"] = head.T[:, :, None, None]
        nodes.append(helper.make_node("Conv", ["active", "pixels", "bias"], ["maps"]))
        outputs.append(helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", classes, "H", "W"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", channels, "H", "W"])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if maps:
        helper.set_model_props(model, {"maps_point": "true"})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def make_info(**changes: object) -> BundleInfo:
    """A valid info without files."""
    given: dict[str, object] = {
        "name": "tiny",
        "version": "1",
        "classes": ["NORMAL", "PNEUMONIA"],
        "positive_class": "PNEUMONIA",
        "preparation": Preparation(size=32, height=28, width=28, channels=1, rules=DECODING_RULES),
        "temperature": 1.5,
        "thresholds": {"default": 0.4},
        "policy": "max balanced accuracy",
        "conformal": {"level": 0.9, "limit": 0.4},
        "outlier": Outlier(limit=2.0, quantile=0.99),
        "metrics": {"splits": {"test": {"metrics": {"auroc": {"value": 0.9, "low": 0.8, "high": 0.95}}}}},
        "data_fingerprint": "0" * 64,
        "provenance": {"run": "20261123T000000Z-tiny-abcd"},
        "parity": Parity(images=64, max_probability_difference=1e-6, tolerance=1e-4),
    }
    return BundleInfo.model_validate(given | changes)


def make_bundle(folder: Path, *, seed: int = 0, network: bytes | None = None, **changes: object) -> Bundle:
    """Write and seal a bundle of a network, by default of random weights."""
    info = make_info(**changes)
    folder.mkdir(parents=True)
    network = network or make_network(info.preparation.channels, len(info.classes), seed)
    (folder / "model.onnx").write_bytes(network)
    rng = np.random.default_rng(seed + 1)
    shape = (64, info.preparation.channels, info.preparation.height, info.preparation.width)
    images = rng.uniform(0, rng.uniform(0.2, 1, (64, 1, 1, 1)), shape).astype(np.float32)
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    (embeddings,) = session.run(["embedding"], {"image": images})
    known = ImageFeatures(embeddings, make_thumbnails(images))
    (folder / "embedding_space.npz").write_bytes(OutlierScorer.fit(known, known, quantile=0.99).to_bytes())
    (folder / "card.md").write_text("# A tiny model\n", encoding="utf-8")
    seal_bundle(folder, info)
    return Bundle.open(folder)
