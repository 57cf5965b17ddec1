"""Settings of an import."""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from pneumo.pipeline.data.corrections import CorrectionFile
from pneumo.pipeline.data.groups import GroupRule
from pneumo.pipeline.data.patients import PatientRule
from pneumo.pipeline.data.sources import SourceOptions
from pneumo.pipeline.data.splits import Fractions
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.population import Population
from pneumo.serving.images.preparation import Storage
from pneumo.serving.images.types import DECODING_RULES, Decode, Fit


class SplitMethod(StrEnum):
    """The origin of the splits: made by class and patient, or given by the source."""

    GROUPED = "grouped"
    GIVEN = "given"


@dataclass(frozen=True)
class ImportSettings:
    """How an import prepares images and splits them.

    Attributes:
        size: Side of the prepared square images, in pixels.
        fit: How a rectangle becomes a square.
        decode: How JPEGs are decoded, in the import and by every model that is trained on the data set.
        seed: Seed of the splits.
        split: `grouped` makes splits by class, patient and identical bytes; `given` keeps those of the source.
        fractions: Shares of the splits.
        patient_regex: Searched in names inside the source; its group is the patient. None stands for Kermany's names.
        source: How the source is to be understood.
        groups: Columns of the source's table that are subgroups, such as `sex,view`. Kermany's names give further
            ones unless there is a `patient_regex`.
        population: The population of the images; None if it is not stated.
        corrections: Files that change labels or leave images out. Splits and paths are those of the import without.

    Raises:
        InputError: The size is out of range, or `patient_regex` cannot be used.
    """

    size: int = 224
    fit: Fit = Fit.SQUASH
    decode: Decode = Decode.SCALED
    seed: int = 0
    split: SplitMethod = SplitMethod.GROUPED
    fractions: Fractions = field(default_factory=Fractions)
    patient_regex: str | None = None
    groups: str | None = None
    population: Population | None = None
    source: SourceOptions = field(default_factory=SourceOptions)
    corrections: tuple[CorrectionFile, ...] = ()

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096:
            raise InputError(f"--size {self.size}: must be 8 to 4096 pixels")
        _ = self.patient_rule  # refuses a wrong regular expression

    @property
    def storage(self) -> Storage:
        """How each file becomes a stored image, under today's decoding rules."""
        return Storage(size=self.size, fit=self.fit, decode=self.decode, rules=DECODING_RULES)

    @cached_property
    def patient_rule(self) -> PatientRule:
        """The rule that finds the patient of an image."""
        return PatientRule.parse(self.patient_regex)

    @cached_property
    def group_rule(self) -> GroupRule:
        """The rule that finds the subgroups of an image."""
        return GroupRule.parse(self.groups, by_name=self.patient_regex is None)
