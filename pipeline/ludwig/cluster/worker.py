"""The work of one worker of a cluster. Ray Train imports this on the workers; Ludwig is loaded when work begins."""

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumo.pipeline.ludwig import runtime
from pneumo.pipeline.ludwig.cluster.messages import Outbox, Result
from pneumo.pipeline.runs.run import Run

if TYPE_CHECKING:
    import numpy as np
    from ludwig.callbacks import Callback
    from ludwig.models.ecd import ECD
    from ludwig.schema.trainer import ECDTrainerConfig
    from numpy.typing import NDArray

MODEL = "model"


@dataclass(frozen=True)
class Task:
    """A training that the driver hands out: Ludwig's objects, arrays that the workers of a machine share, and files."""

    model: "ECD"
    config: "ECDTrainerConfig"  # with a worker's share of the batch
    data: "dict[str, dict[str, NDArray[np.generic]]]"  # columns of `training` and `validation`, as Ludwig prepared them
    features: dict[str, object]  # of the columns
    label: str
    seed: int
    callbacks: "list[Callback]"  # of the first worker
    files: dict[str, bytes]  # a checkpoint to resume from, by path in the run folder


def run_worker(settings: dict[str, Any]) -> None:
    """Train as one worker of several, with `task`, a reference to a `Task`, and `queue`, to the driver."""
    # Ludwig gives all workers the same relative path to save to. This one's own folder lies in Ray's, so that it is
    # removed with the cluster if the worker is killed.
    with tempfile.TemporaryDirectory(prefix="pneumo-", dir=Path.cwd()) as name, contextlib.chdir(name):
        folder = Path(name)
        log = folder / "train.log"
        with runtime.log_to_file(log):
            runtime.load_ludwig()
            import ray
            import ray.train

            rank = ray.train.get_context().get_world_rank()
            outbox = Outbox(Run(folder), log, settings["queue"]) if rank == 0 else None
            result = None
            try:
                result = _train(ray.get(settings["task"]), folder, rank, outbox)
            finally:
                if outbox:
                    outbox.send(result)


def _train(task: Task, folder: Path, rank: int, outbox: Outbox | None) -> Result:
    from ludwig.distributed import init_dist_strategy
    from ludwig.globals import set_disable_progressbar
    from ludwig.trainers.registry import get_trainers_registry
    from ray.train.torch import get_device

    from pneumo.pipeline.ludwig.cluster.parallel import DataParallel, EvaluationSet, InParallel, WorkerCallback
    from pneumo.pipeline.ludwig.pixel_backend import PixelDataset

    init_dist_strategy("local")  # metrics then gather over torch.distributed by themselves
    set_disable_progressbar(True)  # type: ignore[no-untyped-call]
    for name, content in task.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    device = get_device()
    trainer_class = type("ParallelTrainer", (InParallel, get_trainers_registry()[task.model.type()]), {})
    callback = WorkerCallback(Run(folder), task.label, task.seed, rank, outbox)
    trainer = trainer_class(
        config=task.config,
        model=task.model.to(device),
        resume=bool(task.files),
        skip_save_log=True,
        callbacks=[callback, *(task.callbacks if rank == 0 else ())],
        random_seed=task.seed,
        distributed=DataParallel(),
        device=str(device),
    )
    model, *metrics = trainer.train(
        PixelDataset(task.data["training"], task.features, None),  # type: ignore[no-untyped-call]
        EvaluationSet(task.data["validation"], task.features, None),  # type: ignore[no-untyped-call]
        save_path=MODEL,  # in the working folder, which is each worker's own
    )
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}, metrics
