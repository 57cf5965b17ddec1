"""What each worker of a cluster runs. Ray Train imports this on the workers; Ludwig is loaded when work begins."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumo.pipeline.ludwig import runtime
from pneumo.pipeline.runs.run import Run

if TYPE_CHECKING:
    from pneumo.pipeline.ludwig.callback import Step

EVERY = 0.2
"""Seconds between two progress reports at least: each is a message to the driver."""
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


@dataclass(frozen=True)
class Message:
    """From the first worker to the driver.

    Attributes:
        progress: How far training is.
        files: Files of the run folder that are new, by path; with them a checkpoint of `step` is whole.
        log: What Ludwig logged since the last message.
        result: What Ludwig's trainer returned: weights and metrics.
    """

    progress: "Step | None" = None
    files: dict[str, bytes] = field(default_factory=dict)
    step: int = 0
    log: str = ""
    result: tuple[Any, ...] | None = None


def work(settings: dict[str, Any]) -> None:
    """Train as one worker of several.

    Args:
        settings: `task`, a reference to a `Task`, and `queue`, which takes messages to the driver.
    """
    with _own_folder() as folder:
        log = folder / "train.log"
        with runtime.logged(log):
            runtime.load()
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


def _train(task: Task, folder: Path, rank: int, outbox: "Outbox | None") -> tuple[Any, ...]:
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


class Outbox:
    """Sends the driver what it needs to know, and files that have changed since it last had them."""

    def __init__(self, run: Run, log: Path, queue: Any) -> None:
        self.run = run
        self.log = log
        self.queue = queue
        self.sent: dict[str, tuple[int, int]] = {}
        self.logged = 0
        self.reported = (0.0, -1)

    def progress(self, step: "Step") -> None:
        """Send how far training is, if it was not sent just now."""
        now = time.monotonic()
        if now - self.reported[0] >= EVERY or step.rounds != self.reported[1] or step.step == step.total:
            self.reported = (now, step.rounds)
            self._put(Message(progress=step))

    def checkpoint(self, step: int) -> None:
        """Send the checkpoint that Ludwig has just written."""
        files = {}
        model = self.run.model
        for path in (
            *sorted(model.glob("training_checkpoints/*.ckpt*")),
            model / "training_progress.json",
            self.run.history,
        ):
            if path.is_file():
                name, stat = str(path.relative_to(self.run.folder)), path.stat()
                version = (stat.st_mtime_ns, stat.st_ino)
                if self.sent.get(name) != version:
                    self.sent[name] = version
                    files[name] = path.read_bytes()
        self._put(Message(files=files, step=step, log=self._new_log()))

    def send(self, *, result: tuple[Any, ...] | None = None) -> None:
        """Send the log's end and, where there is one, the result."""
        self._put(Message(log=self._new_log(), result=result))

    def _put(self, message: Message) -> None:
        from ray import cloudpickle

        # bytes: whoever keeps the queue must not load Ludwig to hold them
        self.queue.put(cloudpickle.dumps(message))  # type: ignore[no-untyped-call]

    def _new_log(self) -> str:
        with self.log.open("r", encoding="utf-8", errors="replace") as file:
            file.seek(self.logged)
            text = file.read()
            self.logged = file.tell()
        return text


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
