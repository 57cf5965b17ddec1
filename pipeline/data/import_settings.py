"""How a data set is to be made."""

from dataclasses import dataclass, field
from enum import StrEnum

from pneumo.pipeline.data.groups import GroupRule
from pneumo.pipeline.data.patients import PatientRule
from pneumo.pipeline.data.splits import Fractions
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.types import Decode, Fit


class SplitMethod(StrEnum):
    """Where splits come from: made by class and patient, or given by the source."""

    GROUPED = "grouped"
    GIVEN = "given"


@dataclass(frozen=True)
class ImportSettings:
    """How a data set is made.

    Attributes:
        size: Side of the prepared square images, in pixels.
        fit: How rectangles become squares.
        decode: How JPEGs are decoded, here and by the models that are trained on the data set.
        seed: Seed of the splits.
        split: Where splits come from.
        fractions: Shares of the splits.
        patients: How patients are told from names.
        groups: How subgroups are told.
    """

    size: int = 224
    fit: Fit = Fit.SQUASH
    decode: Decode = Decode.SCALED
    seed: int = 0
    split: SplitMethod = SplitMethod.GROUPED
    fractions: Fractions = field(default_factory=Fractions)
    patients: PatientRule = field(default_factory=PatientRule)
    groups: GroupRule = field(default_factory=GroupRule)

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096:
            raise InputError(f"size {self.size}: give a side from 8 to 4096 pixels")
