"""`gate.yaml`: the requirements of `pneumo promote`."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from pneumo.pipeline.config import document
from pneumo.pipeline.config.json_schema import DIALECT
from pneumo.pipeline.config.problems import ConfigError, Problem
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.model.registry import Alias

FILE = Path("ludwig_configs/gate.yaml")


class Margins(FrozenModel):
    """How much lower than the champion's each metric may be."""

    auroc: float = Field(default=0.01, ge=0, lt=1, description="With two classes.")
    sensitivity: float = Field(default=0.03, ge=0, lt=1, description="At the bundle's threshold; else of each class.")
    specificity: float = Field(default=0.05, ge=0, lt=1, description="At the bundle's threshold; with two classes.")

    def get(self, metric: str) -> float:
        """Return the margin of a metric, `sensitivity:COVID` included; of balanced accuracy the mean of both rates'."""
        if metric == "balanced_accuracy":
            return (self.sensitivity + self.specificity) / 2
        return float(getattr(self, metric.partition(":")[0]))


class Gate(FrozenModel):
    """Requirements of a promotion: `gate.yaml`."""

    aliases: list[Alias] = Field(default=["champion"], min_length=1, description="Aliases that the gate guards.")
    split: Literal["test", "validation"] = Field(default="test", description="Images of the comparison.")
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="One-sided, that no metric is lower by its margin."
    )
    margins: Margins = Margins()
    undecided: Literal["refuse", "pass"] = Field(default="refuse", description="If too few images can tell.")
    parity: float = Field(default=1e-4, gt=0, le=0.01, description="Largest difference from the trained model.")
    resamples: int = Field(default=2000, ge=100, le=100_000, description="Bootstrap resamples of patients.")
    seed: int = Field(default=0, ge=0, description="Seed of the resamples.")


def build_gate_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `gate.yaml`."""
    return {"$schema": DIALECT, **Gate.model_json_schema()}


def read_gate(path: Path | None = None) -> Gate:
    """Read the requirements, by default `ludwig_configs/gate.yaml` if it exists; an `InputError` names a wrong line."""
    if path is None and not FILE.is_file():
        return Gate()
    content = document.read_document(path or FILE)
    try:
        return Gate.model_validate(content.data)
    except ValidationError as error:
        raise ConfigError([_describe_fault(content, fault) for fault in error.errors()]) from None


def _describe_fault(content: document.Document, fault: Any) -> Problem:
    place = tuple(fault["loc"])
    message = ": ".join(filter(None, (document.format_key_path(place), fault["msg"])))
    if fault["type"] == "extra_forbidden":
        keys = (Margins if place[0] == "margins" else Gate).model_fields
        message = f"unknown key {document.format_key_path(place)!r}; the keys are {', '.join(keys)}"
    return content.problem(place, message)
