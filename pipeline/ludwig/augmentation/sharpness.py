"""`radiograph_sharpness`: blur, lower resolution, and the edge enhancement of a console."""

import math

import torch
from ludwig.error import ConfigValidationError
from ludwig.schema.utils import ProtectedString
from torch.nn import functional

from pneumo.pipeline.ludwig.augmentation import base


class RadiographSharpnessConfig(base.RadiographConfig):
    """Options of `radiograph_sharpness`."""

    type: str = ProtectedString("radiograph_sharpness")
    probability: float = base.number(0.5, 0, 1, "Chance that an image is blurred, made coarser or sharpened.")
    blur: float = base.number(0.4, 0, 1, "Share of these that is blurred; the three shares add up to at most 1.")
    downsample: float = base.number(0.4, 0, 1, "Share of these that is downsampled and upsampled again.")
    unsharp: float = base.number(0.2, 0, 1, "Share of these that is sharpened with an unsharp mask.")
    sigma_min: float = base.number(0.3, 0.05, 20, "Smallest deviation of the Gaussian of blur and mask, in pixels.")
    sigma_max: float = base.number(1.2, 0.05, 20, "Largest deviation, in pixels.")
    resolution: float = base.number(0.5, 0.02, 1, "Smallest share of width and height to downsample to.")
    amount: float = base.number(1.0, 0, 10, "Largest strength of the mask.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blur + self.downsample + self.unsharp > 1 + 1e-6:
            raise ConfigValidationError(f"{self.type}: the shares blur, downsample and unsharp add up to more than 1")


@base.register_augmentation(RadiographSharpnessConfig)
class RadiographSharpness(base.BatchAugmentation[RadiographSharpnessConfig]):
    """One of Gaussian blur, down-and-up sampling and unsharp masking for each drawn image."""

    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Draw one of the three changes for each image and apply it."""
        config = self.config
        changed = picked.to(torch.float32, copy=True)
        draw = torch.rand(len(picked))
        blurred, coarser = config.blur, config.blur + config.downsample
        smooth = ((draw < blurred) | ((draw >= coarser) & (draw < coarser + config.unsharp))).nonzero().flatten()
        if len(smooth):
            rows = smooth.to(changed.device)
            images = changed[rows]
            soft = gaussian_blur(images, base.draw_uniform(images, config.sigma_min, config.sigma_max))
            mask = (draw[smooth] >= blurred).to(images.device).view(-1, 1, 1, 1)
            sharp = images + (images - soft) * base.draw_uniform(images, 0, config.amount)
            changed[rows] = torch.where(mask, sharp, soft)
        for position in ((draw >= blurred) & (draw < coarser)).nonzero().flatten().tolist():
            share = float(torch.rand(())) * (1 - config.resolution) + config.resolution
            changed[position : position + 1] = _down_and_up(changed[position : position + 1], share)
        return changed


def gaussian_blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur each image with its own Gaussian; the border is repeated outwards.

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
