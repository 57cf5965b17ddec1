"""The changes of a stress test in families: what other hospitals do to radiographs, and what each may be used for."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from pneumo.pipeline.evaluation.stress import pixel_changes as pixels
from pneumo.pipeline.evaluation.stress.pixel_changes import Random
from pneumo.serving.images.types import Gray

Change = Callable[[Gray, Random, float], Gray]
"""Changes an image by a strength."""


class Family(StrEnum):
    """The cause of a change; class-linked: one class comes from elsewhere, mixed: several causes in each image."""

    EXPOSURE = "exposure"
    DETECTOR = "detector"
    GEOMETRY = "geometry"
    SOFTWARE = "software"
    CLASS_LINKED = "class-linked"
    MIXED = "mixed"


class Use(StrEnum):
    """What a change may be used for: to choose a model or an epoch, also to fit decisions, or only to report.

    Nothing is fitted, selected, stopped or augmented on a change that is only for the report.
    """

    SELECTION = "selection"
    FITTING = "fitting"
    REPORT = "report"


@dataclass(frozen=True)
class Shift:
    """One kind of change, such as `blur`, at one strength.

    Attributes:
        unit: The strength in words, with the number left out: `sigma {:g} px`.
        family: Its cause; None for changes that are not of a stress test.
        function_of_positives: Change of images of the positive class, if it differs.
    """

    name: str
    unit: str
    function: Change
    value: float
    family: Family | None = None
    use: Use = Use.REPORT
    function_of_positives: Change | None = None

    @property
    def strength(self) -> str:
        """Strength with its unit, such as `sigma 2 px`."""
        return self.unit.format(self.value)

    @property
    def title(self) -> str:
        """Kind and strength, such as `blur, sigma 2 px`."""
        return f"{self.name}, {self.strength}"

    def apply(self, gray: Gray, key: str, *, positive: bool = False) -> Gray:
        """Change an image, uint8 [H, W], of the positive class or not; the shift and the key decide random parts."""
        function = self.function_of_positives if positive and self.function_of_positives else self.function
        return function(gray, np.random.default_rng(zlib.crc32(f"{self.title}\n{key}".encode())), self.value)


def list_shifts(use: Use | None = None, *, binary: bool = True) -> tuple[Shift, ...]:
    """Return the changes of a stress test, each kind at two strengths, or those that may be used so.

    Those for selection are among those for fitting. Without `binary` there are none that differ by class.
    """
    wanted = tuple(Use) if use is None else (Use.SELECTION, Use.FITTING) if use is Use.FITTING else (use,)
    shifts = [
        Shift(name, unit, function, value, family, part)
        for family, part, name, unit, values, function in _KINDS
        for value in values
    ]
    shifts += [
        Shift(name, "strength {:g}", function, value, Family.CLASS_LINKED, part, other)
        for part, name, function, other in (_BY_CLASS if binary else ())
        for value in (1, 2)
    ]
    return tuple(shift for shift in shifts if shift.use in wanted)


def _like(name: str) -> Change:
    """Return the change of a kind at its first or second strength, given as 1 or 2; none without a name."""

    def change(gray: Gray, random: Random, strength: float) -> Gray:
        shift = [each for each in list_shifts(binary=False) if each.name == name][int(strength) - 1]
        return shift.function(gray, random, shift.value)

    return change if name else lambda gray, *_: gray


def _mix(gray: Gray, random: Random, strength: float) -> Gray:
    """Apply one change for the report of each family but those by class, drawn for the image, at strength 1 or 2."""
    for family in (Family.EXPOSURE, Family.DETECTOR, Family.GEOMETRY, Family.SOFTWARE):
        names = [each.name for each in list_shifts(Use.REPORT) if each.family is family]
        gray = _like(names[random.integers(len(names))])(gray, random, strength)
    return gray


_EXPOSURE, _DETECTOR, _GEOMETRY = Family.EXPOSURE, Family.DETECTOR, Family.GEOMETRY
_SOFTWARE, _MIXED, _SELECTION, _FITTING, _REPORT = Family.SOFTWARE, Family.MIXED, Use.SELECTION, Use.FITTING, Use.REPORT
_KINDS: tuple[tuple[Family, Use, str, str, tuple[float, float], Change], ...] = (
    (_EXPOSURE, _SELECTION, "contrast down", "factor {:g}", (0.7, 0.45), lambda g, _, s: pixels.contrast(g, s)),
    (_EXPOSURE, _FITTING, "gamma, darker", "exponent {:g}", (1.5, 2.2), lambda g, _, s: pixels.gamma(g, s)),
    (_EXPOSURE, _FITTING, "gamma, lighter", "exponent {:g}", (0.67, 0.45), lambda g, _, s: pixels.gamma(g, s)),
    (_EXPOSURE, _FITTING, "brightness up", "{:+g} levels", (30, 60), lambda g, _, s: pixels.brightness(g, s)),
    (_EXPOSURE, _FITTING, "brightness down", "{:+g} levels", (-30, -60), lambda g, _, s: pixels.brightness(g, s)),
    (_EXPOSURE, _REPORT, "scattered radiation", "{:.0%}", (0.3, 0.7), lambda g, _, s: pixels.scatter(g, s)),
    (_DETECTOR, _SELECTION, "blur", "sigma {:g} px", (1.0, 2.0), lambda g, _, s: pixels.blur(g, s)),
    (_DETECTOR, _FITTING, "low resolution", "1/{:g}", (2, 4), lambda g, _, s: pixels.coarsen(g, s)),
    (_DETECTOR, _FITTING, "quantum noise", "{:g} photons", (2000, 400), pixels.quantum_noise),
    (_DETECTOR, _REPORT, "uneven readout", "{:g} levels", (2, 5), pixels.add_lines),
    (_GEOMETRY, _SELECTION, "taller", "factor {:g}", (1.15, 1.3), lambda g, _, s: pixels.warp(g, scale=(1.0, s))),
    (_GEOMETRY, _FITTING, "zoom in", "factor {:g}", (1.1, 1.25), lambda g, _, s: pixels.warp(g, scale=(s, s))),
    (_GEOMETRY, _FITTING, "zoom out", "factor {:g}", (0.9, 0.75), lambda g, _, s: pixels.warp(g, scale=(s, s))),
    (_GEOMETRY, _FITTING, "wider", "factor {:g}", (1.15, 1.3), lambda g, _, s: pixels.warp(g, scale=(s, 1.0))),
    (_GEOMETRY, _FITTING, "rotation", "{:g} degrees", (5, 12), pixels.rotate),
    (_GEOMETRY, _FITTING, "translation", "{:.0%}", (0.05, 0.12), pixels.translate),
    (_GEOMETRY, _FITTING, "wide film, cut", "{:.0%}", (0.1, 0.2), pixels.cut_film),
    (_GEOMETRY, _REPORT, "collimation", "{:.0%}", (0.06, 0.12), pixels.collimate),
    (_GEOMETRY, _REPORT, "lead marker", "{:.0%}", (0.05, 0.1), pixels.add_marker),
    (_GEOMETRY, _REPORT, "older child", "heart {:.0%} narrower", (0.15, 0.3), lambda g, _, s: pixels.grow_chest(g, s)),
    (_SOFTWARE, _SELECTION, "histogram equalisation", "{:.0%}", (0.5, 1.0), lambda g, _, s: pixels.equalise(g, s)),
    (_SOFTWARE, _FITTING, "tone curve, S", "slope {:g}", (1.6, 2.5), lambda g, _, s: pixels.tone(g, s)),
    (_SOFTWARE, _FITTING, "tone curve, inverse S", "slope {:g}", (0.65, 0.4), lambda g, _, s: pixels.tone(g, s)),
    (_SOFTWARE, _FITTING, "sharpening", "amount {:g}", (1.0, 3.0), lambda g, _, s: pixels.sharpen(g, s)),
    (_SOFTWARE, _FITTING, "edge enhancement", "amount {:g}", (0.7, 1.5), lambda g, _, s: pixels.sharpen(g, s, 8.0)),
    (_SOFTWARE, _REPORT, "multi-scale contrast", "power {:g}", (0.85, 0.7), lambda g, _, s: pixels.enhance(g, s)),
    (_SOFTWARE, _REPORT, "JPEG", "quality {:g}", (30, 10), lambda g, _, s: pixels.recompress(g, s)),
    (_MIXED, _REPORT, "another department", "strength {:g}", (1, 2), _mix),
)
"""Name, unit, strengths and function of each kind. No augmentation of pneumo imitates those for the report."""

_BY_CLASS: tuple[tuple[Use, str, Change, Change], ...] = (
    (_SELECTION, "negatives taller, positives wider", _like("taller"), _like("wider")),
    (_FITTING, "negatives taller", _like("taller"), _like("")),
    (_FITTING, "negatives blurred, positives sharpened", _like("blur"), _like("sharpening")),
    (_REPORT, "positives with scattered radiation", _like(""), _like("scattered radiation")),
    (_REPORT, "negatives with multi-scale contrast", _like("multi-scale contrast"), _like("")),
)
"""The same of each kind that differs by class: changes of negatives and of positives."""
