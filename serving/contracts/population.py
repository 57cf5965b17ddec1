"""Population of a data set: whose images it holds, and how their ground truth was found."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, field_validator, model_validator

from pneumo.serving.contracts.models import FrozenModel

_VIEWS = {"AP": "anterior-posterior", "PA": "posterior-anterior", "lateral": "lateral", "oblique": "oblique"}
_NOT_STATED = "not stated"


def _check_line(text: str) -> str:
    if not 0 < len(text.strip()) <= 300 or not text.isprintable():
        raise ValueError("give one line of at most 300 printable characters")
    return text.strip()


_Text = Annotated[str, AfterValidator(_check_line)]


class Population(FrozenModel):
    """Population of a data set; a part that is None or empty is not stated.

    Attributes:
        subjects: Whom the images show, if it is not children, adults or patients, as `ages` tells.
        ages: Lowest and highest age, in years.
        sex: Shares of the sexes, in words.
        views: Views of the images.
        sites: Hospitals or departments.
        period: Time of the images.
        reference_standard: How the ground truth was found.
    """

    subjects: _Text | None = None
    ages: tuple[float, float] | None = None
    sex: _Text | None = None
    views: list[Literal["AP", "PA", "lateral", "oblique"]] = []
    sites: list[_Text] = []
    period: _Text | None = None
    reference_standard: _Text | None = None

    @field_validator("ages", mode="before")
    @classmethod
    def _check_ages(cls, value: Any) -> Any:
        numbers = value if isinstance(value, list | tuple) else []
        are_numbers = len(numbers) == 2 and all(type(each) in (int, float) for each in numbers)
        if value is not None and not (are_numbers and 0 <= numbers[0] <= numbers[1] <= 130):
            raise ValueError("give the lowest and the highest age in years, such as [1, 5]")
        return value

    @model_validator(mode="after")
    def _check_content(self) -> "Population":
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError(f"states nothing; give one or more of {', '.join(type(self).model_fields)}")
        return self

    def excludes_age(self, years: float) -> bool:
        """Return whether an age lies outside of the stated ages; a child is 5 until its sixth birthday."""
        return self.ages is not None and not self.ages[0] <= years < self.ages[1] + 1

    def describe(self) -> str:
        """Return the population in words: `anterior-posterior chest X-rays of children of 1 to 5 years`."""
        views = f"{' and '.join(_VIEWS[view] for view in self.views)} " if self.views else ""
        low, high = self.ages or (0.0, 130.0)
        people = self.subjects or ("children" if high < 18 else "adults" if low >= 18 else "patients")
        aged = f" of {self.describe_ages()}" if self.ages else ""
        more = [each for each in (self.sex, ", ".join(self.sites), self.period) if each]
        return f"{views}chest X-rays of {people}{aged}{f' ({"; ".join(more)})' if more else ''}"

    def describe_ages(self) -> str:
        """Return the ages in words, such as `1 to 5 years`."""
        return _NOT_STATED if self.ages is None else f"{self.ages[0]:g} to {self.ages[1]:g} years"

    def list_facts(self) -> list[tuple[str, str]]:
        """List name and value of each part; a value may be `not stated`."""
        facts = {name: getattr(self, name) for name in type(self).model_fields}
        facts |= {name: ", ".join(facts[name]) for name in ("views", "sites")} | {"ages": self.describe_ages()}
        return [(name.replace("_", " "), str(value or _NOT_STATED)) for name, value in facts.items()]


PHANTOMS = Population(subjects="phantoms (synthetic radiographs)")
"""Population of the data sets that `pneumo data phantom` draws."""


def describe_training(population: Population | None) -> str:
    """Return whose images a model was trained on, as the end of a sentence."""
    return f"trained on {population.describe() if population else 'images of a population that is not stated'}"
