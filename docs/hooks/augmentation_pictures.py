"""Draw `docs/reference/augmentations/`: each augmentation on a phantom, a tile per end of an option.

`python docs/hooks/augmentation_pictures.py` loads Ludwig; the site takes the pictures as they are committed.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from pneumo.pipeline.data import phantom
from pneumo.pipeline.ludwig import runtime

FOLDER = Path(__file__).parents[1] / "reference" / "augmentations"
SIDE, CAPTION, DRAWS = 112, 14, 48
NEUTRAL: dict[str, dict[str, Any]] = {
    "radiograph_affine": {"rotation": 0, "scale_min": 1, "scale_max": 1, "aspect": 1, "translate": 0},
    "radiograph_intensity": {
        **dict.fromkeys(("gamma_min", "gamma_max", "contrast_min", "contrast_max"), 1),
        **dict.fromkeys(("brightness_min", "brightness_max", "curve"), 0),
    },
    "radiograph_noise": {"gaussian": 0, "poisson": 0, "bias": 0},
    "radiograph_sharpness": {"blur": 0, "downsample": 0, "unsharp": 0},
}
"""Options with which an augmentation changes nothing."""
TILES: dict[str, list[dict[str, Any]]] = {
    "radiograph_affine": [
        *({"rotation": 7}, {"scale_min": 0.9, "scale_max": 0.9}, {"scale_max": 1.1, "scale_min": 1.1}),
        *({"aspect": 1.1}, {"translate": 0.05}, {"shear": 10}, {"flip": 1}),
    ],
    "radiograph_erasing": [{"area_min": 0.02, "area_max": 0.02}, {"area_max": 0.1, "area_min": 0.1}, {"fill": "noise"}],
    "radiograph_intensity": [
        *({"gamma_min": 0.8, "gamma_max": 0.8}, {"gamma_max": 1.25, "gamma_min": 1.25}),
        *({"contrast_min": 0.8, "contrast_max": 0.8}, {"contrast_max": 1.25, "contrast_min": 1.25}),
        *({"brightness_min": -0.1, "brightness_max": -0.1}, {"brightness_max": 0.1, "brightness_min": 0.1}),
        *({"curve": 0.2}, {"invert": 1}),
    ],
    "radiograph_noise": [{"gaussian": 0.02}, {"poisson": 0.02}, {"bias": 0.1}],
    "radiograph_sharpness": [
        *({"sigma_min": 0.3, "sigma_max": 0.3, "blur": 1}, {"sigma_max": 1.2, "sigma_min": 1.2, "blur": 1}),
        *({"resolution": 0.5, "downsample": 1}, {"amount": 1.0, "unsharp": 1}),
    ],
    "radiograph_style": [{"strength": 0.5, "band": 0.05}],
    "auto_augmentation": [{"method": name} for name in ("trivial_augment", "auto_augment", "rand_augment")],
    "random_horizontal_flip": [{}],
    "random_vertical_flip": [{}],
    "random_rotate": [{"degree": 15}],
    "random_blur": [{"kernel_size": 3}, {"kernel_size": 9}],
    "random_brightness": [{"min": 0.5, "max": 0.5}, {"max": 2.0, "min": 2.0}],
    "random_contrast": [{"min": 0.5, "max": 0.5}, {"max": 2.0, "min": 2.0}],
}
"""Options of each tile; the first one is its caption."""


def draw_pictures() -> Iterator[tuple[str, Image.Image]]:
    """Draw a picture per augmentation: the original, then for each tile that of some draws that changes it most."""
    runtime.load_ludwig()
    from ludwig.constants import IMAGE
    from ludwig.schema.features.augmentation.utils import get_augmentation_cls
    from ludwig.utils.augmentation_utils import get_augmentation_op

    images = _draw_phantoms()
    for kind, tiles in TILES.items():
        shown = [("original", images[0])]
        for options in tiles:
            chance = {"probability": 1} if kind.startswith("radiograph") else {}
            stated = NEUTRAL.get(kind, {}) | options | chance
            config = get_augmentation_cls(IMAGE, kind).model_validate({"type": kind, **stated})
            operation = get_augmentation_op(IMAGE, kind)(config)
            torch.manual_seed(0)
            draws = [operation(images)[0].float() for _ in range(DRAWS)]
            strongest = max(draws, key=lambda drawn: float((drawn - images[0].float()).abs().mean()))
            caption = next((f"{name} {value}" for name, value in options.items()), "changed")
            shown.append((caption, strongest))
        yield kind, _join(shown)


def _draw_phantoms() -> torch.Tensor:
    """Return two phantoms, uint8 [2, 3, SIDE, SIDE]."""
    with tempfile.TemporaryDirectory() as folder:
        phantom.write_phantoms(Path(folder) / "raw", phantom.Recipe(images=8, seed=3, size=128))
        paths = sorted(Path(folder).rglob("*.png"))
        drawn = [np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE))) for path in (paths[0], paths[-1])]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()


def _join(tiles: list[tuple[str, torch.Tensor]]) -> Image.Image:
    picture = Image.new("L", (len(tiles) * (SIDE + 4) - 4, SIDE + CAPTION), 255)
    for number, (caption, pixels) in enumerate(tiles):
        left = number * (SIDE + 4)
        tile = pixels.float().mean(dim=0).round().clamp(0, 255).to(torch.uint8).numpy()
        picture.paste(Image.fromarray(tile), (left, CAPTION))
        ImageDraw.Draw(picture).text((left + 1, 0), caption, fill=0, font_size=10)
    return picture


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for kind, picture in draw_pictures():
        picture.save(FOLDER / f"{kind}.webp", quality=60, method=6)
