"""`xrv_densenet`: torchxrayvision's DenseNet-121, pretrained on chest X-rays.

Cohen et al., TorchXRayVision: a library of chest X-ray datasets and models, MIDL 2022. The package is an optional
extra, and users download the weights from its releases. Check which data sets the weights were trained on before you
compare results.
"""

from pathlib import Path

import torch
from ludwig.schema.utils import ProtectedString, String
from torch.nn import functional

from pneumo.pipeline.ludwig.encoders.network import NetworkConfig, NetworkEncoder, register_image_encoder
from pneumo.pipeline.ludwig.encoders.weights import Network
from pneumo.serving.contracts.errors import InputError, MachineError, first_line
from pneumo.serving.contracts.install_hints import install_hint

FEATURES = 1024
RELEASES = "https://github.com/mlmed/torchxrayvision/releases/tag/v1"
_DEVIATION = 0.5 / 1024  # divides [-0.5, 0.5] into the [-1024, 1024] that the weights were trained on


class XrvDenseNetConfig(NetworkConfig):
    """Options under `encoder:`."""

    type: str = ProtectedString("xrv_densenet")
    weights: str | None = String("A file of the project's releases; null: random weights.", None, allow_none=True)


@register_image_encoder(XrvDenseNetConfig)
class XrvDenseNet(NetworkEncoder[XrvDenseNetConfig]):
    """DenseNet-121 for one gray channel up to its 1024 pooled features, with scaling to [-1024, 1024] inside.

    The weights were trained at 224 pixels: state `size: 224` for other images.

    Raises:
        InputError: The file holds other weights.
        MachineError: torchxrayvision is not installed, or there is no such file.
    """

    def build(self, config: XrvDenseNetConfig) -> Network:
        """Build torchxrayvision's network, with the stated weights."""
        try:
            from torchxrayvision.models import DenseNet
        except ImportError as error:
            raise MachineError(
                f"encoder xrv_densenet: torchxrayvision is not installed ({error}); {install_hint('xrv')}"
            ) from None
        network = DenseNet(weights=None)
        if config.weights is not None and not config.saved_weights_in_checkpoint:
            _load(network, config.weights)
        return Network(_Pooled(network.features), mean=(0.5,), deviation=(_DEVIATION,), features=FEATURES, channels=1)


class _Pooled(torch.nn.Module):
    def __init__(self, features: torch.nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.features(images)).mean(dim=(2, 3))


def _load(network: torch.nn.Module, weights: str) -> None:
    """Load a file of tensors, or one of the project's releases, which hold a pickled network of these classes."""
    from torch import nn
    from torchxrayvision import models

    path = Path(weights).expanduser()
    if not path.is_file():
        raise MachineError(f"encoder xrv_densenet: weights {weights}: no such file; download one from {RELEASES}")
    layers = [nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Linear]
    blocks = [models.DenseNet, models._DenseBlock, models._DenseLayer, models._Transition]
    try:
        with torch.serialization.safe_globals([*layers, *blocks]):  # a pickle may build these and nothing else
            stored = torch.load(path, weights_only=True, map_location="cpu")
        if isinstance(stored, nn.Module):
            stored = _read_tensors(stored)
        features = {name: tensor for name, tensor in stored.items() if name.startswith("features.")}
        network.load_state_dict(features | _read_tensors(network, "classifier.", "op_threshs"))
    except Exception as error:  # unpickling raises many kinds
        reason = first_line(error)
        raise InputError(f"encoder xrv_densenet: {path}: not the weights of its DenseNet-121: {reason}") from None


def _read_tensors(network: torch.nn.Module, *prefixes: str) -> dict[str, torch.Tensor]:
    """Return a network's state by name, layer by layer: old pickles lack attributes that `state_dict` needs."""
    state = {}
    for path, module in network.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            key = f"{path}.{name}".removeprefix(".")
            if tensor is not None and key.startswith(prefixes or ("",)):
                state[key] = tensor
    return state
