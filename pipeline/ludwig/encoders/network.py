"""What all encoders over a ready-made network share: options, pixels in, features out."""

import inspect
from typing import Any

import torch
from ludwig.constants import ENCODER_OUTPUT
from ludwig.encoders.image.base import ImageEncoder
from ludwig.schema import utils as schema_utils
from ludwig.schema.encoders.base import BaseEncoderConfig
from torch.nn import functional

from pneumo.pipeline.ludwig.encoders.norm_folding import fold_frozen_norms
from pneumo.pipeline.ludwig.encoders.weight_average import WeightAverage

PHOTOGRAPH_MEAN, PHOTOGRAPH_DEVIATION = 0.449, 0.226
"""Mean and deviation of ImageNet's pixels in [0, 1], over its three channels."""
_FLAT = 1 / 255


class NetworkConfig(BaseEncoderConfig):
    """Options that all these encoders take. `height`, `width` and `num_channels` are filled by Ludwig."""

    trainable: bool = schema_utils.Boolean(
        default=True, description="Train the network; when false its batch-norm statistics stay as well."
    )
    dropout: float = schema_utils.FloatRange(
        default=0.2, min=0, max=0.95, description="Share of the pooled features dropped in training."
    )
    batch_norm: str = schema_utils.StringOptions(
        ["train", "frozen"],
        default="train",
        description="frozen: batch-norm statistics stay as they were loaded while weights train.",
    )
    normalization: str = schema_utils.StringOptions(
        ["none", "standardize"],
        default="none",
        description="standardize: give each image the mean and deviation of a photograph, before all other scaling.",
    )
    views: int = schema_utils.IntegerOptions(
        [1, 2], default=1, description="2: average the features of an image and its mirror image, in evaluation only."
    )
    size: int | None = schema_utils.IntegerRange(
        default=None,
        allow_none=True,
        min=8,
        max=4096,
        description="Resize the image to this many pixels inside the network.",
    )
    weight_average: float | None = schema_utils.FloatRange(
        default=None,
        allow_none=True,
        min=0,
        max=0.99999,
        description="Decay of a moving average of the weights, which is what evaluates and is exported.",
    )
    saved_weights_in_checkpoint: bool = schema_utils.Boolean(
        default=False, description="Set by Ludwig: weights come from its own checkpoint."
    )
    height: int | None = schema_utils.NonNegativeInteger(default=None, allow_none=True, description="Set by Ludwig.")
    width: int | None = schema_utils.NonNegativeInteger(default=None, allow_none=True, description="Set by Ludwig.")
    num_channels: int | None = schema_utils.NonNegativeInteger(
        default=None, allow_none=True, description="Set by Ludwig."
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Give a subclass the fields above whole: through Ludwig's metaclass it inherits their defaults only."""
        super().__pydantic_init_subclass__(**options)
        own = inspect.get_annotations(cls)
        for name, field in NetworkConfig.model_fields.items():
            if name not in own:
                cls.model_fields[name] = field
        cls.model_rebuild(force=True)


class NetworkEncoder(ImageEncoder):
    """A network up to its pooled features, with everything that is done to pixels inside, so that a graph has it too.

    Takes float32 [N, 1 or 3, H, W] in [0, 1].

    Args:
        network: Maps [N, `channels`, H, W] to [N, features].
        features: Length of the feature vector.
        config: Its options.
        mean: What the network's weights expect to be subtracted, one number a channel.
        deviation: What they expect to be divided by.
        channels: 3: one channel is shown three times; 1: of three channels the mean is shown.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self,
        network: torch.nn.Module,
        features: int,
        config: NetworkConfig,
        *,
        mean: tuple[float, ...],
        deviation: tuple[float, ...],
        channels: int = 3,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.config = config
        self.channels = channels
        self._shape = (config.num_channels or 1, config.height or 224, config.width or 224)
        self._features = features
        self.backbone = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on CPU
        self.backbone.requires_grad_(config.trainable)
        if config.batch_norm == "frozen" or not config.trainable:
            fold_frozen_norms(self.backbone, channels, (config.size or self._shape[1], config.size or self._shape[2]))
        self.dropout = torch.nn.Dropout(config.dropout)
        self.average = None if config.weight_average is None else WeightAverage(self.backbone, config.weight_average)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1), persistent=False)

    def forward(self, inputs: torch.Tensor, training: Any = None, mask: Any = None) -> dict[str, torch.Tensor]:
        """Map images [N, C, H, W] to features [N, D]; `training` and `mask` are Ludwig's and unused."""
        images = self.prepare(inputs)
        network = self.backbone
        if self.average is not None:
            if self.training:
                self.average.update(self.backbone)
            else:
                network = self.average
        features = network(images)
        if self.config.views == 2 and not self.training:
            features = (features + network(images.flip(3))) / 2
        return {ENCODER_OUTPUT: self.dropout(features)}

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels as the weights expect them: size, contrast, channels, scale."""
        size = self.config.size
        if size is not None and tuple(images.shape[2:]) != (size, size):
            images = functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)
        if images.shape[1] != self.channels:
            images = images.expand(-1, 3, -1, -1) if self.channels == 3 else images.mean(dim=1, keepdim=True)
        if self.config.normalization == "standardize":
            centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
            deviation = (centred.square().mean(dim=(1, 2, 3), keepdim=True) + _FLAT**2).sqrt()
            images = centred / deviation * PHOTOGRAPH_DEVIATION + PHOTOGRAPH_MEAN
        return ((images - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "NetworkEncoder":
        """Switch to training, but leave batch-norm statistics alone where the network or they are frozen."""
        super().train(mode)
        if not self.config.trainable:
            self.backbone.eval()
        elif self.config.batch_norm == "frozen":
            freeze_statistics(self.backbone)
        return self

    @property
    def input_shape(self) -> torch.Size:
        """Channels, height, width."""
        return torch.Size(self._shape)

    @property
    def output_shape(self) -> torch.Size:
        """Length of the feature vector."""
        return torch.Size([self._features])


def freeze_statistics(network: torch.nn.Module) -> list[torch.nn.Module]:
    """Put batch-norm layers that are training into evaluation mode; returns them."""
    kind = torch.nn.modules.batchnorm._BatchNorm
    layers: list[torch.nn.Module] = [
        module for module in network.modules() if isinstance(module, kind) and module.training
    ]
    for layer in layers:
        layer.eval()
    return layers
