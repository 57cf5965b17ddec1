"""`gate.yaml`: the requirements of `pneumo promote`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pneumo.pipeline.config import document
from pneumo.pipeline.config.file_model import validate_model
from pneumo.pipeline.config.json_schema import DIALECT
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.model.registry import Alias

FILE = Path("ludwig_configs/gate.yaml")


Metric = Literal[
    "auroc",
    "worst_group_auroc",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "coverage",
    "stress.mean_auroc",
    "stress.worst_auroc",
    "stress.mean_balanced_accuracy",
    "stress.worst_balanced_accuracy",
    "stress.worst_coverage",
]
"""Metrics that may have a limit; those of `stress` are of the stress test in the bundle, which has no intervals."""


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
    split: Literal["test", "validation"] = Field(default="test", description="Images that the metrics are of.")
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="One-sided, that no metric is lower by its margin."
    )
    margins: Margins = Margins()
    limits: dict[Metric, Annotated[float, Field(ge=0, lt=1)]] = Field(
        default={}, description="Least values, of the lower end of the 95% interval; better than chance in any case."
    )
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
    return validate_model(document.read_document(path or FILE), Gate)
