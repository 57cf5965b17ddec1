"""`radiograph_intensity`: exposure, window and the film's characteristic curve, as one lookup table an image."""

import torch
from ludwig.schema import utils as schema_utils
from torch.nn import functional

from pneumo.pipeline.ludwig.augmentation.base import (
    WHITE,
    BatchAugmentation,
    RadiographConfig,
    coin,
    log_uniform,
    number,
    register,
    uniform,
)

LEVELS = 256
KNOTS = 5


class RadiographIntensityConfig(RadiographConfig):
    """Options of `radiograph_intensity`."""

    type: str = schema_utils.ProtectedString("radiograph_intensity")
    probability: float = number(0.8, 0, 1, "Chance that an image's tones are changed.")
    gamma_min: float = number(0.8, 0.05, 20, "Least exponent; log-uniform up to gamma_max.")
    gamma_max: float = number(1.25, 0.05, 20, "Most exponent.")
    contrast_min: float = number(0.8, 0.01, 20, "Least factor around mid-gray; log-uniform up to contrast_max.")
    contrast_max: float = number(1.25, 0.01, 20, "Most factor around mid-gray.")
    brightness_min: float = number(-0.1, -1, 1, "Least that is added, as a share of full scale.")
    brightness_max: float = number(0.1, -1, 1, "Most that is added.")
    curve: float = number(
        0.2, 0, 3, "Bend of a random smooth rising tone curve: standard deviation of the logarithm of its slope."
    )
    invert: float = number(0.0, 0, 1, "Chance that a changed image becomes its negative.")


@register(RadiographIntensityConfig)
class RadiographIntensity(BatchAugmentation):
    """Negative, tone curve, gamma, contrast and brightness, in this order, through a table of 256 entries an image.

    The tone curve goes from black to white and rises everywhere; its slope is drawn at five knots and is linear (in
    its logarithm) between them, so that the curve is smooth.
    """

    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Look every pixel up in its image's table."""
        table = (self.tables(picked)[:, 0, 0] * WHITE).clamp_(0, WHITE).round_().to(torch.uint8)
        levels = picked.flatten(1)
        levels = levels.round().int() if picked.is_floating_point() else levels.int()
        levels += (torch.arange(len(picked), device=picked.device, dtype=torch.int32) * LEVELS).view(-1, 1)
        return table.flatten().index_select(0, levels.flatten()).view(picked.shape)

    def tables(self, picked: torch.Tensor) -> torch.Tensor:
        """Draw a table an image: (n, 1, 1, 256), from gray level to share of full scale, not clipped."""
        config = self.config
        tone = torch.linspace(0, 1, LEVELS, device=picked.device).expand(len(picked), 1, 1, -1)
        tone = torch.where(coin(picked, config.invert), 1 - tone, tone)
        bends = torch.randn(len(picked), 1, KNOTS).to(picked.device) * config.curve
        slopes = functional.interpolate(bends, LEVELS - 1, mode="linear", align_corners=True).exp()
        curve = functional.pad(slopes.cumsum(dim=2), (1, 0)) / slopes.sum(dim=2, keepdim=True)
        tone = curve[:, :, None].gather(3, (tone * (LEVELS - 1)).round().long())
        tone = tone ** log_uniform(picked, config.gamma_min, config.gamma_max)
        tone = (tone - 0.5) * log_uniform(picked, config.contrast_min, config.contrast_max) + 0.5
        return tone + uniform(picked, config.brightness_min, config.brightness_max)
