"""`gate.yaml`: the requirements of `pneumo promote`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from pneumo.pipeline.config import document
from pneumo.serving.contracts.errors import first_problem
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.model.registry import Alias

FILE = Path("ludwig_configs/gate.yaml")


class Margins(FrozenModel):
    """How much lower than the champion's each metric may be.

    Attributes:
        sensitivity: At the bundle's threshold; with more than two classes the sensitivity of each class.
        specificity: At the bundle's threshold; with two classes.
    """

    auroc: float = Field(default=0.01, ge=0, lt=1)
    sensitivity: float = Field(default=0.03, ge=0, lt=1)
    specificity: float = Field(default=0.05, ge=0, lt=1)

    def get(self, metric: str) -> float:
        """Return the margin of a metric, `sensitivity:COVID` included."""
        return float(getattr(self, metric.partition(":")[0]))


class Gate(FrozenModel):
    """`gate.yaml`.

    Attributes:
        aliases: Aliases that the gate guards: a model for one of them is compared with its present version.
        split: Images of the comparison; nothing was fitted on test images.
        confidence: Required confidence that no metric is lower by more than its margin (one-sided).
        undecided: Decision on a model with too few images to tell.
        parity: Largest allowed difference in probability between bundle and trained model.
        resamples: Bootstrap resamples of patients.
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
    """Read the requirements, by default `ludwig_configs/gate.yaml` if it exists; an `InputError` names a wrong line."""
    if path is None and not FILE.is_file():
        return Gate()
    content = document.read_document(path or FILE)
    try:
        return Gate.model_validate(content.data)
    except ValidationError as error:
        first = error.errors()[0]
        place = tuple(first["loc"])
        message = first_problem(error)
        if first["type"] == "extra_forbidden":
            keys = (Margins if place[0] == "margins" else Gate).model_fields
            message = f"unknown key {document.format_key_path(place)!r}; the keys are {', '.join(keys)}"
        content.fail(place, message)
