"""The parts of Ludwig's objects that pneumo uses; Ludwig's own annotations leave most of them open, or None."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import pandas as pd
import torch

from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.images.types import Gray


class EpochMetric(Protocol):
    """A metric that Ludwig does not know and that chooses the best epoch: larger is better."""

    @property
    def name(self) -> str:
        """Name among the metrics of the validation split."""

    def measure(self, latest: Mapping[str, float], predict: Callable[[Sequence[Gray]], Float64]) -> Mapping[str, float]:
        """Return it and its parts, from Ludwig's latest metrics and a function that gives the logits of images."""


class Trainer(Protocol):
    """Ludwig's trainer, as its callbacks see it."""

    config: Any
    device: str
    distributed: Any
    evaluate_training_set: bool
    model: Any
    optimizer: torch.optim.Optimizer
    scheduler: Any
    total_steps: int
    validation_field: str
    validation_metric: str
    _validation_metric: str
    _update_training_metrics: Callable[..., None]


class LudwigModel(Protocol):
    """Ludwig's model after training or loading."""

    backend: Any
    config_obj: Any
    model: Any
    predict: Callable[..., tuple[pd.DataFrame, object]]
    training_set_metadata: dict[str, dict[str, Any]]
    save: Callable[[str], None]
