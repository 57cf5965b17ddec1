"""Augmentations of gray levels: `radiograph_intensity`, `radiograph_noise` and `radiograph_style`.

They imitate exposure, window and the film's characteristic curve (one lookup table per image); quantum and electronic
noise, and an uneven field (heel effect, vignette); and the coarse look of another image.
"""

import torch
from ludwig.schema.utils import ProtectedString
from torch.nn import functional

from pneumo.pipeline.ludwig.augmentation import base

LEVELS = 256
KNOTS = 5


class RadiographIntensityConfig(base.RadiographConfig):
    """Options of `radiograph_intensity`."""

    type: str = ProtectedString("radiograph_intensity")
    probability: float = base.number(0.8, 0, 1, "Chance that an image's tones are changed.")
    gamma_min: float = base.number(0.8, 0.05, 20, "Smallest exponent; log-uniform up to gamma_max.")
    gamma_max: float = base.number(1.25, 0.05, 20, "Largest exponent.")
    contrast_min: float = base.number(0.8, 0.01, 20, "Smallest factor around mid-gray; log-uniform up to contrast_max.")
    contrast_max: float = base.number(1.25, 0.01, 20, "Largest factor around mid-gray.")
    brightness_min: float = base.number(-0.1, -1, 1, "Smallest addition, as a share of full scale.")
    brightness_max: float = base.number(0.1, -1, 1, "Largest addition.")
    curve: float = base.number(0.2, 0, 3, "Bend of a random tone curve: standard deviation of its slope's logarithm.")
    invert: float = base.number(0.0, 0, 1, "Chance that a changed image becomes its negative.")


@base.register_augmentation(RadiographIntensityConfig)
class RadiographIntensity(base.BatchAugmentation[RadiographIntensityConfig]):
    """Negative, tone curve, gamma, contrast and brightness, in this order, through a table of 256 entries per image.

    The tone curve goes from black to white and rises everywhere; its slope is drawn at five knots and is linear (in
    its logarithm) between them, so that the curve is smooth.
    """

    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Look up every pixel in its image's table."""
        table = (self.draw_tables(picked)[:, 0, 0] * base.WHITE).clamp_(0, base.WHITE).round_().to(torch.uint8)
        levels = picked.flatten(1)
        levels = levels.round().int() if picked.is_floating_point() else levels.int()
        levels += (torch.arange(len(picked), device=picked.device, dtype=torch.int32) * LEVELS).view(-1, 1)
        return table.flatten().index_select(0, levels.flatten()).view(picked.shape)

    def draw_tables(self, picked: torch.Tensor) -> torch.Tensor:
        """Draw a table per image: (n, 1, 1, 256), from gray level to share of full scale, not clipped."""
        config = self.config
        tone = torch.linspace(0, 1, LEVELS, device=picked.device).expand(len(picked), 1, 1, -1)
        tone = torch.where(base.toss_coin(picked, config.invert), 1 - tone, tone)
        bends = torch.randn(len(picked), 1, KNOTS).to(picked.device) * config.curve
        slopes = functional.interpolate(bends, LEVELS - 1, mode="linear", align_corners=True).exp()
        curve = functional.pad(slopes.cumsum(dim=2), (1, 0)) / slopes.sum(dim=2, keepdim=True)
        tone = curve[:, :, None].gather(3, (tone * (LEVELS - 1)).round().long())
        tone = tone ** base.draw_log_uniform(picked, config.gamma_min, config.gamma_max)
        tone = (tone - 0.5) * base.draw_log_uniform(picked, config.contrast_min, config.contrast_max) + 0.5
        return tone + base.draw_uniform(picked, config.brightness_min, config.brightness_max)


