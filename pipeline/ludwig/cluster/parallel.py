"""Ludwig's trainer as one worker of several, with torch's data parallelism. Importing this loads Ludwig."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from ludwig.data.batcher.random_access import RandomAccessBatcher
from ludwig.distributed.base import LocalStrategy
from ludwig.modules.optimization_modules import create_optimizer
from ludwig.utils.misc_utils import set_random_seed
from torch.nn.parallel import DistributedDataParallel

from pneumo.pipeline.ludwig.callback import TrainingCallback
from pneumo.pipeline.ludwig.cluster.messages import Outbox
from pneumo.pipeline.ludwig.pixel_backend import PixelDataset
from pneumo.pipeline.runs.reporter import SILENT
from pneumo.pipeline.runs.run import Run

if TYPE_CHECKING:
    from ludwig.callbacks import Callback
    from ludwig.schema.trainer import ECDTrainerConfig
    from ludwig.trainers.trainer import Trainer as LudwigTrainer
    from ludwig.utils.trainer_utils import ProgressTracker

    from pneumo.pipeline.ludwig.protocols import Trainer
else:
    LudwigTrainer = object


class DataParallel(LocalStrategy):
    """Ludwig's interface to several workers, on torch.distributed."""

    size = staticmethod(dist.get_world_size)
    rank = staticmethod(dist.get_rank)
    local_rank = staticmethod(dist.get_rank)  # among all workers: one of all writes checkpoints, not one per machine
    barrier = staticmethod(dist.barrier)

    def prepare(
        self, model: torch.nn.Module, trainer_config: "ECDTrainerConfig", base_learning_rate: float
    ) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        """Wrap the model so that gradients are averaged over the workers."""
        wrapped = DistributedDataParallel(
            model,
            broadcast_buffers=False,  # averaged before an evaluation instead, see `InParallel`
            find_unused_parameters=True,  # encoders carry heads that Ludwig does not use
        )
        return wrapped, create_optimizer(model, trainer_config.optimizer, base_learning_rate)  # type: ignore[arg-type]

    def to_device(self, model: torch.nn.Module, device: torch.device | None = None) -> torch.nn.Module:
        """Move a model to a device, unless it is wrapped."""
        return model if isinstance(model, DistributedDataParallel) else super().to_device(model, device)  # type: ignore[arg-type]

    def allreduce(self, t: torch.Tensor) -> torch.Tensor:
        """Sum over the workers, in place."""
        dist.all_reduce(t)
        return t

    def broadcast(self, t: torch.Tensor) -> torch.Tensor:
        """Copy the first worker's tensor, in place."""
        dist.broadcast(t, src=0)
        return t

    def broadcast_object(self, v: object, name: str | None = None) -> object:
        """Return the first worker's value."""
        values = [v]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    @contextlib.contextmanager
    def prepare_model_update(  # type: ignore[override]
        self, model: DistributedDataParallel, should_step: bool
    ) -> Iterator[None]:
        """Average gradients only before an optimizer step."""
        with contextlib.nullcontext() if should_step else model.no_sync():
            yield


class InParallel(LudwigTrainer):
    """Mixin for Ludwig's trainer: does on every worker what it does on one."""

    def callback(self, fn: "Callable[[Callback], object]", coordinator_only: bool = True) -> None:
        """Call callbacks on every worker: a resumed schedule must be replayed on each."""
        for callback in self.callbacks:
            fn(callback)

    def _eval_and_checkpoint(self, **values: object) -> object:  # type: ignore[override]
        """Average the batch-norm statistics, so that all workers evaluate and keep one model."""
        for buffer in self.model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= dist.get_world_size()
        return super()._eval_and_checkpoint(**values)  # type: ignore[arg-type]

    def _has_nan_or_inf_weights(self, model: torch.nn.Module) -> bool:
        """Agree on the answer; Ludwig stops only the first worker of a machine, and the others wait for it."""
        has_any = any(not tensor.isfinite().all() for tensor in model.state_dict().values())
        return bool(self.distributed.allreduce(torch.tensor(int(has_any), device=self.device)).item())


class WorkerCallback(TrainingCallback):
    """Replays a resumed schedule and seeds each worker; the first worker sends progress and checkpoints."""

    def __init__(self, run: Run, feature: str, seed: int, rank: int, outbox: Outbox | None) -> None:
        super().__init__(run, feature, outbox or SILENT)
        self.seed = seed
        self.rank = rank
        self.outbox = outbox

    def on_epoch_start(self, trainer: "Trainer", progress_tracker: "ProgressTracker", *_: object, **__: object) -> None:
        """Give each worker its own seed, so that dropout and augmentation draw differently on each."""
        if not self.schedule_restored and self.rank > 0:
            set_random_seed((self.seed + self.rank) % 2**32)
        super().on_epoch_start(trainer, progress_tracker)

    def on_checkpoint(self, trainer: "Trainer", progress_tracker: "ProgressTracker", **_: object) -> None:
        """Send the checkpoint that Ludwig has just finished."""
        if self.outbox:
            self.outbox.checkpoint(progress_tracker.steps)

    def on_eval_end(self, trainer: "Trainer", progress_tracker: "ProgressTracker", *_: object, **__: object) -> None:
        """Write the learning curves on the first worker, which sends them."""
        if self.outbox:
            super().on_eval_end(trainer, progress_tracker)


class WorkerSampler(list[int]):
    """Positions in the batches of one worker: every `workers`-th batch, from its own rank on."""

    def __init__(self, total: int, size: int, rank: int, workers: int) -> None:
        starts = range(rank * size, total, workers * size)
        super().__init__(position for start in starts for position in range(start, min(start + size, total)))

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the order is the same in every epoch."""


class EvaluationSet(PixelDataset):
    """A data set whose batches, the same as in a local run, are shared out among the workers.

    Ludwig's sampler would repeat images to make the shares equal, which shifts a metric.
    """

    @contextlib.contextmanager
    def initialize_batcher(  # type: ignore[override]
        self, batch_size: int = 128, *_: object, **__: object
    ) -> Iterator[RandomAccessBatcher]:
        """Yield this worker's batches in order; they are smaller if there would be fewer batches than workers."""
        workers = dist.get_world_size()
        size = max(1, min(batch_size, len(self) // workers))
        yield RandomAccessBatcher(self, WorkerSampler(len(self), size, dist.get_rank(), workers), batch_size=size)
