"""Ludwig's trainer brought near the speed of a plain loop, from its callbacks. Importing this loads Ludwig.

Nothing here changes what is learned: the arithmetic is the same but for the order of sums inside a kernel.
"""

from dataclasses import dataclass
from typing import Any

import torch
from ludwig.modules.metric_modules import MeanMetric
from ludwig.modules.metric_registry import get_metric_tensor_input

_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Optimizers that torch has one kernel for on CPU; Ludwig's settings have no word for it."""


def use_channels_last(trainer: Any) -> None:
    """Lay convolutions out with channels last, which torch's CPU kernels prefer.

    Weights keep their values and their order in a state dict. Left alone on a GPU, where nothing was measured, and with
    several workers, whose gradient buckets are laid out already.
    """
    if torch.device(trainer.device).type == "cpu" and trainer.distributed.size() == 1:
        trainer.model.to(memory_format=torch.channels_last)


def use_fused_optimizer(trainer: Any) -> None:
    """Let one kernel update all weights on CPU, where torch's default is a Python loop over them.

    Call it after a resume: Ludwig restores the optimizer's settings with its state.
    """
    _lay_out_state(trainer.optimizer)
    if torch.device(trainer.device).type == "cpu" and type(trainer.optimizer) in _FUSED:
        for group in trainer.optimizer.param_groups:
            group.update(fused=True, foreach=False)


def _lay_out_state(optimizer: torch.optim.Optimizer) -> None:
    """Lay moments out as their weights are, which a checkpoint of another kind of device may not have.

    The fused kernel of the CPU goes through memory, not through positions, and says nothing where layouts differ.
    """
    for weights, state in optimizer.state.items():
        for name, moment in state.items():
            alike = isinstance(moment, torch.Tensor) and moment.shape == weights.shape
            if alike and moment.stride() != weights.stride():
                state[name] = torch.empty_like(weights, dtype=moment.dtype).copy_(moment)


@dataclass(frozen=True)
class _Batch:
    targets: dict[str, torch.Tensor]
    predictions: dict[str, dict[str, torch.Tensor]]


class RoundMetrics:
    """Training metrics computed once a round from all its batches, with the values that Ludwig would get.

    Without `evaluate_training_set` Ludwig updates some ten metrics after each step, 2 to 3 ms of Python. Metrics that
    count or collect give the same over all batches at once; those that are a mean of values by batch (losses) still get
    them one by one.
    """

    def __init__(self, trainer: Any) -> None:
        self.model = trainer.model
        self.batches: list[_Batch] = []
        if not trainer.evaluate_training_set:
            trainer._update_training_metrics = self.keep

    def keep(self, outputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> None:
        """Stands in for `Trainer._update_training_metrics`: remember a batch's predictions."""
        with torch.no_grad():
            predictions = self.model.outputs_to_predictions(outputs)
        detached = {
            feature: {key: tensor.detach() for key, tensor in tensors.items()}
            for feature, tensors in predictions.items()
        }
        self.batches.append(_Batch(targets, detached))

    def drop(self) -> None:
        """Forget the batches: Ludwig resets its metrics at the start of an epoch."""
        self.batches = []

    def flush(self) -> None:
        """Bring Ludwig's metrics up to date, right before it reads them."""
        batches, self.batches = self.batches, []
        if not batches:
            return
        for name, feature in self.model.output_features.items():
            targets = torch.cat([batch.targets[name] for batch in batches])
            for metric_name, metric in feature._metric_functions.items():
                key = get_metric_tensor_input(metric_name)
                metric = metric.to(targets.device)
                if isinstance(metric, MeanMetric):
                    for batch in batches:
                        metric.update(batch.predictions[name][key], batch.targets[name])
                else:
                    metric.update(torch.cat([batch.predictions[name][key] for batch in batches]), targets)
        for batch in batches:
            loss, additional = self.model.eval_loss(batch.targets, batch.predictions)
            self.model.eval_loss_metric.update(loss)
            self.model.eval_additional_losses_metrics.update(additional)
