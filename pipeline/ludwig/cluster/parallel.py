"""Ludwig's trainer as one worker of several: torch's data parallelism, shares of a batch, agreement. Loads Ludwig."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from ludwig.data.batcher.random_access import RandomAccessBatcher
from ludwig.distributed.base import LocalStrategy
from ludwig.modules.optimization_modules import create_optimizer
from torch.nn.parallel import DistributedDataParallel

from pneumo.pipeline.ludwig.pixel_backend import PixelDataset


class DataParallel(LocalStrategy):
    """What Ludwig's trainer asks of several workers, answered by torch.distributed."""

    def prepare(self, model: Any, trainer_config: Any, base_learning_rate: float) -> tuple[Any, Any]:
        """Wrap the model so that gradients are averaged over the workers."""
        wrapped = DistributedDataParallel(
            model,
            broadcast_buffers=False,  # averaged before an evaluation instead, see `InParallel`
            find_unused_parameters=True,  # encoders carry heads that Ludwig does not use
        )
        return wrapped, create_optimizer(model, trainer_config.optimizer, base_learning_rate)

    def to_device(self, model: Any, device: torch.device | None = None) -> Any:
        """Leave a wrapped model where it is."""
        return model if isinstance(model, DistributedDataParallel) else super().to_device(model, device)

    def size(self) -> int:
        """Workers."""
        return dist.get_world_size()

    def rank(self) -> int:
        """This worker, from 0."""
        return dist.get_rank()

    def local_rank(self) -> int:
        """Who writes checkpoints: only the first worker of all, not of each machine."""
        return dist.get_rank()

    def barrier(self) -> None:
        """Wait for all."""
        dist.barrier()

    def allreduce(self, t: torch.Tensor) -> torch.Tensor:
        """Sum over the workers, in place."""
        dist.all_reduce(t)
        return t

    def broadcast(self, t: torch.Tensor) -> torch.Tensor:
        """The first worker's tensor, in place."""
        dist.broadcast(t, src=0)
        return t

    def broadcast_object(self, v: Any, name: str | None = None) -> Any:
        """The first worker's value."""
        values = [v]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    @contextlib.contextmanager
    def prepare_model_update(self, model: Any, should_step: bool) -> Iterator[None]:
        """Average gradients only where a step follows."""
        with contextlib.nullcontext() if should_step else model.no_sync():
            yield


class InParallel:
    """Mixed into the trainer that Ludwig has for a model: what it does only on one worker, done on all."""

    def callback(self, fn: Callable[[Any], None], coordinator_only: bool = True) -> None:
        """Call callbacks on every worker: a resumed schedule must be replayed on each."""
        for callback in self.callbacks:  # type: ignore[attr-defined]
            fn(callback)

    def _eval_and_checkpoint(self, **values: Any) -> Any:
        """Average what batch norm saw of each share, so that all evaluate, and keep, one model."""
        average_buffers(self.model)  # type: ignore[attr-defined]
        return super()._eval_and_checkpoint(**values)  # type: ignore[misc]

    def _has_nan_or_inf_weights(self, model: torch.nn.Module) -> bool:
        """Agree on it; Ludwig lets only the first worker of a machine stop, and the rest wait for it."""
        found = any(not tensor.isfinite().all() for tensor in model.state_dict().values())
        return bool(self.distributed.allreduce(torch.tensor(int(found), device=self.device)).item())  # type: ignore[attr-defined]


def average_buffers(model: torch.nn.Module) -> None:
    """Replace each floating-point buffer, such as batch norm's running statistics, by its mean over the workers."""
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= dist.get_world_size()


class WorkerSampler:
    """Positions in the batches of one worker: every `workers`-th batch, from its own rank on."""

    def __init__(self, total: int, size: int, rank: int, workers: int) -> None:
        starts = range(rank * size, total, workers * size)
        self.positions = [position for start in starts for position in range(start, min(start + size, total))]

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)

    def __len__(self) -> int:
        return len(self.positions)

    def set_epoch(self, epoch: int) -> None:
        """Nothing is shuffled."""


class EvaluationSet(PixelDataset):
    """A data set whose batches, the same as in a local run, are dealt to the workers in turn.

    Ludwig's sampler would repeat images to make the shares equal, which shifts a metric.
    """

    @contextlib.contextmanager
    def initialize_batcher(  # type: ignore[override]
        self, batch_size: int = 128, **_: Any
    ) -> Iterator[RandomAccessBatcher]:
        """Batches of this worker, in order; smaller ones where there would not be one for each."""
        workers = dist.get_world_size()
        size = max(1, min(batch_size, len(self) // workers))
        yield RandomAccessBatcher(self, WorkerSampler(len(self), size, dist.get_rank(), workers), batch_size=size)
