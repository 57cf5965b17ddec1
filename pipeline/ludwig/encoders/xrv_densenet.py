"""`xrv_densenet`: torchxrayvision's DenseNet-121, which others trained on chest X-rays.

Cohen et al., TorchXRayVision: a library of chest X-ray datasets and models, MIDL 2022. The package is an optional
extra, and the weights a file that a user downloads from its releases; look at what each was trained on before you
compare results.
"""

from pathlib import Path
from typing import Any

import torch
from ludwig.constants import IMAGE
from ludwig.encoders.registry import register_encoder
from ludwig.schema import utils as schema_utils
from ludwig.schema.encoders.base import BaseEncoderConfig
from ludwig.schema.encoders.utils import register_encoder_config
from torch.nn import functional

from pneumo.pipeline.ludwig.encoders.network import NetworkConfig, NetworkEncoder
from pneumo.serving.contracts.errors import InputError, MachineError, first_line
from pneumo.serving.contracts.install_hints import install_hint

FEATURES = 1024
RELEASES = "https://github.com/mlmed/torchxrayvision/releases/tag/v1"
_HALF_SCALE = 0.5 / 1024
"""Divides [-0.5, 0.5] into the [-1024, 1024] that the weights were trained on."""


@register_encoder_config("xrv_densenet", IMAGE)
class XrvDenseNetConfig(NetworkConfig):
    """What a config may say under `encoder:`."""

    type: str = schema_utils.ProtectedString("xrv_densenet")
    weights: str | None = schema_utils.String(
        default=None, allow_none=True, description="A file of the project's releases; null: random weights."
    )

    def is_pretrained(self) -> bool:
        """Whether weights other than random ones are loaded."""
        return self.weights is not None


@register_encoder("xrv_densenet", IMAGE)
class XrvDenseNet(NetworkEncoder):
    """DenseNet-121 for one gray channel up to its pooled features, 1024 of them.

    Scaling to [-1024, 1024] happens inside. The weights saw 224 pixels: state `size: 224` for other images.

    Raises:
        InputError: The file of weights holds something else.
        MachineError: torchxrayvision is not installed, or there is no such file.
    """

    config: XrvDenseNetConfig

    def __init__(self, encoder_config: XrvDenseNetConfig | None = None, **options: Any) -> None:
        config = encoder_config or XrvDenseNetConfig(**options)
        try:
            from torchxrayvision.models import DenseNet
        except ImportError as error:
            raise MachineError(
                f"encoder xrv_densenet: torchxrayvision is not installed ({error}); {install_hint('xrv')}"
            ) from None
        network = DenseNet(weights=None)
        if config.weights is not None and not config.saved_weights_in_checkpoint:
            _load(network, config.weights)
        super().__init__(_Pooled(network.features), FEATURES, config, mean=(0.5,), deviation=(_HALF_SCALE,), channels=1)

    @staticmethod
    def get_schema_cls() -> type[BaseEncoderConfig]:
        """The schema that Ludwig validates this encoder's section with."""
        return XrvDenseNetConfig


class _Pooled(torch.nn.Module):
    def __init__(self, features: torch.nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.features(images)).mean(dim=(2, 3))


def _load(network: torch.nn.Module, weights: str) -> None:
    """Load a file of tensors, or one of the project's releases, which hold a pickled network of these classes."""
    from torch.nn.modules import activation, batchnorm, container, conv, linear, pooling
    from torchxrayvision import models

    path = Path(weights).expanduser()
    if not path.is_file():
        raise MachineError(f"encoder xrv_densenet: weights {weights}: no such file; download one from {RELEASES}")
    layers = [
        getattr(module, name)
        for module, names in (
            (container, ("Sequential",)),
            (conv, ("Conv2d",)),
            (batchnorm, ("BatchNorm2d",)),
            (activation, ("ReLU",)),
            (pooling, ("MaxPool2d", "AvgPool2d")),
            (linear, ("Linear",)),
            (models, ("DenseNet", "_DenseBlock", "_DenseLayer", "_Transition")),
        )
        for name in names
    ]
    try:
        with torch.serialization.safe_globals(layers):  # a pickle may build these and nothing else
            stored = torch.load(path, weights_only=True, map_location="cpu")
        if isinstance(stored, torch.nn.Module):
            stored = _tensors_of(stored)
        theirs = {name: tensor for name, tensor in stored.items() if name.startswith("features.")}
        network.load_state_dict(theirs | _tensors_of(network, "classifier.", "op_threshs"))
    except Exception as error:  # unpickling raises many kinds
        reason = first_line(error)
        raise InputError(f"encoder xrv_densenet: {path}: not the weights of its DenseNet-121: {reason}") from None


def _tensors_of(network: torch.nn.Module, *prefixes: str) -> dict[str, torch.Tensor]:
    """A network's state by name; read layer by layer, since old pickles lack what `state_dict` looks at."""
    found = {}
    for path, module in network.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            key = f"{path}.{name}".removeprefix(".")
            if tensor is not None and key.startswith(prefixes or ("",)):
                found[key] = tensor
    return found
