"""Bring Ludwig's trainer near the speed of a plain training loop, from its callbacks. Importing this loads Ludwig.

Nothing here changes what is learned: only the order of sums inside a kernel may differ.
"""

from typing import TYPE_CHECKING

import torch

from pneumo.pipeline.ludwig.compat import has_names

if TYPE_CHECKING:
    from pneumo.pipeline.ludwig.protocols import Trainer

Tensors = dict[str, torch.Tensor]

_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Optimizers with a fused CPU kernel in torch; Ludwig has no option for it."""


def use_channels_last(trainer: "Trainer") -> None:
    """Lay convolutions out with channels last, which torch's CPU kernels prefer.

    Weights keep their values and their order in a state dict. GPUs are left alone, since nothing was measured there,
    and so are several workers, whose gradient buckets have their layout already.
    """
    if torch.device(trainer.device).type == "cpu" and trainer.distributed.size() == 1:
        trainer.model.to(memory_format=torch.channels_last)


def use_fused_optimizer(trainer: "Trainer") -> None:
    """Update all weights in one kernel on CPU, where torch's default is a Python loop over them.

    Call it after a resume: Ludwig restores the optimizer's settings with its state.
    """
    # The fused CPU kernel ignores strides, so moments need the layout of their weights; a checkpoint from another kind
    # of device may lack it.
    for weights, state in trainer.optimizer.state.items():
        for name, moment in state.items():
            is_alike = isinstance(moment, torch.Tensor) and moment.shape == weights.shape
            if is_alike and moment.stride() != weights.stride():
                state[name] = torch.empty_like(weights, dtype=moment.dtype).copy_(moment)
    if torch.device(trainer.device).type == "cpu" and type(trainer.optimizer) in _FUSED:
        for group in trainer.optimizer.param_groups:
            group.update(fused=True, foreach=False)


class RoundMetrics:
    """Computes training metrics once per round from all its batches, with the values that Ludwig would get.

    Without `evaluate_training_set` Ludwig updates some ten metrics after each step, 2 to 3 ms of Python. Metrics that
    count or collect give the same over all batches at once; means over batches (losses) still get them one by one.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self.model = trainer.model
        self.batches: list[tuple[Tensors, dict[str, Tensors]]] = []  # targets, predictions
        if not trainer.evaluate_training_set and has_names("ludwig.trainer_speed"):
            trainer._update_training_metrics = self.keep

    def keep(self, outputs: Tensors, targets: Tensors) -> None:
        """Store a batch's predictions, in place of `Trainer._update_training_metrics`."""
        with torch.no_grad():
            predictions = self.model.outputs_to_predictions(outputs)
        detached = {
            feature: {key: tensor.detach() for key, tensor in tensors.items()}
            for feature, tensors in predictions.items()
        }
        self.batches.append((targets, detached))

    def flush(self) -> None:
        """Update Ludwig's metrics with the batches, just before it reads them."""
        if not self.batches:
            return
        from ludwig.modules.metric_modules import MeanMetric
        from ludwig.modules.metric_registry import get_metric_tensor_input

        batches, self.batches = self.batches, []
        for name, feature in self.model.output_features.items():
            all_targets = torch.cat([targets[name] for targets, _ in batches])
            for metric_name, metric in feature._metric_functions.items():
                key = get_metric_tensor_input(metric_name)
                metric = metric.to(all_targets.device)
                if isinstance(metric, MeanMetric):
                    for targets, predictions in batches:
                        metric.update(predictions[name][key], targets[name])
                else:
                    metric.update(torch.cat([predictions[name][key] for _, predictions in batches]), all_targets)
        for targets, predictions in batches:
            loss, additional = self.model.eval_loss(targets, predictions)
            self.model.eval_loss_metric.update(loss)
            self.model.eval_additional_losses_metrics.update(additional)
