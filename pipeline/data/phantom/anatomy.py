"""A simulated patient's chest: outline, lungs, ribs, spine, heart, vessels.

Coordinates: x to the right and y down; before the pose, the image spans [-1, 1] in both. Brightness is attenuation,
about 0 (air) to 1 (bone over soft tissue).
"""

from dataclasses import dataclass

import numpy as np

from pneumo.pipeline.data.phantom.fields import Field, between, bump, chance, ease, lattice, sample, step, stretch
from pneumo.serving.contracts.arrays import Mask


@dataclass(frozen=True)
class Chest:
    """A painted chest.

    Attributes:
        attenuation: Brightness without findings (H, W).
        lung: Share of a pixel that is aerated lung, in [0, 1] (H, W).
        across: 0 at the medial border to 1 at the lateral border, both lungs (H, W).
        down: 0 at the apex to 1 at the dome of the diaphragm (H, W).
        left_of_image: True where x < 0, the patient's right lung (H, W).
        aeration: Attenuation that air takes from the lung: no opacity adds more.
    """

    attenuation: Field
    lung: Field
    across: Field
    down: Field
    left_of_image: Mask
    aeration: float


class Anatomy:
    """One patient's build, drawn at random; lengths in half image widths, strengths in attenuation."""

    def __init__(self, rng: np.random.Generator) -> None:
        width = between(rng, 0.56, 0.78)
        base = between(rng, 0.32, 0.60)
        self.lung_width = (width, width * between(rng, 0.95, 1.03))
        self.apex = between(rng, -0.76, -0.64)
        self.base = (base, base + between(rng, 0.01, 0.07))
        self.dome = between(rng, 0.14, 0.26)
        self.torso = width + between(rng, 0.09, 0.20)
        self.shoulder = between(rng, -1.02, -0.86)
        self.thickness = between(rng, 0.36, 0.52)
        self.aeration = between(rng, 0.20, 0.46)
        self.heart = (
            between(rng, 0.10, 0.17),
            between(rng, -0.21, -0.13),
            between(rng, 0.30, 0.40),
            between(rng, 0.26, 0.34),
        )
        self.mediastinum = between(rng, 0.11, 0.17)
        self.spine_bend = between(rng, -0.04, 0.04)
        self.spine_strength = between(rng, 0.03, 0.11)
        self.rib_spacing = between(rng, 0.140, 0.175)
        self.rib_phase = between(rng, 0.0, 1.0)
        self.rib_slope = between(rng, 0.12, 0.34)
        self.rib_strength = between(rng, 0.02, 0.065)
        self.rib_jitter = lattice(rng, 2, 24)
        self.clavicle = (between(rng, -0.66, -0.56), between(rng, 0.16, 0.42), between(rng, 0.05, 0.11))
        self.arms = between(rng, 0.0, 0.16) if chance(rng, 0.6) else 0.0
        self.breast = (between(rng, 0.05, 0.35), between(rng, 0.20, 0.36), max(0.0, between(rng, -0.07, 0.07)))
        self.stomach = between(rng, 0.08, 0.22) if chance(rng, 0.5) else 0.0
        self.vessels = lattice(rng, 9, 44)
        self.vessel_strength = between(rng, 0.03, 0.09)
        self.texture = stretch(lattice(rng, 6, 6), 28) + 0.5 * lattice(rng, 28, 28)
        self.texture_strength = between(rng, 0.01, 0.035)

    def paint(self, x: Field, y: Field, *, inspiration: float, turn: float) -> Chest:
        """Paint the chest.

        Args:
            x: Horizontal place of each pixel in the patient (H, W).
            y: Vertical place of each pixel (H, W).
            inspiration: Distance that the diaphragm moves down from the patient's own level.
            turn: Turn of the patient about the long axis: shifts the heart, the sternum and the clavicles.
        """
        x = x + self.spine_bend * (1.0 - y * y)
        left = x < 0.0
        ax = np.abs(x)
        right_base, left_base = self.base[0] + inspiration, self.base[1] + inspiration
        base = np.where(left, np.float32(right_base), np.float32(left_base))
        width = np.where(left, np.float32(self.lung_width[0] - turn), np.float32(self.lung_width[1] + turn))

        down = (y - self.apex) / (base - self.apex)
        arch = 1.0 - np.clip(down * 1.35, 0.0, 1.0)
        arch *= arch
        medial = self.mediastinum + 0.09 * arch
        lateral = 0.24 + (width - 0.24) * np.sqrt(1.0 - arch) - 0.06 * np.maximum(down - 0.8, 0.0)
        across = (ax - medial) / np.maximum(lateral - medial, 0.05)
        off = np.maximum(across, 0.0) - 0.45
        floor = base + self.dome * (off * off) * 2.4
        sides = step(lateral - ax, 0.022) * step(ax - medial, 0.035)
        lung = sides * step(floor - y, 0.02) * step(y - self.apex, 0.03)

        heart = self._heart(x, y, turn, inspiration)
        lung *= 1.0 - 0.92 * heart
        body, thick = self._body(ax, y)
        value = body * (self.thickness + 0.16 * thick)
        abdomen = step(y - floor, 0.06)
        value += body * (0.10 * abdomen + 0.06 * heart * (1.0 - abdomen))
        value -= lung * self.aeration
        value += self._spine(x, ax, y) * body
        value += self._ribs(ax, y, left, width, across, lung) * body
        value += self._clavicles(x, ax, y, turn) * body
        value += self._soft(x, ax, y, floor) * body
        value += self._vessels(ax, y, left, down) * lung
        return Chest(value, lung, across, down, left, self.aeration)

    def _body(self, ax: Field, y: Field) -> tuple[Field, Field]:
        """Return the mask of the body (H, W) and its relative thickness (H, W)."""
        shoulders = ease(np.clip((y - (self.shoulder - 0.12)) * 3.2, 0.0, 1.0))
        arms = ease(np.clip((y + 0.45 - self.arms * 4.0) * 3.0, 0.0, 1.0))
        outline = 0.24 + 0.92 * shoulders - (1.16 - self.torso) * arms
        relative = ax / outline
        return step(outline - ax, 0.02), np.sqrt(np.clip(1.0 - 0.85 * relative * relative, 0.0, 1.0))

    def _heart(self, x: Field, y: Field, turn: float, inspiration: float) -> Field:
        """Return the mask of heart, great vessels and aortic knob (H, W)."""
        cx, rise, rx, ry = self.heart
        dx, dy = x - (cx + 2.0 * turn), y - (self.base[0] + inspiration + rise + 0.06)
        tilt_x, tilt_y = dx - 0.30 * dy, dy - 0.15 * dx
        heart = step(1.0 - (tilt_x * tilt_x) / (rx * rx) - (tilt_y * tilt_y) / (ry * ry), 0.14)
        root = self.mediastinum + 0.02 + 0.16 * step(y - (self.apex + 0.62), 0.30)
        waist = step(root - np.abs(x - 0.05 - turn), 0.05) * step(0.1 - dy, 0.1)
        heart = np.maximum(heart, waist)
        kx, ky = x - (0.14 + turn), y - (self.apex + 0.40)
        knob = step(1.0 - (kx * kx + 0.5 * ky * ky) * 190.0, 0.7) * 0.7
        hx, hy = np.abs(x - turn) - 0.19, y - (self.apex + 0.58)
        hila = bump((hx * hx * 1.6 + hy * hy * 0.6) * 70.0) * 0.45
        mask: Field = np.maximum(np.maximum(heart, knob), hila)
        return mask

    def _spine(self, x: Field, ax: Field, y: Field) -> Field:
        """Return vertebrae (bright) and trachea (dark)."""
        p = (y + 1.2) * 7.0
        tooth = np.abs(p - np.floor(p) - 0.5)
        disc = 1.0 - 0.35 * step(tooth - 0.40, 0.06)
        column = step(0.085 - ax, 0.02) * disc * self.spine_strength
        wide = bump(ax * ax * 16.0) * 0.06
        trachea = step(0.042 - np.abs(x + 0.01), 0.018) * step(self.apex + 0.42 - y, 0.06)
        return column + wide - 0.09 * trachea

    def _ribs(self, ax: Field, y: Field, left: Mask, width: Field, across: Field, lung: Field) -> Field:
        """Return the posterior and the anterior ribs, brighter at their edges."""
        s = ax / width
        s2 = s * s
        cage = step(1.07 - across, 0.05) * step(ax - 0.07, 0.03)
        total = np.zeros_like(ax)
        posterior = (y + 0.16 * s - self.rib_slope * (0.5 * s2 + s2 * s2), 0.30, 1.0, cage)
        front = cage * step(across - 0.42, 0.14)
        anterior = (y + (0.35 + self.rib_slope) * (0.9 * s - 0.2 * s2) + 0.05, 0.34, 0.5, front)
        for height, half, strength, where in (posterior, anterior):
            p = (height + 1.1) * (1.0 / self.rib_spacing) + self.rib_phase
            whole = np.floor(p)
            number = np.clip(whole, 0, 11).astype(np.int32) + np.where(left, np.int32(0), np.int32(12))
            jitter = self.rib_jitter[0][number]
            d = np.abs(p - whole - (0.5 + 0.09 * jitter)) / half
            d2 = d * d
            body = np.clip(1.0 - d2 * d2, 0.0, 1.0)
            rim = bump((d - 0.85) * (d - 0.85) * 22.0)
            total += (body + 0.45 * rim) * where * (strength * (1.0 + 0.25 * self.rib_jitter[1][number]))
        fade = step(0.75 - y, 0.22) * step(y - (self.apex - 0.03), 0.05)
        return total * fade * (0.3 + 0.7 * lung) * self.rib_strength

    def _clavicles(self, x: Field, ax: Field, y: Field, turn: float) -> Field:
        """Return the two collar bones."""
        level, slope, strength = self.clavicle
        reach = np.abs(x + turn) - 0.09
        curve = level - slope * reach + 0.35 * reach * reach * (reach - 0.45)
        d = (y - curve) / (0.030 + 0.012 * reach)
        d2 = d * d
        bone = np.clip(1.0 - d2 * d2, 0.0, 1.0) + 0.3 * bump((np.abs(d) - 0.9) * (np.abs(d) - 0.9) * 20.0)
        return bone * step(reach, 0.03) * step(0.80 - ax, 0.06) * strength

    def _soft(self, x: Field, ax: Field, y: Field, floor: Field) -> Field:
        """Return breast shadows, a stomach bubble and the uneven thickness of muscle and fat."""
        low, radius, strength = self.breast
        bx, by = (ax - 0.42) / radius, (y - low) / radius
        soft = step(1.0 - bx * bx - by * by, 0.35) * strength
        gx, gy = (x - 0.36) * 5.0, (y - (self.base[1] + 0.24)) * 7.0
        soft -= step(1.0 - gx * gx - gy * gy, 0.35) * step(y - floor, 0.02) * self.stomach
        return soft + sample(self.texture, x * 0.5 + 0.5, y * 0.5 + 0.5) * self.texture_strength

    def _vessels(self, ax: Field, y: Field, left: Mask, down: Field) -> Field:
        """Return vessels that run out from the hila: ridges of a noise in (direction, distance)."""
        dx, dy = ax - 0.13, y - (self.apex + 0.60)
        far = np.abs(dx) + np.abs(dy) + 0.02
        turn = dy / far * 0.25 + 0.25  # a stand-in for the angle, without an arc tangent
        distance = np.sqrt(dx * dx + dy * dy)
        u = np.where(left, turn, turn + 0.5)
        noise = sample(self.vessels, u, distance * 1.1)
        ridge = np.maximum(1.0 - np.abs(noise) * (1.0 + 9.0 * distance), 0.0)
        fade = np.maximum(1.0 - distance * 1.25, 0.0)
        vessels: Field = ridge * fade * np.clip(down * 3.0, 0.0, 1.0) * self.vessel_strength
        return vessels
