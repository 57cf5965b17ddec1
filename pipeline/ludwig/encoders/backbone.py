"""`backbone`: any image network of timm or torchvision, with weights of a file, of the library, or none."""

from dataclasses import replace

import torch
from ludwig.schema.utils import FloatRange, ProtectedString, String, StringOptions

from pneumo.pipeline.ludwig.encoders import weights
from pneumo.pipeline.ludwig.encoders.network import NetworkConfig, NetworkEncoder, register_image_encoder
from pneumo.pipeline.ludwig.encoders.weight_sources import CACHED, DOWNLOAD
from pneumo.pipeline.ludwig.encoders.weights import Network
from pneumo.serving.contracts.errors import InputError, first_line

LIBRARIES = {"timm": weights.from_timm, "torchvision": weights.from_torchvision}


class BackboneConfig(NetworkConfig):
    """Options under `encoder:`."""

    type: str = ProtectedString("backbone")
    library: str = StringOptions(list(LIBRARIES), "timm", description="Library of the network.")
    network: str = String("Its name in that library.", "resnet18")
    weights: str | None = String(f"A file, {DOWNLOAD}, {CACHED}, or null: random.", None, allow_none=True)
    drop_path: float = FloatRange(0.0, min=0, max=0.9, description="Stochastic depth; timm only.")


@register_image_encoder(BackboneConfig)
class Backbone(NetworkEncoder[BackboneConfig]):
    """A network of timm or torchvision without its classifier.

    With weights, pixels are scaled inside the network by the mean and deviation that the library states for them;
    without weights, by 0.5 and 0.5.

    Raises:
        InputError: The library has no such network, it takes no such image or option, or the weights do not fit it.
        MachineError: There is no such file, or nothing in the library's cache.
    """

    def build(self, config: BackboneConfig) -> Network:
        """Build the network, and run one black image through it to learn the number of its features."""
        load = not config.saved_weights_in_checkpoint
        built = LIBRARIES[config.library](config.network, weights=config.weights, load=load, drop_path=config.drop_path)
        height, width = config.size or config.shape[1], config.size or config.shape[2]
        place = f"encoder backbone: {config.library}'s {config.network}"
        built.network.eval()
        try:
            with torch.no_grad():
                features = built.network(torch.zeros(1, 3, height, width))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{place} takes no image of {height} x {width} pixels (state size: ...): {first_line(error)}"
            ) from None
        built.network.train()
        if not isinstance(features, torch.Tensor) or features.ndim != 2:
            raise InputError(f"{place} gives no feature vector; choose a network that classifies images")
        return replace(built, features=features.shape[1])
