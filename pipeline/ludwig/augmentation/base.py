"""Base of the augmentations: which images are drawn, which dtype is returned, how options are checked."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import torch
from ludwig.constants import IMAGE
from ludwig.error import ConfigValidationError
from ludwig.schema import utils as schema_utils
from ludwig.schema.features.augmentation.base import BaseAugmentationConfig
from ludwig.schema.features.augmentation.utils import register_augmentation_config
from ludwig.utils.augmentation_utils import register_augmentation_op
from pydantic import ValidationError

WHITE = 255.0


def number(default: float, least: float, most: float, description: str) -> Any:
    """Return a field of a schema: a number in a closed range."""
    return schema_utils.FloatRange(default=default, min=least, max=most, description=description)


class RadiographConfig(BaseAugmentationConfig):
    """Base of the schemas; refuses `x_min` above `x_max`."""

    if TYPE_CHECKING:
        probability: float

    @classmethod
    def model_validate(cls, *arguments: Any, **options: Any) -> Self:
        """Validate, with Ludwig's own error: it swallows any other here, and trains without the augmentation."""
        try:
            return super().model_validate(*arguments, **options)
        except ValidationError as error:
            raise ConfigValidationError(f"{cls.type}: {error}") from error

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in type(self).model_fields}
        for name, value in values.items():
            upper = f"{name.removesuffix('_min')}_max"
            if name.endswith("_min") and value > values[upper]:
                raise ConfigValidationError(f"{self.type}: {name} is {value}, more than {upper}, {values[upper]}")


class BatchAugmentation[C: RadiographConfig](torch.nn.Module, ABC):
    """An operation on a batch that changes each image with the chance `config.probability`, in a way drawn for it."""

    def __init__(self, config: C) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Change some images of a batch.

        Args:
            images: [N, C, H, W], uint8, or floating point with values in 0-255; not written to.

        Returns:
            The same shape, dtype and device.
        """
        chosen = (torch.rand(len(images)) < self.config.probability).nonzero().flatten().to(images.device)
        if len(chosen) == 0:
            return images
        is_every = len(chosen) == len(images)
        changed = self.change(images if is_every else images.index_select(0, chosen), images, chosen)
        if changed.dtype != images.dtype or images.is_floating_point():
            changed = changed.clamp(0, WHITE)
        if changed.dtype != images.dtype:
            changed = (changed if images.is_floating_point() else changed.round_()).to(images.dtype)
        if is_every:
            return changed
        place = torch.arange(len(images), device=images.device)
        place[chosen] = torch.arange(len(images), len(images) + len(chosen), device=images.device)
        return torch.cat([images, changed]).index_select(0, place)  # a third of the time of index_copy

    @abstractmethod
    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Change images.

        Args:
            picked: The drawn images [n, C, H, W], n >= 1; may be the batch itself, so it must not be written to.
            batch: The whole batch [N, C, H, W].
            chosen: Position in the batch of each drawn image (n,).

        Returns:
            [n, C, H, W]: uint8, or float32 that may leave 0-255.
        """


def register_augmentation[A: BatchAugmentation[Any]](config: type[RadiographConfig]) -> Callable[[type[A]], type[A]]:
    """Register an operation and its schema with Ludwig, under the schema's `type`."""

    def register(operation: type[A]) -> type[A]:
        register_augmentation_config(config.type, IMAGE)(config)
        register_augmentation_op(config.type, IMAGE)(operation)
        return operation

    return register


def draw_uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Draw one number per image, as float32 (n, 1, 1, 1) on the device of `like`."""
    return _to_column(torch.rand(len(like)) * (high - low) + low, like)


def draw_log_uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Draw as `draw_uniform` with a uniform logarithm: a factor is as likely as its inverse. Both ends are positive."""
    span = torch.tensor([low, high]).log()
    return _to_column((torch.rand(len(like)) * (span[1] - span[0]) + span[0]).exp(), like)


def toss_coin(like: torch.Tensor, probability: float) -> torch.Tensor:
    """Toss one coin per image, as bool (n, 1, 1, 1)."""
    return _to_column(torch.rand(len(like)) < probability, like)


def _to_column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.to(like.device).view(-1, 1, 1, 1)
