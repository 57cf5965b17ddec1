"""What the gate found: checks of the bundle and its data, and figures beside the champion's."""

from typing import Literal

from pydantic import computed_field

from pneumo.pipeline.evaluation.paired import Difference
from pneumo.pipeline.evaluation.results import title
from pneumo.pipeline.release.gate.requirements import Gate
from pneumo.pipeline.release.registry.write import Admission
from pneumo.serving.contracts.models import FrozenModel

Outcome = Literal["good", "worse", "undecided"]


class Check(FrozenModel):
    """One thing that a bundle has or lacks.

    Attributes:
        name: In a word or two.
        passed: Whether it is as it should be.
        told: What was found, and the mend where it is wrong.
    """

    name: str
    passed: bool
    told: str


class Figure(FrozenModel):
    """One figure of champion (first) and challenger (second).

    Attributes:
        difference: The figure; `low` is at the confidence asked for, one-sided.
        margin: How much lower it may be.
        outcome: `good` where it is surely not lower by more; `worse` where it is on these very images, or undefined.
    """

    difference: Difference
    margin: float
    outcome: Outcome

    @classmethod
    def from_difference(cls, difference: Difference, margin: float) -> "Figure":
        """Judge a difference."""
        value, low = difference.value, difference.low
        if value is None or value < -margin:
            return cls(difference=difference, margin=margin, outcome="worse")
        sure = low is not None and low >= -margin
        return cls(difference=difference, margin=margin, outcome="good" if sure else "undecided")

    def objection(self, gate: Gate) -> str | None:
        """Why this figure stands in the way; None where it does not."""
        name, found = title(self.difference.metric), self.difference
        if self.outcome == "good" or (self.outcome == "undecided" and gate.undecided == "pass"):
            return None
        if found.value is None:
            return f"{name} is undefined: {found.reason}"
        what = f"{name} changes by {found.value:+.3f}"
        if self.outcome == "worse":
            return f"{what}, {self.margin:g} lower is allowed"
        if found.low is None:
            return f"{what}, and nobody can tell how sure that is ({found.reason})"
        return (
            f"{what}, but with {gate.confidence:.0%} confidence only not below {found.low:+.3f}, where "
            f"{-self.margin:g} is asked: too few images to tell"
        )


class Verdict(FrozenModel):
    """Whether a model may take an alias.

    Attributes:
        model: `name:version` of the challenger, or its folder where it is no bundle.
        alias: What shall mean it.
        champion: What the alias means now, where the gate looked; None where nothing does.
        compared: Whether the two were compared.
        split: What they were compared on; `images` of `patients`.
        checks: Of the bundle and its data.
        figures: Beside the champion's.
        notes: What a reader should know.
        objections: Why it is refused; empty where it is not.
    """

    model: str
    alias: str
    champion: str | None = None
    compared: bool = False
    split: str | None = None
    images: int | None = None
    patients: int | None = None
    confidence: float
    checks: list[Check] = []
    figures: list[Figure] = []
    notes: list[str] = []
    objections: list[str] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.objections

    def admission(self, reason: str | None) -> Admission:
        """What the registry records of it; the reason of a person only where it was needed."""
        forced = None if self.passed else reason
        return Admission(self.champion, compared=self.compared, forced=forced, objections=tuple(self.objections))
