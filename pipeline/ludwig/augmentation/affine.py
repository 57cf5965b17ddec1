"""`radiograph_affine`: how the patient stood and how the film was laid down."""

import math

import torch
from ludwig.schema import utils as schema_utils
from torch.nn import functional

from pneumo.pipeline.ludwig.augmentation.base import (
    BatchAugmentation,
    RadiographConfig,
    coin,
    log_uniform,
    number,
    register,
    uniform,
)


class RadiographAffineConfig(RadiographConfig):
    """Options of `radiograph_affine`."""

    type: str = schema_utils.ProtectedString("radiograph_affine")
    probability: float = number(0.8, 0, 1, "Chance that an image is moved.")
    rotation: float = number(7.0, 0, 180, "Most degrees to either side.")
    scale_min: float = number(0.9, 0.1, 10, "Least magnification; log-uniform up to scale_max.")
    scale_max: float = number(1.1, 0.1, 10, "Most magnification.")
    aspect: float = number(1.1, 1, 4, "Most width over height, or height over width; log-uniform.")
    translate: float = number(0.05, 0, 1, "Most shift along either side, as a share of it.")
    shear: float = number(0.0, 0, 60, "Most degrees of shear to either side.")
    flip: float = number(0.0, 0, 1, "Chance that a moved image is mirrored left to right, which moves the heart.")


@register(RadiographAffineConfig)
class RadiographAffine(BatchAugmentation):
    """Rotation, scale, aspect, shift, shear and mirroring in one bilinear sampling; outside it is black."""

    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Sample each image where its random map sends the pixels."""
        config, (count, _, height, width) = self.config, picked.shape
        angle = uniform(picked, -config.rotation, config.rotation) * (math.pi / 180)
        shear = (uniform(picked, -config.shear, config.shear) * (math.pi / 180)).tan()
        scale = log_uniform(picked, config.scale_min, config.scale_max)
        aspect = log_uniform(picked, 1 / config.aspect, config.aspect).sqrt()
        mirror = 1 - 2 * coin(picked, config.flip).float()
        shift_x = uniform(picked, -config.translate, config.translate)
        shift_y = uniform(picked, -config.translate, config.translate)
        # The inverse of: mirror and scale, then shear, then rotate. In pixels, so that a square stays one when turned.
        across, down = mirror / (scale * aspect), aspect / scale
        cosine, sine = angle.cos(), angle.sin()
        x_from_x, x_from_y = across * (cosine + shear * sine), across * (sine - shear * cosine)
        y_from_x, y_from_y = -down * sine, down * cosine
        x = (torch.arange(width, device=picked.device) + 0.5 - width / 2).view(1, 1, 1, -1)
        y = (torch.arange(height, device=picked.device) + 0.5 - height / 2).view(1, 1, -1, 1)
        grid = torch.empty(count, height, width, 2, device=picked.device)  # -1 to 1 over the image
        torch.add(
            (x_from_x * x * (2 / width) - 2 * shift_x)[:, 0], (x_from_y * y * (2 / width))[:, 0], out=grid[..., 0]
        )
        torch.add(
            (y_from_x * x * (2 / height) - 2 * shift_y)[:, 0], (y_from_y * y * (2 / height))[:, 0], out=grid[..., 1]
        )
        return functional.grid_sample(picked.float(), grid, padding_mode="zeros", align_corners=False)
