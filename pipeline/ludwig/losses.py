"""`smoothed_binary_cross_entropy`: label smoothing for a binary label, which Ludwig lacks; and metrics of its losses.

Ludwig's `robust_lambda` takes whole numbers only, so that 1 switches the loss off.
"""

from typing import Any

import torch
from ludwig.constants import BINARY, CATEGORY, LOGITS, MINIMIZE
from ludwig.modules.loss_modules import LogitsInputsMixin, create_loss, loss_impl_registry
from ludwig.modules.loss_modules import register_loss as register_loss_function
from ludwig.modules.metric_modules import LossMetric
from ludwig.modules.metric_registry import register_metric
from ludwig.schema.features.loss.loss import BaseLossConfig, get_loss_cls, register_loss
from ludwig.schema.utils import FloatRange, NonNegativeFloat, ProtectedString
from torch.nn import functional

NAME = "smoothed_binary_cross_entropy"


@register_loss([BINARY])
class SmoothedBinaryCrossEntropyConfig(BaseLossConfig):
    """Options under `loss:`."""

    type: str = ProtectedString(NAME)
    smoothing: float = FloatRange(0.1, False, "Labels become smoothing / 2 and 1 - smoothing / 2.", min=0, max=0.9)
    positive_class_weight: float | None = FloatRange(None, True, "Null: no class weights.", min=0.001, max=1000)
    weight: float = NonNegativeFloat(1.0, description="Weight of the loss.")

    @classmethod
    def name(cls) -> str:
        """Return the name for people."""
        return "Smoothed Binary Cross Entropy"


@register_loss_function(SmoothedBinaryCrossEntropyConfig)
class SmoothedBinaryCrossEntropy(torch.nn.Module, LogitsInputsMixin):
    """Binary cross entropy with label smoothing (Szegedy et al., CVPR 2016)."""

    weight: torch.Tensor | None

    def __init__(self, config: SmoothedBinaryCrossEntropyConfig) -> None:
        super().__init__()
        self.smoothing = config.smoothing
        weight = config.positive_class_weight
        self.register_buffer("weight", None if weight is None else torch.tensor(weight), persistent=False)

    def forward(self, preds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of logits (N,) against labels (N,) in {0, 1}."""
        smooth = target.float() * (1 - self.smoothing) + self.smoothing / 2
        return functional.binary_cross_entropy_with_logits(preds, smooth, pos_weight=self.weight)


@register_metric(NAME, [BINARY], MINIMIZE, LOGITS)
class SmoothedBinaryCrossEntropyMetric(LossMetric):
    """The loss as a metric, with which Ludwig evaluates it."""

    def __init__(self, config: SmoothedBinaryCrossEntropyConfig, **_: object) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.loss_function = SmoothedBinaryCrossEntropy(config)

    def get_current_value(self, preds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch."""
        return self.loss_function.forward(preds, target)


class _LossAsMetric(LossMetric):
    """A loss of Ludwig's as the metric with which Ludwig evaluates it."""

    def __init__(self, config: BaseLossConfig, **_: object) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.loss_function = create_loss(config)

    def get_current_value(self, preds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch."""
        value: torch.Tensor = self.loss_function(preds, target)
        return value


def _take_small_integers(loss: Any) -> Any:
    """Return a loss of Ludwig's that takes classes as integers of 8 bits too, as Ludwig stores few classes."""

    class Loss(loss):  # type: ignore[misc]
        def forward(self, preds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            value: torch.Tensor = super().forward(preds, target.long() if target.dtype is torch.int8 else target)
            return value

    return Loss


for _name in ("corn", "entmax15", "entropic_open_set", "focal", "objectosphere", "poly", "sparsemax"):
    # Ludwig 0.17.10 trains no category with these: most lack a metric, and it reads options of another loss
    _config: Any = get_loss_cls(CATEGORY, _name)
    _config.class_weights, _config.class_similarities_temperature = None, 0
    loss_impl_registry[_config] = _take_small_integers(loss_impl_registry[_config])
    if _name != "corn":
        register_metric(_name, [BINARY, CATEGORY] if _name == "focal" else [CATEGORY], MINIMIZE, LOGITS)(_LossAsMetric)
