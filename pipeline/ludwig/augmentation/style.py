"""`radiograph_style`: an image takes over the coarse look of another one of its batch and keeps its own structure."""

import torch
from ludwig.schema import utils as schema_utils

from pneumo.pipeline.ludwig.augmentation.base import (
    BatchAugmentation,
    RadiographConfig,
    number,
    register,
    uniform,
)


class RadiographStyleConfig(RadiographConfig):
    """Options of `radiograph_style`."""

    type: str = schema_utils.ProtectedString("radiograph_style")
    probability: float = number(0.3, 0, 1, "Chance that an image takes over the look of another.")
    strength: float = number(0.5, 0, 1, "Most of the other's amplitude that is taken.")
    band: float = number(0.05, 0, 0.5, "Frequencies from 0 to this share of the image's side are taken.")


@register(RadiographStyleConfig)
class RadiographStyle(BatchAugmentation):
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
        strength = uniform(picked, 0, self.config.strength)
        band = min(int(self.config.band * min(height, width)), (min(height, width) - 1) // 2)
        columns = slice(0, band + 1)
        for rows in (slice(0, band + 1), slice(height - band, height)):
            here = own[:, :, rows, columns]
            before, target = here.abs(), other[:, :, rows, columns].abs()
            own[:, :, rows, columns] = here * (torch.lerp(before, target, strength) / before.clamp_min(1e-6))
        mixed: torch.Tensor = torch.fft.irfft2(own, s=(height, width))
        return mixed
