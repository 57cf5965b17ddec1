"""Augmentations of geometry: `radiograph_affine` moves the image, `radiograph_erasing` hides parts of it.

They imitate the position of patient and film, and markers, tubes and collimators.
"""

import math

import torch
from ludwig.schema.utils import IntegerRange, ProtectedString, StringOptions
from torch.nn import functional

from pneumo.pipeline.ludwig.augmentation import base


class RadiographAffineConfig(base.RadiographConfig):
    """Options of `radiograph_affine`."""

    type: str = ProtectedString("radiograph_affine")
    probability: float = base.number(0.8, 0, 1, "Chance that an image is moved.")
    rotation: float = base.number(7.0, 0, 180, "Largest rotation to either side, in degrees.")
    scale_min: float = base.number(0.9, 0.1, 10, "Smallest magnification; log-uniform up to scale_max.")
    scale_max: float = base.number(1.1, 0.1, 10, "Largest magnification.")
    aspect: float = base.number(1.1, 1, 4, "Largest ratio of width to height, or height to width; log-uniform.")
    translate: float = base.number(0.05, 0, 1, "Largest shift along either side, as a share of it.")
    shear: float = base.number(0.0, 0, 60, "Largest shear to either side, in degrees.")
    flip: float = base.number(0.0, 0, 1, "Chance that a moved image is mirrored left to right, which moves the heart.")


@base.register_augmentation(RadiographAffineConfig)
class RadiographAffine(base.BatchAugmentation[RadiographAffineConfig]):
    """Rotation, scale, aspect, shift, shear and mirroring in one bilinear sampling; outside the image is black."""

    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Sample each image through its own random affine map."""
        config, (count, _, height, width) = self.config, picked.shape
        angle = base.draw_uniform(picked, -config.rotation, config.rotation) * (math.pi / 180)
        shear = (base.draw_uniform(picked, -config.shear, config.shear) * (math.pi / 180)).tan()
        scale = base.draw_log_uniform(picked, config.scale_min, config.scale_max)
        aspect = base.draw_log_uniform(picked, 1 / config.aspect, config.aspect).sqrt()
        mirror = 1 - 2 * base.toss_coin(picked, config.flip).float()
        shift_x = base.draw_uniform(picked, -config.translate, config.translate)
        shift_y = base.draw_uniform(picked, -config.translate, config.translate)
        # The inverse of: mirror and scale, then shear, then rotate. In pixels, so that a rotated square stays a square.
        across, down = mirror / (scale * aspect), aspect / scale
        cosine, sine = angle.cos(), angle.sin()
        x_from_x, x_from_y = across * (cosine + shear * sine), across * (sine - shear * cosine)
        y_from_x, y_from_y = -down * sine, down * cosine
        x = (torch.arange(width, device=picked.device) + 0.5 - width / 2).view(1, 1, 1, -1)
        y = (torch.arange(height, device=picked.device) + 0.5 - height / 2).view(1, 1, -1, 1)
        grid = torch.empty(count, height, width, 2, device=picked.device)  # in [-1, 1] over the image
        terms = (
            (x_from_x * x * (2 / width) - 2 * shift_x, x_from_y * y * (2 / width)),
            (y_from_x * x * (2 / height) - 2 * shift_y, y_from_y * y * (2 / height)),
        )
        for axis, (from_x, from_y) in enumerate(terms):
            torch.add(from_x[:, 0], from_y[:, 0], out=grid[..., axis])
        return functional.grid_sample(picked.float(), grid, padding_mode="zeros", align_corners=False)


class RadiographErasingConfig(base.RadiographConfig):
    """Options of `radiograph_erasing`."""

    type: str = ProtectedString("radiograph_erasing")
    probability: float = base.number(0.3, 0, 1, "Chance that rectangles of an image are erased.")
    area_min: float = base.number(0.02, 0, 1, "Smallest share of the image that a rectangle takes.")
    area_max: float = base.number(0.1, 0, 1, "Largest share of the image that a rectangle takes.")
    aspect: float = base.number(3.0, 1, 10, "Largest ratio of width to height, or inverse, in shares of the sides.")
    count: int = IntegerRange("Largest number of rectangles.", 2, min=1, max=16)
    fill: str = StringOptions(["mean", "noise"], "mean", description="The image's mean, or noise around it.")


@base.register_augmentation(RadiographErasingConfig)
class RadiographErasing(base.BatchAugmentation[RadiographErasingConfig]):
    """Random erasing (Zhong et al., 2020) with one to `count` rectangles, which may overlap, in each drawn image."""

    def change(self, picked: torch.Tensor, batch: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Draw rectangles and fill them."""
        config, height, width = self.config, picked.shape[2], picked.shape[3]
        y = torch.arange(height, device=picked.device).view(1, 1, -1, 1) + 0.5
        x = torch.arange(width, device=picked.device).view(1, 1, 1, -1) + 0.5
        wanted = torch.randint(1, config.count + 1, (len(picked), 1, 1, 1)).to(picked.device)
        hidden = torch.zeros(len(picked), 1, height, width, dtype=torch.bool, device=picked.device)
        for rectangle in range(config.count):
            area = base.draw_uniform(picked, config.area_min, config.area_max)
            aspect = base.draw_log_uniform(picked, 1 / config.aspect, config.aspect)
            wide, tall = (area * aspect).sqrt().clamp(max=1) * width, (area / aspect).sqrt().clamp(max=1) * height
            left = base.draw_uniform(picked, 0, 1) * (width - wide)
            top = base.draw_uniform(picked, 0, 1) * (height - tall)
            rows = (y >= top) & (y < top + tall) & (wanted > rectangle)
            hidden |= rows & (x >= left) & (x < left + wide)
        images = picked.float()
        fill = images.mean(dim=(2, 3), keepdim=True)
        if config.fill == "noise":
            noise = torch.randn(len(images), 1, height, width, device=images.device)
            fill = fill + noise * images.std(dim=(2, 3), keepdim=True)
        return torch.where(hidden, fill, images)
