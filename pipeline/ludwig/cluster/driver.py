"""The driver of a cluster training: a backend for Ludwig that trains on workers. Importing this loads Ludwig."""

import copy
import json
import os
import tempfile
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray
import ray.train
from ludwig.schema.trainer import ECDTrainerConfig
from ludwig.trainers.base import BaseTrainer
from ray import cloudpickle
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue

from pneumo.pipeline.ludwig import checkpoints
from pneumo.pipeline.ludwig.callback import TrainingCallback
from pneumo.pipeline.ludwig.cluster.messages import Message, Result
from pneumo.pipeline.ludwig.cluster.placement import FOLDER_PREFIX, Placement
from pneumo.pipeline.ludwig.cluster.worker import MODEL, Task, run_worker
from pneumo.pipeline.ludwig.pixel_backend import PixelBackend, PixelDataset
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import atomic_path

if TYPE_CHECKING:
    from ludwig.callbacks import Callback
    from ludwig.models.ecd import ECD

PROGRESS = f"{MODEL}/training_progress.json"
POLL_INTERVAL = 0.5  # seconds to wait for a message before checking that the workers are alive


class WorkersFailedError(Exception):
    """Training failed on the workers; the message is the reason in one line."""


class ClusterBackend(PixelBackend):
    """A local backend, except for the training loop."""

    def __init__(self, run: Run, placement: Placement) -> None:
        super().__init__()
        self.run = run
        self.placement = placement

    def create_trainer(  # type: ignore[override]
        self, config: ECDTrainerConfig, model: "ECD", *, callbacks: "list[Callback]", random_seed: int, **_: object
    ) -> "ClusterTrainer":
        """Return a trainer that trains on workers."""
        return ClusterTrainer(self.run, self.placement, config, model, callbacks, random_seed)


@dataclass(eq=False)
class ClusterTrainer(BaseTrainer):
    """Runs the training loop on workers, keeps their checkpoints, and loads the best weights."""

    run: Run
    placement: Placement
    config: ECDTrainerConfig
    model: "ECD"
    callbacks: "list[Callback]"
    seed: int

    def __post_init__(self) -> None:
        self.batch_size = self.config.batch_size
        self.eval_batch_size = self.config.eval_batch_size
        self.gradient_accumulation_steps = self.config.gradient_accumulation_steps

    @staticmethod
    def get_schema_cls() -> type[ECDTrainerConfig]:  # type: ignore[override]
        """Return the settings of Ludwig's own trainer."""
        return ECDTrainerConfig

    @property
    def validation_field(self) -> str:
        """Name of the label."""
        return str(self.config.validation_field)

    @property
    def validation_metric(self) -> str:
        """Metric that chooses the best epoch."""
        return str(self.config.validation_metric)

    def train_online(self, dataset: object) -> None:
        """Refuse: a cluster does not train online."""
        raise NotImplementedError

    def tune_batch_size(self, *_: object, **__: object) -> int:
        """Refuse: configs state both batch sizes."""
        raise NotImplementedError

    def train(  # type: ignore[override]
        self, training_set: PixelDataset, validation_set: PixelDataset, *_: object, **__: object
    ) -> tuple[object, ...]:
        """Train on the workers.

        Returns:
            The model with its best weights, and metrics of training, validation and test by round.

        Raises:
            InputError: A batch or the validation split cannot be shared among the workers.
            WorkersFailedError: A worker died or failed.
        """
        if len(validation_set) < self.placement.number:
            raise InputError(
                f"{len(validation_set)} validation images for {self.placement.number} workers; "
                "use at most one worker per validation image"
            )
        config = copy.copy(self.config)
        config.batch_size = self.placement.share("trainer.batch_size", int(self.batch_size))
        task = Task(
            model=self.model,
            config=config,
            data={"training": training_set.dataset, "validation": validation_set.dataset},
            features=training_set.features,
            label=self.validation_field,
            seed=self.seed,
            callbacks=[each for each in self.callbacks if not isinstance(each, TrainingCallback)],
            files=_read_checkpoint(self.run, self.placement),
        )
        queue = Queue(actor_options={"num_cpus": 0})
        # Ray Train's folder; none of pneumo's files are in it
        folder = tempfile.TemporaryDirectory(
            prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir="/tmp", ignore_cleanup_errors=True
        )
        with folder as storage:
            fitting = _fit_in_thread({"task": ray.put(task), "queue": queue}, self.placement, storage)
            result = None
            while result is None:
                has_ended = fitting.done()
                try:
                    result = self._receive(cloudpickle.loads(queue.get(timeout=POLL_INTERVAL)))
                except Empty:
                    if has_ended:
                        break
            error = fitting.exception()  # waits until the workers have ended
        if error or result is None:
            raise WorkersFailedError(find_reason(error, self.placement.number)) from error
        weights, metrics = result
        self.model.load_state_dict(weights)
        return (self.model, *metrics)

    def _receive(self, message: Message) -> Result | None:
        if message.log:
            with self.run.log.open("a", encoding="utf-8") as log:
                log.write(message.log)
        for name, content in message.files.items():
            if name == PROGRESS:
                content = _change_batch_size(content, lambda share: share * self.placement.number)
            path = self.run.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as partial:  # the kept checkpoint has hard links to the file before
                partial.write_bytes(content)
        if message.files:
            checkpoints.keep_checkpoint(self.run, message.step)
        if message.progress:
            for callback in self.callbacks:
                if isinstance(callback, TrainingCallback):
                    callback.reporter.step(message.progress)
        return message.result


