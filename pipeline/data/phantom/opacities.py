"""Simulated pneumonia: focal consolidation (bacterial) and diffuse, patchy opacity (viral)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pneumo.pipeline.data.phantom.anatomy import Chest
from pneumo.pipeline.data.phantom.fields import (
    Field,
    between,
    bump,
    chance,
    lattice,
    sample,
    step,
    stretch,
)

Kind = Literal["bacteria", "virus"]


@dataclass(frozen=True)
class Focus:
    """One consolidation: side, centre and radii in lung coordinates (across, down), strength in attenuation."""

    left_of_image: bool
    across: float
    down: float
    radius_across: float
    radius_down: float
    strength: float
    lobar: bool
    rough: Field


@dataclass(frozen=True)
class Findings:
    """What a patient's lungs show beyond a healthy chest; nothing where all is empty."""

    foci: tuple[Focus, ...] = ()
    haze: float = 0.0
    patches: Field | None = None
    streaks: Field | None = None
    weights: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def sample(cls, kind: Kind, rng: np.random.Generator) -> "Findings":
        """Draw the findings of one patient with pneumonia."""
        if kind == "bacteria":
            return cls(foci=tuple(_focus(rng) for _ in range(2 if chance(rng, 0.3) else 1)))
        return cls(
            haze=between(rng, 0.14, 0.28),
            patches=lattice(rng, 22, 22),
            streaks=lattice(rng, 30, 30),
            weights=(between(rng, 0.6, 1.0), between(rng, 0.6, 1.0)),
        )

    def opacity(self, chest: Chest, x: Field, y: Field) -> Field:
        """Return the attenuation (H, W) that the findings add to a chest painted at the places x and y."""
        # Textures lie across the axes, so that the cells of their lattices do not show.
        u, v = (0.8 * x + 0.6 * y) * 0.48 + 0.5, (0.8 * y - 0.6 * x) * 0.48 + 0.5
        total = np.zeros_like(x)
        for focus in self.foci:
            total += _consolidation(focus, chest, u, v)
        if self.patches is not None and self.streaks is not None:
            patches = step(sample(self.patches, u, v) - 0.05, 0.5)
            net = np.maximum(1.0 - np.abs(sample(self.streaks, u, v)) * 4.0, 0.0)
            central = bump((chest.across * chest.across + (chest.down - 0.6) * (chest.down - 0.6)) * 0.45)
            side = np.where(chest.left_of_image, np.float32(self.weights[0]), np.float32(self.weights[1]))
            total += (-0.1 + 1.2 * patches + 0.4 * net) * (0.35 + 0.75 * central) * side * self.haze
        return np.clip(total, 0.0, 0.95 * chest.aeration) * chest.lung


def _focus(rng: np.random.Generator) -> Focus:
    size = between(rng, 0.30, 0.54)
    return Focus(
        left_of_image=chance(rng, 0.55),
        across=between(rng, 0.25, 0.80),
        down=between(rng, 0.25, 0.80),
        radius_across=size * between(rng, 1.0, 1.7),
        radius_down=size * between(rng, 0.7, 1.1),
        strength=between(rng, 0.18, 0.36),
        lobar=chance(rng, 0.35),
        rough=0.6 * stretch(lattice(rng, 6, 6), 24) + 0.8 * lattice(rng, 24, 24),
    )


def _consolidation(focus: Focus, chest: Chest, u: Field, v: Field) -> Field:
    dx = (chest.across - focus.across) / focus.radius_across
    dy = (chest.down - focus.down) / focus.radius_down
    rough = sample(focus.rough, u, v)
    cloud = step(0.8 - dx * dx - dy * dy + 0.6 * rough, 0.7) * (0.7 + 0.85 * rough)
    if focus.lobar:  # a fissure cuts the cloud off above
        cloud = cloud * step(dy + 0.35 - 0.2 * dx, 0.12)
    side = chest.left_of_image if focus.left_of_image else ~chest.left_of_image
    return np.where(side, cloud * focus.strength, np.float32(0.0))
