"""`radiograph_sharpness`: blur, lost resolution, and the edge enhancement of a console."""

import math

import torch
from ludwig.error import ConfigValidationError
from ludwig.schema import utils as schema_utils
from torch.nn import functional

from pneumo.pipeline.ludwig.augmentation.base import (
    BatchAugmentation,
    RadiographConfig,
    number,
    register,
    uniform,
)


class RadiographSharpnessConfig(RadiographConfig):
    """Options of `radiograph_sharpness`."""

    type: str = schema_utils.ProtectedString("radiograph_sharpness")
    probability: float = number(0.5, 0, 1, "Chance that an image is blurred, made coarser or sharpened.")
    blur: float = number(0.4, 0, 1, "Share of these that is blurred; the three shares add up to 1 at most.")
    downsample: float = number(0.4, 0, 1, "Share of these that is made smaller and large again.")
    unsharp: float = number(0.2, 0, 1, "Share of these that is sharpened with an unsharp mask.")
    sigma_min: float = number(0.3, 0.05, 20, "Least deviation of the Gaussian of blur and mask, in pixels.")
    sigma_max: float = number(1.2, 0.05, 20, "Most deviation, in pixels.")
    resolution: float = number(0.5, 0.02, 1, "Least share of the width and height that is kept; at most all.")
    amount: float = number(1.0, 0, 10, "Most strength of the mask.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blur + self.downsample + self.unsharp > 1 + 1e-6:
            raise ConfigValidationError(f"{self.type}: the shares blur, downsample and unsharp add up to more than 1")


@register(RadiographSharpnessConfig)
class RadiographSharpness(BatchAugmentation):
    """One of Gaussian blur, down-and-up sampling and unsharp masking for each drawn image."""

    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Draw what happens to each image, and do it."""
        config = self.config
        changed = picked.to(torch.float32, copy=True)
        draw = torch.rand(len(picked))
        blurred, coarser = config.blur, config.blur + config.downsample
        smooth = ((draw < blurred) | ((draw >= coarser) & (draw < coarser + config.unsharp))).nonzero().flatten()
        if len(smooth):
            images = changed[smooth.to(changed.device)]
            soft = gaussian_blur(images, uniform(images, config.sigma_min, config.sigma_max))
            mask = (draw[smooth] >= blurred).to(images.device).view(-1, 1, 1, 1)
            sharp = images + (images - soft) * uniform(images, 0, config.amount)
            changed[smooth.to(changed.device)] = torch.where(mask, sharp, soft)
        for position in ((draw >= blurred) & (draw < coarser)).nonzero().flatten().tolist():
            share = float(torch.rand(())) * (1 - config.resolution) + config.resolution
            changed[position : position + 1] = _down_and_up(changed[position : position + 1], share)
        return changed


def gaussian_blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur each image with its own Gaussian; the border is continued outwards.

    Args:
        images: float32 [n, C, H, W].
        sigma: Deviations in pixels, (n, 1, 1, 1).
    """
    count, channels, height, width = images.shape
    radius = min(math.ceil(3 * float(sigma.max())), max(1, min(height, width) - 1))
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = (-0.5 * (offsets / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum(dim=3, keepdim=True)).repeat_interleave(channels, dim=0)
    planes = functional.pad(images.reshape(1, count * channels, height, width), (radius,) * 4, mode="replicate")
    planes = functional.conv2d(planes, kernel, groups=count * channels)
    planes = functional.conv2d(planes, kernel.transpose(2, 3), groups=count * channels)
    return planes.view(images.shape)


def _down_and_up(image: torch.Tensor, share: float) -> torch.Tensor:
    size = image.shape[2:]
    small = [max(1, round(side * share)) for side in size]
    coarse = functional.interpolate(image, small, mode="bilinear", antialias=True)
    return functional.interpolate(coarse, size, mode="bilinear")
