"""What may happen to the images that come, each kind at graded strengths, mildest first."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.data.phantom import Scanner
from pipeline.evaluation import shifts
from pipeline.evaluation.shifts import Random, Shift
from serving.image import Gray

PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "cell",
    "chelsea",
    "clock",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "page",
    "retina",
    "rocket",
    "text",
)
"""What lies in scikit-image's wheel; it would download its other samples."""


@dataclass(frozen=True)
class Grade:
    """A change of the images that come, at one strength.

    Attributes:
        kind: Such as `blur`.
        label: The strength with its unit, such as `sigma 2 px`.
        change: What happens to an image; None where images stay as they are.
        share: Share of the images that it happens to, in (0, 1].
        strangers: Share of the images that are no radiographs, in [0, 1).
        positive: Share of the radiographs that are of the positive class; None where it stays as it is.
    """

    kind: str
    label: str
    change: Shift | None = None
    share: float = 1.0
    strangers: float = 0.0
    positive: float | None = None

    @property
    def title(self) -> str:
        """Kind and strength."""
        return f"{self.kind}, {self.label}"


def graded() -> tuple[Grade, ...]:
    """Every kind of change at its strengths, in the order in which they are drawn."""
    found: list[Grade] = []

    def add(kind: str, unit: str, function: Callable[[Gray, Random, float], Gray], *strengths: float) -> None:
        for value in strengths:
            label = unit.format(value)
            shift = Shift(kind, label, lambda gray, random, value=value: function(gray, random, value))  # type: ignore[misc]
            found.append(Grade(kind, label, shift))

    add("darker", "{:+g} levels", lambda g, _, s: shifts.brightness(g, s), -5, -10, -20, -40, -70)
    add("brighter", "{:+g} levels", lambda g, _, s: shifts.brightness(g, s), 5, 10, 20, 40, 70)
    add("flatter", "contrast x {:g}", lambda g, _, s: shifts.contrast(g, s), 0.95, 0.9, 0.8, 0.6, 0.4)
    add("gamma, darker", "exponent {:g}", lambda g, _, s: shifts.gamma(g, s), 1.1, 1.2, 1.5, 2, 3)
    add("gamma, lighter", "exponent {:g}", lambda g, _, s: shifts.gamma(g, s), 0.9, 0.8, 0.65, 0.5, 0.35)
    add("blur", "sigma {:g} px", lambda g, _, s: shifts.blur(g, s), 0.3, 0.5, 0.8, 1.5, 3)
    add("noise", "{:g} photons", shifts.quantum_noise, 20_000, 8000, 3000, 1000, 300)
    add("low resolution", "1/{:g}", lambda g, _, s: shifts.coarsen(g, s), 1.2, 1.5, 2, 4, 8)
    add("rotation", "{:g} degrees", shifts.rotate, 2, 5, 10, 20, 40)
    add(
        "cropped borders",
        "{:.0%}",
        lambda g, _, s: shifts.warp(g, scale=(1 / (1 - s), 1 / (1 - s))),
        0.02,
        0.05,
        0.1,
        0.2,
        0.35,
    )
    add("black borders", "{:.0%}", lambda g, _, s: shifts.warp(g, scale=(1 - s, 1 - s)), 0.02, 0.05, 0.1, 0.2, 0.35)
    add("another scanner", "{:.0%}", _scanner, 0.1, 0.25, 0.5, 1, 2)
    inverted = Shift("inverted", "all", lambda gray, _: 255 - gray)
    for share in (0.02, 0.05, 0.1, 0.3, 1.0):
        found.append(Grade("inverted", f"{share:.0%} of images", inverted, share=share))
    for share in (0.01, 0.02, 0.05, 0.1, 0.2):
        found.append(Grade("no radiographs", f"{share:.0%} of images", strangers=share))
    for share in (0.62, 0.7, 0.8, 0.9, 0.97):
        found.append(Grade("more positives", f"{share:.0%} of images", positive=share))
    return tuple(found)


def photographs(size: int, *, seed: int = 0, crops: int = 4) -> list[Gray]:
    """Images that are no radiographs, uint8 [size, size]: scikit-image's photographs whole, and parts of them turned.

    Raises:
        ModuleNotFoundError: scikit-image is not installed.
    """
    import skimage.data
    from PIL import Image

    rng = np.random.default_rng(seed)
    found = []
    for name in PHOTOGRAPHS:
        whole = Image.fromarray(np.asarray(getattr(skimage.data, name)())).convert("L")
        parts = [whole]
        for turn in range(crops):
            width, height = (int(side * rng.uniform(0.4, 1.0)) for side in whole.size)
            left = int(rng.integers(0, whole.width - width + 1))
            top = int(rng.integers(0, whole.height - height + 1))
            parts.append(whole.crop((left, top, left + width, top + height)).rotate(90 * turn, expand=True))
        found += [np.asarray(part.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8) for part in parts]
    return found


def _scanner(gray: Gray, random: Random, strength: float) -> Gray:
    """Another detector and its software, as the phantoms have it: 1 is far from the usual one, 0 is that."""
    scanner = Scanner(
        contrast=1 - 0.15 * strength,
        gamma=1 + 0.25 * strength,
        brightness=8 * strength,
        blur=0.6 * strength,
        noise=3 * strength,
    )
    return scanner.render(gray.astype(np.float32) / np.float32(255), random)
