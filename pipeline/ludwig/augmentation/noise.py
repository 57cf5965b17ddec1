"""`radiograph_noise`: quanta, electronics, and a field that is not evenly bright (heel effect, vignette)."""

import torch
from ludwig.schema import utils as schema_utils

from pneumo.pipeline.ludwig.augmentation.base import (
    WHITE,
    BatchAugmentation,
    RadiographConfig,
    number,
    register,
    uniform,
)


class RadiographNoiseConfig(RadiographConfig):
    """Options of `radiograph_noise`."""

    type: str = schema_utils.ProtectedString("radiograph_noise")
    probability: float = number(0.5, 0, 1, "Chance that an image gets noise and an uneven field.")
    gaussian: float = number(0.02, 0, 1, "Most deviation of noise that is the same everywhere, share of full scale.")
    poisson: float = number(
        0.02, 0, 1, "Most deviation, at full scale, of noise that grows with the square root of the signal."
    )
    bias: float = number(0.1, 0, 1, "Most by which a smooth field brightens or darkens a place, as a share of it.")


@register(RadiographNoiseConfig)
class RadiographNoise(BatchAugmentation):
    """Multiplies with a smooth random field, then adds constant and signal-dependent normal noise, gray."""

    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Draw a field, two strengths of noise and the noise of each image."""
        config = self.config
        images = picked.float()
        if config.bias:
            images = images * (1 + self.fields(images) * uniform(images, 0, config.bias))
        if config.gaussian or config.poisson:
            constant, growing = uniform(images, 0, config.gaussian), uniform(images, 0, config.poisson)
            # two independent normal noises add up to one with the sum of their variances
            deviation = (constant**2 * WHITE**2 + growing**2 * WHITE * images.clamp(0, WHITE)).sqrt_()
            noise = torch.randn(len(images), 1, *images.shape[2:], device=images.device)
            images = torch.addcmul(images, deviation, noise)
        return images

    def fields(self, images: torch.Tensor) -> torch.Tensor:
        """A random polynomial of second degree an image, within -1 and 1: [n, 1, H, W]."""
        height, width = images.shape[2:]
        y = torch.linspace(-1, 1, height, device=images.device).view(-1, 1).expand(height, width)
        x = torch.linspace(-1, 1, width, device=images.device).view(1, -1).expand(height, width)
        shapes = torch.stack([x, y, x * y, x * x, y * y]).flatten(1)
        field = torch.randn(len(images), len(shapes)).to(images.device) @ shapes
        field = field - field.mean(dim=1, keepdim=True)
        return (field / field.abs().amax(dim=1, keepdim=True).clamp_min(1e-6)).view(-1, 1, height, width)
