"""Draw one radiograph of a patient."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.phantom.anatomy import Anatomy
from pneumo.pipeline.data.phantom.fields import chance
from pneumo.pipeline.data.phantom.opacities import Findings, Kind
from pneumo.pipeline.data.phantom.scanner import Exposure, Scanner
from pneumo.serving.contracts.errors import InputError

LABELS = ("NORMAL", "PNEUMONIA")
_BACTERIA_SHARE = 0.65  # of the pneumonia images of Kermany's training set (2538 of 3883)
_SMALLEST, _LARGEST = 32, 4096


@dataclass(frozen=True)
class Patient:
    """A chest with its findings, shared by all images of one person."""

    anatomy: Anatomy
    findings: Findings

    @classmethod
    def sample(cls, kind: Kind | None, rng: np.random.Generator) -> "Patient":
        """Draw a patient: healthy for None, else with bacterial or viral pneumonia."""
        anatomy = Anatomy(rng)
        return cls(anatomy, Findings.sample(kind, rng) if kind else Findings())

    def shoot(self, rng: np.random.Generator, *, size: int, scanner: Scanner) -> NDArray[np.uint8]:
        """Take one radiograph (size, size) in gray levels: new pose, exposure and noise."""
        exposure = Exposure(rng)
        x, y = exposure.place(size)
        chest = self.anatomy.paint(x, y, inspiration=exposure.inspiration, turn=exposure.turn)
        attenuation = chest.attenuation + self.findings.opacity(chest, x, y) * exposure.severity
        return scanner.render(exposure.develop(attenuation, rng), rng)


def choose_kind(label: str, rng: np.random.Generator) -> Kind | None:
    """Draw the kind of pneumonia for a label, None for NORMAL; takes one number from rng either way."""
    bacterial = chance(rng, _BACTERIA_SHARE)
    if label == "NORMAL":
        return None
    return "bacteria" if bacterial else "virus"


def draw_radiograph(
    label: str, rng: np.random.Generator, *, size: int = 224, scanner: Scanner | None = None
) -> NDArray[np.uint8]:
    """Draw one synthetic chest radiograph of a new patient.

    The pixels depend on the arguments and the state of rng alone, on any machine.

    Args:
        label: "NORMAL" or "PNEUMONIA".
        rng: Source of random numbers; the call advances it.
        size: Side in pixels, 32 to 4096.
        scanner: The detector; None leaves the picture unchanged.

    Returns:
        Gray levels (size, size), row 0 at the patient's head.

    Raises:
        InputError: Unknown label, or a size out of range.
    """
    if label not in LABELS:
        raise InputError(f"phantom: unknown label {label!r}; choose {' or '.join(LABELS)}")
    check_size(size)
    return Patient.sample(choose_kind(label, rng), rng).shoot(rng, size=size, scanner=scanner or Scanner())


def check_size(size: int) -> None:
    """Raise InputError unless the side in pixels can be drawn."""
    if not _SMALLEST <= size <= _LARGEST:
        raise InputError(f"phantom: size is {size}; choose a side from {_SMALLEST} to {_LARGEST} pixels")
