"""`radiograph_erasing`: random rectangles are hidden, as markers, tubes and collimators do."""

import torch
from ludwig.schema import utils as schema_utils

from pneumo.pipeline.ludwig.augmentation.base import (
    BatchAugmentation,
    RadiographConfig,
    log_uniform,
    number,
    register,
    uniform,
)

FILLS = ["mean", "noise"]


class RadiographErasingConfig(RadiographConfig):
    """Options of `radiograph_erasing`."""

    type: str = schema_utils.ProtectedString("radiograph_erasing")
    probability: float = number(0.3, 0, 1, "Chance that rectangles of an image are erased.")
    area_min: float = number(0.02, 0, 1, "Least share of the image that a rectangle takes.")
    area_max: float = number(0.1, 0, 1, "Most share of the image that a rectangle takes.")
    aspect: float = number(3.0, 1, 10, "Most width over height, or height over width, in shares of the sides.")
    count: int = schema_utils.IntegerRange(
        default=2, min=1, max=16, description="Most rectangles an image; 1 at least."
    )
    fill: str = schema_utils.StringOptions(
        FILLS, default="mean", description="Fill with the image's mean, or with noise of its mean and deviation."
    )


@register(RadiographErasingConfig)
class RadiographErasing(BatchAugmentation):
    """Random erasing (Zhong et al., 2020) with one to `count` rectangles, which may overlap, in each drawn image."""

    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Draw rectangles and fill them."""
        config, height, width = self.config, picked.shape[2], picked.shape[3]
        y = torch.arange(height, device=picked.device).view(1, 1, -1, 1) + 0.5
        x = torch.arange(width, device=picked.device).view(1, 1, 1, -1) + 0.5
        wanted = torch.randint(1, config.count + 1, (len(picked), 1, 1, 1)).to(picked.device)
        hidden = torch.zeros(len(picked), 1, height, width, dtype=torch.bool, device=picked.device)
        for rectangle in range(config.count):
            area = uniform(picked, config.area_min, config.area_max)
            aspect = log_uniform(picked, 1 / config.aspect, config.aspect)
            wide, tall = (area * aspect).sqrt().clamp(max=1) * width, (area / aspect).sqrt().clamp(max=1) * height
            left, top = uniform(picked, 0, 1) * (width - wide), uniform(picked, 0, 1) * (height - tall)
            rows = (y >= top) & (y < top + tall) & (wanted > rectangle)
            hidden |= rows & (x >= left) & (x < left + wide)
        images = picked.float()
        fill = images.mean(dim=(2, 3), keepdim=True)
        if config.fill == "noise":
            noise = torch.randn(len(images), 1, height, width, device=images.device)
            fill = fill + noise * images.std(dim=(2, 3), keepdim=True)
        return torch.where(hidden, fill, images)