def _read_checkpoint(run: Run, placement: Placement) -> dict[str, bytes]:
    """Read the files that a resumed run continues from; none for a new run."""
    files = {str(path.relative_to(run.folder)): path.read_bytes() for path in checkpoints.list_files(run)}
    if PROGRESS not in files:
        return {}
    files[PROGRESS] = _change_batch_size(files[PROGRESS], lambda size: placement.share("the run's batch", size))
    return files


def _change_batch_size(progress: bytes, change: Callable[[int], int]) -> bytes:
    """Return Ludwig's progress file with another batch size.

    Workers store their share, while the run stores the whole batch, since it may resume with other workers.
    """
    values = json.loads(progress)
    values["batch_size"] = change(values["batch_size"])
    return json.dumps(values, indent=4).encode()


def _fit_in_thread(settings: dict[str, object], placement: Placement, storage: str) -> Future[None]:
    """Run Ray Train in a thread: in the main thread it would handle Ctrl-C itself."""
    resources = {"CPU": placement.cpus} | ({"GPU": placement.gpus} if placement.use_gpu else {})
    hidden = {} if placement.use_gpu else {"CUDA_VISIBLE_DEVICES": ""}
    trainer = TorchTrainer(
        run_worker,
        train_loop_config=settings,
        scaling_config=ray.train.ScalingConfig(
            num_workers=placement.number,
            use_gpu=placement.use_gpu,
            resources_per_worker=resources,
            placement_strategy="PACK" if placement.use_gpu else "SPREAD",
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]
            name=uuid.uuid4().hex[:8],
            storage_path=storage,
            worker_runtime_env={"env_vars": {"RAY_USAGE_STATS_ENABLED": "0", **hidden}},
        ),
    )
    future: Future[None] = Future()

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=fit, name="ray-train", daemon=True).start()
    return future


def find_reason(error: BaseException | None, workers: int) -> str:
    """Return why the workers failed, in one line: of several failures the one that caused the others."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for rank, failure in failures.items():
        # Ray Train reports a death as a failed health check, and wraps the error.
        if isinstance(getattr(failure, "health_check_failure", failure), ray.exceptions.RayActorError):
            return f"worker {rank + 1} of {workers} died (killed, out of memory, or its machine is gone)"
    for rank, failure in failures.items():
        text = (str(failure).strip() or type(failure).__name__).splitlines()[-1][:300]
        if "closed by peer" not in text or len(failures) == 1:
            return f"worker {rank + 1} of {workers}: {text}"
    return str(error).strip().splitlines()[-1][:300] if error else "the workers ended without a result"
