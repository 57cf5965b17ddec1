"""Base of pneumo's image encoders: options, registration, pixels in, features out."""

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from ludwig.constants import ENCODER_OUTPUT, IMAGE
from ludwig.encoders.image.base import ImageEncoder
from ludwig.encoders.registry import register_encoder
from ludwig.schema.encoders.base import BaseEncoderConfig
from ludwig.schema.encoders.utils import register_encoder_config
from ludwig.schema.utils import Boolean, FloatRange, IntegerOptions, IntegerRange, NonNegativeInteger, StringOptions
from torch.nn import functional

from pneumo.pipeline.ludwig.encoders.norm_folding import fold_frozen_norms
from pneumo.pipeline.ludwig.encoders.weight_average import WeightAverage
from pneumo.pipeline.ludwig.encoders.weights import Network

PHOTOGRAPH_MEAN, PHOTOGRAPH_DEVIATION = 0.449, 0.226
"""Mean and standard deviation of ImageNet's pixels in [0, 1], over its three channels."""
_MIN_DEVIATION = 1 / 255
MOST_CACHED_VIEWS = 64
FOLDED_FROM = 80
"""Pixels from which frozen batch norms are folded into convolutions: quicker at 96, slower at 64 (benchmarks)."""


class ImageEncoderConfig(BaseEncoderConfig):
    """Options that Ludwig fills in itself."""

    saved_weights_in_checkpoint: bool = Boolean(False, "Set by Ludwig: weights come from its own checkpoint.")
    height: int | None = NonNegativeInteger("Set by Ludwig.", None, allow_none=True)
    width: int | None = NonNegativeInteger("Set by Ludwig.", None, allow_none=True)
    num_channels: int | None = NonNegativeInteger("Set by Ludwig.", None, allow_none=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Give a subclass the inherited fields: through Ludwig's metaclass it inherits their defaults only."""
        super().__pydantic_init_subclass__(**options)
        own = inspect.get_annotations(cls)
        for name, field in cls.__mro__[1].model_fields.items():  # type: ignore[attr-defined]
            if name not in own:
                cls.model_fields[name] = field
        cls.model_rebuild(force=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return self.num_channels or 1, self.height or 224, self.width or 224


class NetworkConfig(ImageEncoderConfig):
    """Options of every encoder over a ready-made network."""

    trainable: bool = Boolean(True, "Train the network; if false, its batch-norm statistics stay as well.")
    dropout: float = FloatRange(0.2, min=0, max=0.95, description="Share of pooled features dropped in training.")
    batch_norm: str = StringOptions(["train", "frozen"], "train", description="frozen: keep the loaded statistics.")
    normalization: str = StringOptions(["none", "standardize"], "none", description="standardize: each image.")
    views: int = IntegerOptions([1, 2], 1, description="2: average with the mirror image's features, in evaluation.")
    size: int | None = IntegerRange("Resize images to this many pixels.", None, True, min=8, max=4096)
    weight_average: float | None = FloatRange(None, True, "Decay of a moving average.", min=0, max=0.99999)
    cached_views: int = IntegerRange("Frozen: augmented views with cached features.", 8, min=0, max=MOST_CACHED_VIEWS)


class RegisteredEncoder[C: ImageEncoderConfig](ImageEncoder):
    """An encoder that `register_image_encoder` registers; Ludwig gives it a config, or its options by name."""

    config_class: type[C]

    def __init__(self, encoder_config: C | None = None, **options: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.config = encoder_config or self.config_class(**options)
        self.features = 0

    @classmethod
    def get_schema_cls(cls) -> type[C]:
        """Return the schema with which Ludwig validates this encoder's section."""
        return cls.config_class

    @property
    def input_shape(self) -> torch.Size:
        """Channels, height, width."""
        return torch.Size(self.config.shape)

    @property
    def output_shape(self) -> torch.Size:
        """Length of the feature vector."""
        return torch.Size([self.features])


def register_image_encoder[E: RegisteredEncoder[Any]](config: type[ImageEncoderConfig]) -> Callable[[type[E]], type[E]]:
    """Register an encoder and its options with Ludwig, under the `type` of the options."""

    def register(encoder: type[E]) -> type[E]:
        encoder.config_class = config
        register_encoder_config(config.type, IMAGE)(config)
        register_encoder(config.type, IMAGE)(encoder)
        return encoder

    return register


class NetworkEncoder[C: NetworkConfig](RegisteredEncoder[C]):
    """A network up to its pooled features, with all processing of pixels inside, so that an exported graph has it too.

    Takes float32 [N, 1 or 3, H, W] in [0, 1].
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, encoder_config: C | None = None, **options: Any) -> None:
        super().__init__(encoder_config, **options)
        config = self.config
        built = self.build(config)
        self.features, self.channels = built.features, built.channels
        self.backbone = built.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on CPU
        self.backbone.requires_grad_(config.trainable)
        size = (config.size or config.shape[1], config.size or config.shape[2])
        has_frozen_norms = config.batch_norm == "frozen" or not config.trainable
        if has_frozen_norms and not self.caches_features and min(size) >= FOLDED_FROM:
            fold_frozen_norms(self.backbone, self.channels, size)
        self.dropout = torch.nn.Dropout(config.dropout)
        self.average = None if config.weight_average is None else WeightAverage(self.backbone, config.weight_average)
        self.register_buffer("mean", torch.tensor(built.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(built.deviation).view(1, -1, 1, 1), persistent=False)

    @abstractmethod
    def build(self, config: C) -> Network:
        """Build the network, with its weights unless Ludwig loads them from its own checkpoint."""

    def forward(self, inputs: torch.Tensor, training: object = None, mask: object = None) -> dict[str, torch.Tensor]:
        """Map images [N, C, H, W] to features [N, D]; `training` and `mask` are Ludwig's and unused.

        Features [N, D] that were computed before are taken as they are.
        """
        features = inputs if inputs.ndim == 2 else self.compute_features(inputs)
        return {ENCODER_OUTPUT: self.dropout(features)}

    @property
    def caches_features(self) -> bool:
        """Whether the features of a training's images are computed once: nothing that makes them is trained."""
        return not self.config.trainable and self.config.cached_views > 0

    def compute_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features [N, D] of images [N, C, H, W], before dropout."""
        images = self.prepare(images)
        network: torch.nn.Module = self.backbone
        if self.average is not None:
            if self.training:
                self.average.update(self.backbone)
            else:
                network = self.average
        features: torch.Tensor = network(images)
        if self.config.views == 2 and not self.training:
            features = (features + network(images.flip(3))) / 2
        return features

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Give pixels the size, contrast, channels and scale that the weights expect."""
        size = self.config.size
        if size is not None and tuple(images.shape[2:]) != (size, size):
            images = functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)
        if images.shape[1] != self.channels:
            images = images.expand(-1, 3, -1, -1) if self.channels == 3 else images.mean(dim=1, keepdim=True)
        if self.config.normalization == "standardize":
            centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
            deviation = (centred.square().mean(dim=(1, 2, 3), keepdim=True) + _MIN_DEVIATION**2).sqrt()
            images = centred / deviation * PHOTOGRAPH_DEVIATION + PHOTOGRAPH_MEAN
        return ((images - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "NetworkEncoder[C]":
        """Switch to training, except for batch-norm statistics if the network or the statistics are frozen."""
        super().train(mode)
        if not self.config.trainable:
            self.backbone.eval()
        elif self.config.batch_norm == "frozen":
            freeze_statistics(self.backbone)
        return self


def freeze_statistics(network: torch.nn.Module) -> list[torch.nn.Module]:
    """Put the batch-norm layers that are in training mode into evaluation mode, and return them."""
    kind = torch.nn.modules.batchnorm._BatchNorm
    layers = [module for module in network.modules() if isinstance(module, kind) and module.training]
    return [layer.eval() for layer in layers]
