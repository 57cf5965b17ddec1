"""Compute logits with a trained Ludwig model, without Ludwig's own predict, which copies configs at each call."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.manifest import GROUP, Row, group_names
from pneumo.pipeline.data.training_images import name_for_ludwig
from pneumo.pipeline.ludwig import runtime
from pneumo.pipeline.ludwig.global_state import restore_ludwig_state
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.calibration import calibrate_logits

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from pneumo.pipeline.ludwig import protocols

BATCH = 64


def load_model(run: Run) -> "protocols.LudwigModel":
    """Load a run's Ludwig model.

    Raises:
        InputError: The run has no finished model.
    """
    if not any(run.model.glob("model_weights*")):
        if run.info().members:
            raise InputError(
                f"{run.folder}: joins {len(run.info().members)} runs and has no Ludwig model; use its bundle"
            )
        raise InputError(f"{run.folder}: no model in it yet; finish it with `pneumo train --resume {run.name}`")
    runtime.load_ludwig()
    import torch
    from ludwig.api import LudwigModel

    with runtime.skip_schema_check(), restore_ludwig_state():
        model: Any = LudwigModel.load(str(run.model), backend="local")  # else it joins any Ray cluster of this machine
    if next(model.model.parameters()).device.type == "cpu":  # as in training: faster, and equal to the last bit
        model.model.to(memory_format=torch.channels_last)
    loaded: protocols.LudwigModel = model
    return loaded


def read_class_order(model: "protocols.LudwigModel", info: RunInfo) -> list[str]:
    """Return the class names of a run in the order of the logits: negative then positive for a binary label."""
    metadata = model.training_set_metadata[info.label]
    own = {name_for_ludwig(name): name for name in info.classes}
    return [own.get(name, name) for name in map(str, metadata["bool2str" if "bool2str" in metadata else "idx2str"])]


def prepare_network(model: "protocols.LudwigModel", info: RunInfo) -> "torch.nn.Module":
    """Return a Ludwig model as a network in evaluation mode: images in, logits [N, K] and embedding [N, D] out."""
    import torch
    from ludwig.constants import LAST_HIDDEN, LOGITS
    from ludwig.utils.output_feature_utils import get_feature_concat_name
    from ludwig.utils.torch_utils import Dense

    for parent in list(model.model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Dense) and layer.dense.out_features > 1:
                setattr(parent, name, layer.dense)  # Ludwig's squeezes a last axis that is not 1, which ONNX refuses

    logits_key, hidden_key = (get_feature_concat_name(info.label, name) for name in (LOGITS, LAST_HIDDEN))

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ecd = model.model

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            outputs = self.ecd({info.image: image})
            logits = outputs[logits_key]
            if info.positive is not None:
                logits = logits.reshape(-1, 1)
                logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
            return logits, outputs[hidden_key]

    return Network().eval()


def join_networks(networks: "Sequence[torch.nn.Module]", columns: Sequence[Sequence[int]]) -> "torch.nn.Module":
    """Return networks as one, whose logits are the mean of theirs and whose embedding is that of the first.

    `columns` are the columns of each network's logits in the order of the classes, [K].
    """
    import torch

    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.members = torch.nn.ModuleList(networks)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            outputs = [member(image) for member in self.members]
            logits = [each[0][:, list(order)] for each, order in zip(outputs, columns, strict=True)]
            return torch.stack(logits).mean(dim=0), outputs[0][1]

    return Mean().eval() if len(networks) > 1 else networks[0]


def predict_members(run: Run, images: Sequence[NDArray[np.uint8]]) -> Float32:
    """Return the mean of the logits [N, K] of a run's members, columns as the run's classes; images as above."""
    info = run.info()
    total = np.zeros((len(images), len(info.classes)), dtype=np.float64)
    members = run.list_members()
    for member in members:
        own = member.info()
        logits = predict_logits(load_model(member), own, images)
        total += logits[:, [own.classes.index(name) for name in info.classes]]
    return (total / len(members)).astype(np.float32)


def predict_logits(model: "protocols.LudwigModel", info: RunInfo, images: Sequence[NDArray[np.uint8]]) -> Float32:
    """Return logits [N, K] of images, columns in the order of `info.classes`; arguments as in `predict_outputs`."""
    return predict_outputs(model, info, images)[0]


def predict_outputs(
    model: "protocols.LudwigModel", info: RunInfo, images: Sequence[NDArray[np.uint8]]
) -> tuple[Float32, Float32]:
    """Return logits [N, K] and embeddings [N, D] of images; D is 0 if there are no images.

    Args:
        model: A Ludwig model.
        info: Its run.
        images: uint8 [H, W, C] each, at the model's size.
    """
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


def make_predictions_frame(rows: Sequence[Row], logits: Float32) -> "pd.DataFrame":
    """Return the table of `predictions.parquet`: rows and logits, with a column for each group of images."""
    import pandas as pd

    columns = {
        "image": [row.image for row in rows],
        "split": [row.split.name.lower() for row in rows],
        "patient": [row.patient for row in rows],
        "label": [row.label for row in rows],
        "logits": list(logits.astype(np.float64)),
        "probabilities": list(calibrate_logits(logits, 1.0)),
    }
    groups = {GROUP + name: [row.groups.get(name, "") for row in rows] for name in group_names(rows)}
    return pd.DataFrame(columns | groups)
