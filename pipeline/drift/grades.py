"""Changes of images at graded strengths, mildest first."""

from dataclasses import dataclass

import numpy as np

from pneumo.pipeline.data.phantom import Scanner
from pneumo.pipeline.evaluation.stress import pixel_changes as pixels
from pneumo.pipeline.evaluation.stress.pixel_changes import Random
from pneumo.pipeline.evaluation.stress.shifts import Change, Shift
from pneumo.serving.images.types import Gray

PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock", "coffee", "coins", "grass", "gravel",
    "hubble_deep_field", "immunohistochemistry", "moon", "page", "retina", "rocket", "text",
)  # fmt: skip
"""Samples in scikit-image's wheel; it would download its other ones."""


@dataclass(frozen=True)
class Grade:
    """A change of images at one strength.

    Attributes:
        kind: Kind of change, such as `blur`.
        label: Strength with its unit, such as `sigma 2 px`.
        change: Change of an image; None if images stay unchanged.
        share: Share of changed images, in (0, 1].
        photographs: Share of images that are no radiographs, in [0, 1).
        positive: Share of the positive class among radiographs; None if it stays the same.
    """

    kind: str
    label: str
    change: Shift | None = None
    share: float = 1.0
    photographs: float = 0.0
    positive: float | None = None

    @property
    def title(self) -> str:
        """Kind and strength."""
        return f"{self.kind}, {self.label}"


def list_grades() -> tuple[Grade, ...]:
    """List every kind of change at its strengths, in the order in which they are drawn."""
    changes = (Shift(name, unit, function, each) for name, unit, function, many in _KINDS for each in many)
    grades = [Grade(change.name, change.strength, change) for change in changes]
    inverted = Shift("inverted", "all", lambda gray, _, __: 255 - gray, 1)
    grades += [Grade("inverted", _label(share), inverted, share=share) for share in (0.02, 0.05, 0.1, 0.3, 1)]
    grades += [Grade("no radiographs", _label(share), photographs=share) for share in (0.01, 0.02, 0.05, 0.1, 0.2)]
    grades += [Grade("more positives", _label(share), positive=share) for share in (0.6, 0.7, 0.8, 0.9, 0.97)]
    return tuple(grades)


def load_photographs(size: int) -> list[Gray]:
    """Load photographs and four turned parts of each, uint8 [size, size]; without scikit-image ModuleNotFoundError."""
    import skimage.data
    from PIL import Image

    rng = np.random.default_rng(0)
    photographs = []
    for name in PHOTOGRAPHS:
        whole = Image.fromarray(np.asarray(getattr(skimage.data, name)())).convert("L")
        parts = [whole]
        for turn in range(4):
            width, height = (int(side * rng.uniform(0.4, 1.0)) for side in whole.size)
            left = int(rng.integers(0, whole.width - width + 1))
            top = int(rng.integers(0, whole.height - height + 1))
            parts.append(whole.crop((left, top, left + width, top + height)).rotate(90 * turn, expand=True))
        photographs += [
            np.asarray(part.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8) for part in parts
        ]
    return photographs


def _label(share: float) -> str:
    return f"{share:.0%} of images"


def _change_scanner(gray: Gray, random: Random, strength: float) -> Gray:
    """Render with another detector and its software, as for phantoms: 0 is the usual one, 1 is far from it."""
    scanner = Scanner(
        contrast=1 - 0.15 * strength,
        gamma=1 + 0.25 * strength,
        brightness=8 * strength,
        blur=0.6 * strength,
        noise=3 * strength,
    )
    return scanner.render(gray.astype(np.float32) / np.float32(255), random)


def _zoom(gray: Gray, share: float) -> Gray:
    """Cut a share of the side away, half of it at each border; below 0 add black borders instead."""
    scale = 1 / (1 - share) if share > 0 else 1 + share
    return pixels.warp(gray, scale=(scale, scale))


_KINDS: tuple[tuple[str, str, Change, tuple[float, ...]], ...] = (
    ("darker", "{:+g} levels", lambda g, _, s: pixels.brightness(g, s), (-5, -10, -20, -40, -70, -120)),
    ("brighter", "{:+g} levels", lambda g, _, s: pixels.brightness(g, s), (5, 10, 20, 40, 70, 120)),
    ("flatter", "contrast x {:g}", lambda g, _, s: pixels.contrast(g, s), (0.95, 0.9, 0.8, 0.6, 0.4, 0.15)),
    ("gamma, darker", "exponent {:g}", lambda g, _, s: pixels.gamma(g, s), (1.1, 1.2, 1.5, 2, 3, 5)),
    ("gamma, lighter", "exponent {:g}", lambda g, _, s: pixels.gamma(g, s), (0.9, 0.8, 0.65, 0.5, 0.35, 0.2)),
    ("blur", "sigma {:g} px", lambda g, _, s: pixels.blur(g, s), (0.3, 0.5, 0.8, 1.5, 3, 6)),
    ("noise", "{:g} photons", pixels.quantum_noise, (20_000, 8000, 3000, 1000, 300, 60)),
    ("low resolution", "1/{:g}", lambda g, _, s: pixels.coarsen(g, s), (1.2, 1.5, 2, 4, 8, 14)),
    ("rotation", "{:g} degrees", pixels.rotate, (2, 5, 10, 20, 40, 70)),
    ("cropped borders", "{:.0%}", lambda g, _, s: _zoom(g, s), (0.02, 0.05, 0.1, 0.15, 0.2, 0.35)),
    ("black borders", "{:.0%}", lambda g, _, s: _zoom(g, -s), (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)),
    ("another scanner", "{:.0%}", _change_scanner, (0.1, 0.25, 0.5, 1, 2, 4)),
)
"""Kinds of change to the pixels: name, strength in words, function and strengths."""
