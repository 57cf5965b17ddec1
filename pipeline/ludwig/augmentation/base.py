"""What every augmentation shares: who is drawn, what dtype comes out, how options are checked."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

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
    """A field of a schema: a number in a closed range."""
    return schema_utils.FloatRange(default=default, min=least, max=most, description=description)


class RadiographConfig(BaseAugmentationConfig):
    """Base of the schemas: refuses `x_min` above `x_max`."""

    @classmethod
    def model_validate(cls, *arguments: Any, **options: Any) -> Self:
        """Validate, with Ludwig's own error: any other one it swallows here, and trains with something else."""
        try:
            return super().model_validate(*arguments, **options)
        except ValidationError as error:
            raise ConfigValidationError(f"{cls.type}: {error}") from error

    def __post_init__(self) -> None:
        for name in type(self).model_fields:
            upper = f"{name.removesuffix('_min')}_max"
            if name.endswith("_min") and getattr(self, name) > getattr(self, upper):
                raise ConfigValidationError(
                    f"{self.type}: {name} is {getattr(self, name)}, more than {upper}, {getattr(self, upper)}"
                )


def register[Op: "BatchAugmentation"](config: type[RadiographConfig]) -> Callable[[type[Op]], type[Op]]:
    """Register a schema and the operation under it with Ludwig, under the schema's `type`."""
    name: str = config.type
    register_augmentation_config(name, IMAGE)(config)

    def wrap(operation: type[Op]) -> type[Op]:
        register_augmentation_op(name, IMAGE)(operation)
        return operation

    return wrap


class BatchAugmentation(torch.nn.Module, ABC):
    """An operation on a batch that leaves each image alone or changes it, drawn image by image.

    Args:
        config: The operation's section of the config; `config.probability` is the chance that an image is changed.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Change some images of a batch.

        Args:
            images: [N, C, H, W], uint8, or floating point with values in 0-255.

        Returns:
            The same shape, dtype and device. The input is not written to.
        """
        chosen = (torch.rand(len(images)) < self.config.probability).nonzero().flatten().to(images.device)
        if len(chosen) == 0:
            return images
        every = len(chosen) == len(images)
        changed = self.change(images if every else images.index_select(0, chosen), images, chosen)
        if changed.dtype != images.dtype:
            changed = changed.clamp(0, WHITE)
            changed = (changed if images.is_floating_point() else changed.round_()).to(images.dtype)
        elif images.is_floating_point():
            changed = changed.clamp(0, WHITE)
        if every:
            return changed
        place = torch.arange(len(images), device=images.device)
        place[chosen] = torch.arange(len(images), len(images) + len(chosen), device=images.device)
        return torch.cat([images, changed]).index_select(0, place)  # a third of the time of index_copy

    @abstractmethod
    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Change images.

        Args:
            picked: The drawn images [n, C, H, W], n >= 1; may be the batch itself, so it is not written to.
            batch: The whole batch [N, C, H, W] as it came in.
            chosen: Position in the batch of each drawn image (n,).

        Returns:
            [n, C, H, W]: uint8, or float32 that may leave 0-255.
        """


def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """One draw an image, as float32 (n, 1, 1, 1) on the device of `like`."""
    return _column(torch.rand(len(like)) * (high - low) + low, like)


def log_uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """As `uniform`, with the logarithm evenly spread: a factor is as likely as its inverse. Both ends are positive."""
    span = torch.tensor([low, high]).log()
    return _column((torch.rand(len(like)) * (span[1] - span[0]) + span[0]).exp(), like)


def coin(like: torch.Tensor, probability: float) -> torch.Tensor:
    """One toss an image, as bool (n, 1, 1, 1)."""
    return _column(torch.rand(len(like)) < probability, like)


def _column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.to(like.device).view(-1, 1, 1, 1)
