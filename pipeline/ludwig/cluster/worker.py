"""What each worker of a cluster runs. Ray Train imports this on the workers; Ludwig is loaded when work begins."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumo.pipeline.ludwig import runtime
from pneumo.pipeline.ludwig.cluster.messages import Outbox
from pneumo.pipeline.runs.run import Run

MODEL = "model"


@dataclass(frozen=True)
class Task:
    """What the driver hands out: objects of Ludwig's, arrays that the workers of a machine share, and files.

    Attributes:
        model: Ludwig's network, untrained.
        config: Its trainer's settings, with a worker's share of the batch.
        data: Columns of each split, as Ludwig prepared them: `training` and `validation`.
        features: The columns' features.
        label: Name of the label feature.
        seed: Seed of shuffling.
        callbacks: More callbacks, for the first worker.
        files: A checkpoint to resume from, by path in the run folder; empty to begin.
    """

    model: Any
    config: Any
    data: dict[str, dict[str, Any]]
    features: dict[str, Any]
    label: str
    seed: int
    callbacks: list[Any]
    files: dict[str, bytes]


def run_worker(settings: dict[str, Any]) -> None:
    """Train as one worker of several.

    Args:
        settings: `task`, a reference to a `Task`, and `queue`, which takes messages to the driver.
    """
    with _own_folder() as folder:
        log = folder / "train.log"
        with runtime.log_to_file(log):
            runtime.load_ludwig()
            import ray
            import ray.train

            rank = ray.train.get_context().get_world_rank()
            outbox = Outbox(Run(folder), log, settings["queue"]) if rank == 0 else None
            try:
                result = _train(ray.get(settings["task"]), folder, rank, outbox)
            except BaseException:
                if outbox:
                    outbox.send()
                raise
            if outbox:
                outbox.send(result=result)


def _train(task: Task, folder: Path, rank: int, outbox: Outbox | None) -> tuple[Any, ...]:
    from ludwig.distributed import init_dist_strategy
    from ludwig.globals import set_disable_progressbar
    from ludwig.trainers.registry import get_trainers_registry
    from ray.train.torch import get_device

    from pneumo.pipeline.ludwig.cluster.parallel import DataParallel, EvaluationSet, InParallel
    from pneumo.pipeline.ludwig.cluster.worker_callback import WorkerCallback
    from pneumo.pipeline.ludwig.pixel_backend import PixelDataset

    init_dist_strategy("local")  # metrics then gather over torch.distributed by themselves
    set_disable_progressbar(True)  # type: ignore[no-untyped-call]
    for name, content in task.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    device = get_device()
    trainer_class = type("ParallelTrainer", (InParallel, get_trainers_registry()[task.model.type()]), {})
    trainer = trainer_class(
        config=task.config,
        model=task.model.to(device),
        resume=bool(task.files),
        skip_save_log=True,
        callbacks=[
            WorkerCallback(Run(folder), task.label, task.seed, rank, outbox),
            *(task.callbacks if rank == 0 else ()),
        ],
        random_seed=task.seed,
        distributed=DataParallel(),
        device=str(device),
    )
    model, *metrics = trainer.train(
        PixelDataset(task.data["training"], task.features, None),  # type: ignore[no-untyped-call]
        EvaluationSet(task.data["validation"], task.features, None),  # type: ignore[no-untyped-call]
        save_path=MODEL,  # below the working folder, which each worker has its own of
    )
    return ({name: tensor.cpu() for name, tensor in model.state_dict().items()}, *metrics)


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """A working folder for this worker: Ludwig gives all of them the first one's path to save to, a relative one.

    It lies in the one that Ray gives, so that it goes with the cluster where the worker is killed.
    """
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="pneumo-", dir=before) as name:
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)
