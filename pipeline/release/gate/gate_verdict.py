"""The verdict of the gate: checks of the bundle and its data, its figures against limits and the champion's."""

from pydantic import computed_field

from pneumo.pipeline.evaluation.paired import Difference
from pneumo.pipeline.evaluation.results import title
from pneumo.pipeline.release.gate.limits import LimitResult, Outcome
from pneumo.pipeline.release.gate.requirements import Gate
from pneumo.pipeline.release.registry.write import Admission
from pneumo.serving.contracts.models import FrozenModel


class Check(FrozenModel):
    """One requirement of a bundle: its name, whether it passed, and as `told` the result, and the fix if it failed."""

    name: str
    passed: bool
    told: str


class Figure(FrozenModel):
    """One metric of champion (first) and challenger (second).

    Attributes:
        difference: The metric; `low` is the one-sided bound at the gate's confidence.
        margin: How much lower the challenger's value may be.
        outcome: `good` if it is not lower by more than the margin, with confidence; `worse` if it is lower by more on
            these images, or undefined; else `undecided`.
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
        proven = low is not None and low >= -margin
        return cls(difference=difference, margin=margin, outcome="good" if proven else "undecided")

    def objection(self, gate: Gate) -> str | None:
        """Return why the gate refuses because of this metric; None if it does not."""
        if self.outcome == "good" or (self.outcome == "undecided" and gate.undecided == "pass"):
            return None
        name, found = title(self.difference.metric), self.difference
        if found.value is None:
            return f"{name} is undefined: {found.reason}"
        change = f"{name} changes by {found.value:+.3f}"
        if self.outcome == "worse":
            return f"{change}; at most {self.margin:g} lower is allowed"
        if found.low is None:
            return f"{change}, with unknown certainty ({found.reason})"
        return (
            f"{change}, but with {gate.confidence:.0%} confidence it may be as low as {found.low:+.3f}, and "
            f"{-self.margin:g} is required: too few images to tell"
        )


class Verdict(FrozenModel):
    """The gate's verdict on a model for an alias.

    Attributes:
        model: `name:version` of the challenger, or its folder if it is no bundle.
        champion: Version that the alias points at; None if there is none.
        split: Split that it was measured on; `images` of `patients`.
        limits: Its own metrics against chance and the gate's limits.
        figures: Its metrics against the champion's.
        notes: What could not be compared, and other remarks.
        objections: Reasons of a refusal; empty if the model passes.
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
    limits: list[LimitResult] = []
    figures: list[Figure] = []
    notes: list[str] = []
    objections: list[str] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether the model passes."""
        return not self.objections

    def admission(self, reason: str | None) -> Admission:
        """Return the registry's record of the verdict, with a person's reason only if it was needed."""
        forced = None if self.passed else reason
        return Admission(self.champion, compared=self.compared, forced=forced, objections=tuple(self.objections))
