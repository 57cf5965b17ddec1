"""`backbone`: any image network of timm or torchvision, with weights from this machine or none."""

from typing import Any

import torch
from ludwig.constants import IMAGE
from ludwig.encoders.registry import register_encoder
from ludwig.schema import utils as schema_utils
from ludwig.schema.encoders.base import BaseEncoderConfig
from ludwig.schema.encoders.utils import register_encoder_config

from pneumo.pipeline.ludwig.encoders import weights
from pneumo.pipeline.ludwig.encoders.network import NetworkConfig, NetworkEncoder
from pneumo.pipeline.ludwig.encoders.weights import CACHED, Network
from pneumo.serving.contracts.errors import InputError, first_line

LIBRARIES = {"timm": weights.from_timm, "torchvision": weights.from_torchvision}


@register_encoder_config("backbone", IMAGE)
class BackboneConfig(NetworkConfig):
    """What a config may say under `encoder:`."""

    type: str = schema_utils.ProtectedString("backbone")
    library: str = schema_utils.StringOptions(list(LIBRARIES), default="timm", description="Where the network is from.")
    network: str = schema_utils.String(default="resnet18", description="Its name in that library.")
    weights: str | None = schema_utils.String(
        default=None,
        allow_none=True,
        description=f"A .safetensors or .pth file; {CACHED}: what the library has downloaded before; null: random.",
    )
    drop_path: float = schema_utils.FloatRange(
        default=0.0, min=0, max=0.9, description="Most share of images that skip a block in training; timm only."
    )

    def is_pretrained(self) -> bool:
        """Whether weights other than random ones are loaded."""
        return self.weights is not None


@register_encoder("backbone", IMAGE)
class Backbone(NetworkEncoder):
    """A network of timm or torchvision without its classifier.

    With weights, pixels are scaled by the mean and deviation that the library states for them, inside the network;
    without, by 0.5 and 0.5.

    Raises:
        InputError: The library has no such network, it takes no such image or option, or the weights do not fit it.
        MachineError: No such file, or nothing in the library's cache.
    """

    config: BackboneConfig

    def __init__(self, encoder_config: BackboneConfig | None = None, **options: Any) -> None:
        config = encoder_config or BackboneConfig(**options)
        side = config.size or config.height or 224, config.size or config.width or 224
        loaded = LIBRARIES[config.library](
            config.network,
            weights=config.weights,
            load=not config.saved_weights_in_checkpoint,
            drop_path=config.drop_path,
        )
        features = _length_of_features(loaded, config, side)
        super().__init__(loaded.network, features, config, mean=loaded.mean, deviation=loaded.deviation)

    @staticmethod
    def get_schema_cls() -> type[BaseEncoderConfig]:
        """The schema that Ludwig validates this encoder's section with."""
        return BackboneConfig


def _length_of_features(loaded: Network, config: BackboneConfig, side: tuple[int, int]) -> int:
    """Run one black image through: what a network says about itself is not always what comes out."""
    place = f"encoder backbone: {config.library}'s {config.network}"
    loaded.network.eval()
    try:
        with torch.no_grad():
            features = loaded.network(torch.zeros(1, 3, *side))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise InputError(
            f"{place} takes no image of {side[0]} x {side[1]} pixels (state size: ...): {reason}"
        ) from None
    loaded.network.train()
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise InputError(f"{place} gives no feature vector; choose a network that classifies images")
    return features.shape[1]