class RadiographNoiseConfig(base.RadiographConfig):
    """Options of `radiograph_noise`."""

    type: str = ProtectedString("radiograph_noise")
    probability: float = base.number(0.5, 0, 1, "Chance that an image gets noise and an uneven field.")
    gaussian: float = base.number(0.02, 0, 1, "Largest deviation of constant noise, as a share of full scale.")
    poisson: float = base.number(0.02, 0, 1, "Largest deviation of Poisson-like noise, at full scale.")
    bias: float = base.number(0.1, 0, 1, "Largest change of brightness by a smooth field, as a share of it.")


@base.register_augmentation(RadiographNoiseConfig)
class RadiographNoise(base.BatchAugmentation[RadiographNoiseConfig]):
    """Multiplies with a smooth random field, then adds constant and signal-dependent normal noise, gray."""

    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Draw the field, the two strengths of noise and the noise of each image."""
        config = self.config
        images = picked.float()
        if config.bias:
            images = images * (1 + self.draw_fields(images) * base.draw_uniform(images, 0, config.bias))
        if config.gaussian or config.poisson:
            constant, growing = (
                base.draw_uniform(images, 0, config.gaussian),
                base.draw_uniform(images, 0, config.poisson),
            )
            # two independent normal noises add up to one with the sum of their variances
            deviation = (constant**2 * base.WHITE**2 + growing**2 * base.WHITE * images.clamp(0, base.WHITE)).sqrt_()
            noise = torch.randn(len(images), 1, *images.shape[2:], device=images.device)
            images = torch.addcmul(images, deviation, noise)
        return images

    def draw_fields(self, images: torch.Tensor) -> torch.Tensor:
        """Draw a random polynomial of second degree per image, in [-1, 1]: [n, 1, H, W]."""
        height, width = images.shape[2:]
        y = torch.linspace(-1, 1, height, device=images.device).view(-1, 1).expand(height, width)
        x = torch.linspace(-1, 1, width, device=images.device).view(1, -1).expand(height, width)
        shapes = torch.stack([x, y, x * y, x * x, y * y]).flatten(1)
        field = torch.randn(len(images), len(shapes)).to(images.device) @ shapes
        field = field - field.mean(dim=1, keepdim=True)
        return (field / field.abs().amax(dim=1, keepdim=True).clamp_min(1e-6)).view(-1, 1, height, width)


class RadiographStyleConfig(base.RadiographConfig):
    """Options of `radiograph_style`."""

    type: str = ProtectedString("radiograph_style")
    probability: float = base.number(0.3, 0, 1, "Chance that an image takes over another's look.")
    strength: float = base.number(0.5, 0, 1, "Largest share of the other's amplitude that is taken.")
    band: float = base.number(0.05, 0, 0.5, "Frequencies from 0 to this share of the image's side are taken.")


@base.register_augmentation(RadiographStyleConfig)
class RadiographStyle(base.BatchAugmentation[RadiographStyleConfig]):
    """Fourier domain adaptation (Yang and Soatto, CVPR 2020) within a batch: amplitudes of low frequencies are mixed.

    Phases, in which the structure lies, and labels stay.
    """

    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Mix each image's low frequencies with those of a random other image."""
        if len(batch) < 2:
            return picked
        height, width = picked.shape[2:]
        step = torch.randint(1, len(batch), (len(picked),)).to(chosen.device)
        looks = torch.fft.rfft2(batch.float())
        own, other = looks.index_select(0, chosen), looks.index_select(0, (chosen + step) % len(batch))
        strength = base.draw_uniform(picked, 0, self.config.strength)
        band = min(int(self.config.band * min(height, width)), (min(height, width) - 1) // 2)
        columns = slice(0, band + 1)
        for rows in (slice(0, band + 1), slice(height - band, height)):
            here = own[:, :, rows, columns]
            before, target = here.abs(), other[:, :, rows, columns].abs()
            own[:, :, rows, columns] = here * (torch.lerp(before, target, strength) / before.clamp_min(1e-6))
        mixed: torch.Tensor = torch.fft.irfft2(own, s=(height, width))
        return mixed
