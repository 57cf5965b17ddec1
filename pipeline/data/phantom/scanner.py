"""Exposure and scanner of a radiograph: pose, dose, collimation, marker, detector."""

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.phantom.fields import Field, between, blur, chance, grain, lattice, step, stretch
from pneumo.serving.contracts.errors import InputError

_GLYPHS = {
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
}
_BOUNDS = {
    "contrast": (0.05, 5.0),
    "gamma": (0.2, 5.0),
    "brightness": (-255.0, 255.0),
    "blur": (0.0, 20.0),
    "noise": (0.0, 128.0),
}


@dataclass(frozen=True)
class Scanner:
    """A simulated detector; the defaults leave the picture unchanged.

    Attributes:
        contrast: Factor on the distance from mid-gray, 0.05 to 5.
        gamma: Exponent on brightness in [0, 1], 0.2 to 5; above 1 darkens.
        brightness: Offset in gray levels of 255, -255 to 255.
        blur: Standard deviation in pixels at a size of 224 (it scales with the size), 0 to 20.
        noise: Standard deviation in gray levels of 255, 0 to 128.

    Raises:
        InputError: A value is not a number or outside its range.
    """

    contrast: float = 1.0
    gamma: float = 1.0
    brightness: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), _BOUNDS[field.name]
            if not low <= value <= high:  # also refuses nan
                raise InputError(f"scanner: {field.name} is {value}; choose a number from {low:g} to {high:g}")

    def render(self, image: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Turn brightness in about [0, 1] (H, H) into gray levels (H, H); draws from rng only for noise."""
        image = np.clip(blur(image, self.blur * image.shape[0] / 224), 0.0, 1.0)
        if self.gamma != 1.0:
            # The one power: a table rounded to 1e-6, so that a last-bit difference between libraries is lost.
            table = [round(math.pow(i / 4095, self.gamma), 6) for i in range(4096)]
            image = np.array(table, dtype=np.float32)[(image * 4095.0 + 0.5).astype(np.int32)]
        levels = (image - 0.5) * (255.0 * self.contrast) + (127.5 + self.brightness)
        if self.noise > 0.0:
            levels += grain(rng, image.shape[0]) * np.float32(self.noise)
        rendered: NDArray[np.uint8] = np.clip(levels + 0.5, 0.0, 255.0).astype(np.uint8)
        return rendered


class Exposure:
    """One shot of a patient, drawn at random: pose, dose, collimation and marker; lengths in half image widths."""

    def __init__(self, rng: np.random.Generator) -> None:
        marker = "L" if chance(rng, 0.4) else "R"
        self.tilt = between(rng, -0.05, 0.05)
        self.scale = between(rng, 0.98, 1.24)
        self.shift = (between(rng, -0.07, 0.07), between(rng, -0.08, 0.08))
        self.inspiration = between(rng, -0.08, 0.06)
        self.turn = between(rng, -0.025, 0.025)
        self.gain = between(rng, 0.80, 1.25)
        self.offset = between(rng, -0.08, 0.13)
        self.curve = between(rng, -0.40, 0.40)
        self.scatter = lattice(rng, 4, 4)
        self.scatter_strength = between(rng, 0.02, 0.07)
        self.grain = between(rng, 0.006, 0.015)
        self.severity = between(rng, 0.8, 1.15)
        self.border = _draw_border(rng) if chance(rng, 0.3) else None
        self.border_level = between(rng, 0.0, 0.06)
        self.marker = marker if chance(rng, 0.55) else None
        self.marker_place = (between(rng, 0.70, 0.84), between(rng, -0.90, -0.55))
        self.marker_scale = between(rng, 0.012, 0.020)

    def place(self, size: int) -> tuple[Field, Field]:
        """Return the place in the patient of each pixel: x and y (size, size)."""
        axis = ((np.arange(size) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
        px, py = axis[None, :] - self.shift[0], axis[:, None] - self.shift[1]
        norm = 1.0 + self.tilt * self.tilt  # tilt is the tangent of half the angle: rotation without sine and cosine
        cosine = (1.0 - self.tilt * self.tilt) / norm / self.scale
        sine = 2.0 * self.tilt / norm / self.scale
        return px * cosine + py * sine, py * cosine - px * sine

    def develop(self, attenuation: Field, rng: np.random.Generator) -> Field:
        """Turn attenuation (H, H) into the brightness of the picture, about [0, 1] (H, H)."""
        size = attenuation.shape[0]
        axis = ((np.arange(size) + 0.5) * (1.0 / size)).astype(np.float32)
        u, v = axis[None, :], axis[:, None]
        image = attenuation + stretch(self.scatter, size) * self.scatter_strength
        image = np.clip(image * self.gain + self.offset, 0.0, 1.0)
        image += image * (1.0 - image) * self.curve
        image = blur(image, 0.6 * size / 224)
        image += grain(rng, size) * np.float32(self.grain)
        if self.border is not None:
            left, top, right, bottom = self.border
            inside = step(u - left, 0.003) * step(right - u, 0.003) * (step(v - top, 0.003) * step(bottom - v, 0.003))
            image = image * inside + self.border_level * (1.0 - inside)
        if self.marker is not None:
            self._stamp(image)
        return image

    def _stamp(self, image: Field) -> None:
        """Write the side marker, in place: the patient's left is on the right of the image."""
        size = image.shape[0]
        cell = max(1, int(self.marker_scale * size * 0.5 + 0.5))
        glyph = np.array([[float(bit) for bit in row] for row in _GLYPHS[self.marker or "L"]], dtype=np.float32)
        stamp = np.repeat(np.repeat(glyph, cell, axis=0), cell, axis=1)
        x = self.marker_place[0] if self.marker == "L" else -self.marker_place[0]
        row = int((self.marker_place[1] * 0.5 + 0.5) * size)
        column = min(max(0, int((x * 0.5 + 0.5) * size) - stamp.shape[1] // 2), size - stamp.shape[1])
        window = image[row : row + stamp.shape[0], column : column + stamp.shape[1]]
        np.maximum(window, stamp[: window.shape[0]] * np.float32(0.96), out=window)


def _draw_border(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Return a collimated window in [0, 1]: left, top, right, bottom."""
    left, top, right, bottom = (between(rng, -0.03, 0.06) for _ in range(4))
    return left, top, 1.0 - right, 1.0 - bottom
