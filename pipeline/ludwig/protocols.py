"""The parts of Ludwig's objects that pneumo uses; Ludwig's own annotations leave most of them open, or None."""

from collections.abc import Callable
from typing import Any, Protocol

import pandas as pd
import torch


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
    _update_training_metrics: Callable[..., None]


class LudwigModel(Protocol):
    """Ludwig's model after training or loading."""

    backend: Any
    config_obj: Any
    model: Any
    predict: Callable[..., tuple[pd.DataFrame, object]]
    training_set_metadata: dict[str, dict[str, Any]]
    save: Callable[[str], None]
