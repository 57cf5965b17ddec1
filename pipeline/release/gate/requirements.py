"""`gate.yaml`: what `pneumo promote` asks of a model before it takes the champion's place."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from pneumo.pipeline.config import document
from pneumo.serving.contracts.errors import first_problem
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.model.registry import Alias

FILE = Path("ludwig_configs/gate.yaml")


class Margins(FrozenModel):
    """How much lower each figure may be than the champion's.

    Attributes:
        auroc: Of the ranking.
        sensitivity: At the shipped threshold; with more than two classes the sensitivity of each class.
        specificity: At the shipped threshold; with two classes.
    """

    auroc: float = Field(default=0.01, ge=0, lt=1)
    sensitivity: float = Field(default=0.03, ge=0, lt=1)
    specificity: float = Field(default=0.05, ge=0, lt=1)

    def get(self, metric: str) -> float:
        """The margin of a metric, `sensitivity:COVID` included."""
        return float(getattr(self, metric.partition(":")[0]))


class Gate(FrozenModel):
    """`gate.yaml`.

    Attributes:
        aliases: A model that one of these shall mean is compared with the model that it means now.
        split: Images that both are measured on; nothing was fitted on test images.
        confidence: How sure it must be that no figure is lower by more than its margin (one-sided).
        margins: How much lower a figure may be.
        undecided: What becomes of a model with too few images to be sure either way.
        parity: Largest difference in probability between bundle and trained model that passes.
        resamples: Draws of patients.
        seed: Seed of the draws.
    """

    aliases: list[Alias] = Field(default=["champion"], min_length=1)
    split: Literal["test", "validation"] = "test"
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    margins: Margins = Margins()
    undecided: Literal["refuse", "pass"] = "refuse"
    parity: float = Field(default=1e-4, gt=0, le=0.01)
    resamples: int = Field(default=2000, ge=100, le=100_000)
    seed: int = Field(default=0, ge=0)


def read_gate(path: Path | None = None) -> Gate:
    """Read the limits.

    Args:
        path: The file; where None `ludwig_configs/gate.yaml`, or the defaults where there is none.

    Raises:
        InputError: It is missing, no YAML, or holds what cannot be right, with its line.
    """
    if path is None and not FILE.is_file():
        return Gate()
    found = document.read_document(path or FILE)
    try:
        return Gate.model_validate(found.data)
    except ValidationError as error:
        place = tuple(error.errors()[0]["loc"])
        found.fail(place, _told(error, place))


def _told(error: ValidationError, place: tuple[str | int, ...]) -> str:
    first: Any = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return first_problem(error)
    model: type[BaseModel] = Margins if place[0] == "margins" else Gate
    return f"unknown key {document.format_key_path(place)!r}; the keys are {', '.join(model.model_fields)}"
