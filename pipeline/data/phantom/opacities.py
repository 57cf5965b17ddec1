"""Simulated pneumonia: focal consolidation (bacterial) and diffuse, patchy opacity (viral)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pneumo.pipeline.data.phantom.anatomy import Chest
from pneumo.pipeline.data.phantom.fields import Field, between, bump, chance, lattice, sample, step, stretch

Kind = Literal["bacteria", "virus"]


class _Focus:
    """One consolidation, drawn at random: side, centre and radii in lung coordinates, strength in attenuation."""

    def __init__(self, rng: np.random.Generator) -> None:
        size = between(rng, 0.30, 0.54)
        self.left_of_image = chance(rng, 0.55)
        self.across = between(rng, 0.25, 0.80)
        self.down = between(rng, 0.25, 0.80)
        self.radius_across = size * between(rng, 1.0, 1.7)
        self.radius_down = size * between(rng, 0.7, 1.1)
        self.strength = between(rng, 0.18, 0.36)
        self.lobar = chance(rng, 0.35)
        self.rough = 0.6 * stretch(lattice(rng, 6, 6), 24) + 0.8 * lattice(rng, 24, 24)

    def opacity(self, chest: Chest, u: Field, v: Field) -> Field:
        """Return the attenuation (H, W) that the consolidation adds; its texture is taken at u and v."""
        dx = (chest.across - self.across) / self.radius_across
        dy = (chest.down - self.down) / self.radius_down
        rough = sample(self.rough, u, v)
        cloud = step(0.8 - dx * dx - dy * dy + 0.6 * rough, 0.7) * (0.7 + 0.85 * rough)
        if self.lobar:  # a fissure cuts the cloud off above
            cloud = cloud * step(dy + 0.35 - 0.2 * dx, 0.12)
        side = chest.left_of_image if self.left_of_image else ~chest.left_of_image
        return np.where(side, cloud * self.strength, np.float32(0.0))


@dataclass(frozen=True)
class Findings:
    """The opacities of a patient's lungs; the defaults are a healthy chest."""

    foci: tuple[_Focus, ...] = ()
    haze: float = 0.0
    patches: Field | None = None
    streaks: Field | None = None
    weights: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def sample(cls, kind: Kind, rng: np.random.Generator) -> "Findings":
        """Draw the findings of one patient with pneumonia."""
        if kind == "bacteria":
            return cls(foci=tuple(_Focus(rng) for _ in range(2 if chance(rng, 0.3) else 1)))
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
            total += focus.opacity(chest, u, v)
        if self.patches is not None and self.streaks is not None:
            patches = step(sample(self.patches, u, v) - 0.05, 0.5)
            net = np.maximum(1.0 - np.abs(sample(self.streaks, u, v)) * 4.0, 0.0)
            central = bump((chest.across * chest.across + (chest.down - 0.6) * (chest.down - 0.6)) * 0.45)
            side = np.where(chest.left_of_image, np.float32(self.weights[0]), np.float32(self.weights[1]))
            total += (-0.1 + 1.2 * patches + 0.4 * net) * (0.35 + 0.75 * central) * side * self.haze
        return np.clip(total, 0.0, 0.95 * chest.aeration) * chest.lung
