"""Logits from a trained Ludwig model, without Ludwig's own predict (which copies configs at each call)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.manifest import GROUP, Dataset, Row, group_names
from pneumo.pipeline.ludwig import runtime
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.model.calibration import calibrate_logits

if TYPE_CHECKING:
    import pandas as pd
    import torch

BATCH = 64


def load_model(run: Run) -> Any:
    """Load a run's Ludwig model.

    Raises:
        InputError: The run has no finished model.
    """
    if not (run.model / "model_weights").exists() and not list(run.model.glob("model_weights*")):
        raise InputError(f"{run.folder}: no model in it yet; finish it with `pneumo train --resume {run.name}`")
    runtime.load_ludwig()
    from ludwig.api import LudwigModel

    with runtime.skip_schema_check():
        model = LudwigModel.load(str(run.model), backend="local")  # else it joins any Ray cluster of this machine
    _lay_out(model.model)
    return model


def _lay_out(network: Any) -> None:
    """Channels last on CPU, as in training: faster, and the same to the last bit."""
    import torch

    if next(network.parameters()).device.type == "cpu":
        network.to(memory_format=torch.channels_last)


def read_class_order(model: Any, label: str) -> list[str]:
    """Class names in the order of the logits: negative then positive for a binary label."""
    metadata = model.training_set_metadata[label]
    if "bool2str" in metadata:
        return [str(name) for name in metadata["bool2str"]]
    return [str(name) for name in metadata["idx2str"]]


def prepare_network(model: Any, info: RunInfo) -> "torch.nn.Module":
    """A Ludwig model as a plain network: images in, logits [N, K] and embedding [N, D] out, in evaluation mode."""
    import torch
    from ludwig.utils.torch_utils import Dense

    for parent in list(model.model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Dense) and layer.dense.out_features > 1:
                setattr(parent, name, layer.dense)  # Ludwig's squeezes a last axis that is not 1, which ONNX refuses

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ecd = model.model

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            outputs = self.ecd({info.image: image})
            logits = outputs[f"{info.label}::logits"]
            if info.positive is not None:
                logits = logits.reshape(-1, 1)
                logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
            return logits, outputs[f"{info.label}::last_hidden"]

    return Network().eval()


def predict_logits(model: Any, info: RunInfo, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Logits of images.

    Args:
        model: A Ludwig model.
        info: Its run.
        images: uint8 [H, W, C] each, at the model's size.

    Returns:
        float32 [N, K], columns in the order of `info.classes`.
    """
    return predict_outputs(model, info, images)[0]


def predict_outputs(
    model: Any, info: RunInfo, images: Sequence[NDArray[np.uint8]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits, as `predict_logits` gives them, and embeddings float32 [N, D] of images; D is 0 where there are none."""
    import torch

    net = prepare_network(model, info)
    device = next(net.parameters()).device
    logits = [np.zeros((0, len(info.classes)), dtype=np.float32)]
    embeddings = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            pixels = np.stack(images[start : start + BATCH]).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
            batch = net(torch.from_numpy(np.ascontiguousarray(pixels)).to(device))
            logits.append(batch[0].float().cpu().numpy())
            embeddings.append(batch[1].float().cpu().numpy())
    return np.concatenate(logits), np.concatenate(embeddings) if embeddings else np.zeros((0, 0), dtype=np.float32)


def make_predictions_frame(rows: Sequence[Row], logits: NDArray[np.float32]) -> "pd.DataFrame":
    """Rows and logits as `predictions.parquet` holds them, with a column for each group of images."""
    import pandas as pd

    groups = {GROUP + name: [row.groups.get(name, "") for row in rows] for name in group_names(rows)}
    return pd.DataFrame(
        {
            "image": [row.image for row in rows],
            "split": [row.split.name.lower() for row in rows],
            "patient": [row.patient for row in rows],
            "label": [row.label for row in rows],
            "logits": list(logits.astype(np.float64)),
            "probabilities": list(calibrate_logits(logits, 1.0)),
            **groups,
        }
    )


def predict_dataset(run: Run, dataset: Dataset) -> "pd.DataFrame":
    """Predict every image of a data set with a run's model.

    Raises:
        InputError: The data set was prepared differently, has other classes, or an image is damaged.
    """
    from pneumo.pipeline.data.training_images import read_images

    info = run.info()
    preparation = Preparation.model_validate(info.preparation)
    made = dataset.info
    if (made.size, made.fit, made.decode) != (preparation.size, preparation.fit, preparation.decode):
        raise InputError(
            f"{dataset.folder}: prepared at {made.size} pixels, {made.fit.value}, decode {made.decode.value}, not as "
            f"{run.name} needs it; import it with --size {preparation.size} --fit {preparation.fit.value} "
            f"--decode {preparation.decode.value}"
        )
    unknown = sorted(set(dataset.info.classes) - set(info.classes))
    if unknown:
        raise InputError(f"{dataset.folder}: class {unknown[0]!r} is not one of {run.name}: {', '.join(info.classes)}")
    images = read_images(dataset, dataset.rows, preparation)
    with runtime.log_to_file(run.log):
        model = load_model(run)
    return make_predictions_frame(dataset.rows, predict_logits(model, info, images))
