"""The driver's side: a backend for Ludwig that trains on workers and does all else here. Loads Ludwig."""

import copy
import json
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable
from typing import Any, NoReturn

import ray
import ray.train
from ludwig.trainers.base import BaseTrainer
from ludwig.trainers.registry import get_trainers_registry
from ray import cloudpickle
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue

from pneumo.pipeline.ludwig import checkpoints
from pneumo.pipeline.ludwig.callback import TrainingCallback
from pneumo.pipeline.ludwig.cluster.messages import Message
from pneumo.pipeline.ludwig.cluster.placement import FOLDER_PREFIX, Placement
from pneumo.pipeline.ludwig.cluster.worker import MODEL, Task, run_worker
from pneumo.pipeline.ludwig.pixel_backend import PixelBackend
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import atomic_path

PROGRESS = f"{MODEL}/training_progress.json"
POLL = 0.5
"""Seconds after which a wait for a message looks whether the workers are still there."""


class WorkersFailedError(Exception):
    """Training ended on the workers: why, in a line."""


class ClusterBackend(PixelBackend):
    """A local backend but for the training loop."""

    def __init__(self, run: Run, placement: Placement) -> None:
        super().__init__()
        self.run = run
        self.placement = placement

    def create_trainer(  # type: ignore[override]
        self, config: Any, model: Any, **options: Any
    ) -> "ClusterTrainer":
        """A trainer that hands its work out."""
        return ClusterTrainer(self.run, self.placement, config, model, **options)


class ClusterTrainer(BaseTrainer):
    """Hands the training loop to workers, keeps their checkpoints, and takes the best weights back."""

    def __init__(
        self,
        run: Run,
        placement: Placement,
        config: Any,
        model: Any,
        *,
        callbacks: list[Any],
        random_seed: int,
        **_: Any,
    ) -> None:
        self.run = run
        self.placement = placement
        self.config = config
        self.model = model
        self.seed = random_seed
        self.own = [callback for callback in callbacks if isinstance(callback, TrainingCallback)]
        self.others = [callback for callback in callbacks if not isinstance(callback, TrainingCallback)]
        self.batch_size = config.batch_size
        self.eval_batch_size = config.eval_batch_size
        self.gradient_accumulation_steps = config.gradient_accumulation_steps

    @staticmethod
    def get_schema_cls() -> Any:
        """The settings are those of Ludwig's own trainer."""
        return get_trainers_registry()["ecd"].get_schema_cls()

    @property
    def validation_field(self) -> str:
        """The label."""
        return str(self.config.validation_field)

    @property
    def validation_metric(self) -> str:
        """What the best epoch is chosen by."""
        return str(self.config.validation_metric)

    def train_online(self, dataset: Any) -> None:
        """Not on a cluster."""
        raise NotImplementedError

    def tune_batch_size(self, *_: Any, **__: Any) -> int:
        """Configs state both batch sizes."""
        raise NotImplementedError

    def train(
        self, training_set: Any, validation_set: Any = None, test_set: Any = None, save_path: str = MODEL, **_: Any
    ) -> tuple[Any, ...]:
        """Train on the workers.

        Returns:
            The model with its best weights, and metrics of training, validation and test by round.

        Raises:
            InputError: A batch or the validation split cannot be shared out.
            WorkersFailedError: A worker died or failed.
        """
        if len(validation_set) < self.placement.number:
            raise InputError(
                f"{len(validation_set)} validation images for {self.placement.number} workers: give each at least one"
            )
        config = copy.copy(self.config)
        config.batch_size = self.placement.share("trainer.batch_size", self.batch_size)
        task = Task(
            model=self.model,
            config=config,
            data={"training": training_set.dataset, "validation": validation_set.dataset},
            features=training_set.features,
            label=self.validation_field,
            seed=self.seed,
            callbacks=self.others,
            files=_checkpoint(self.run, self.placement),
        )
        queue = Queue(actor_options={"num_cpus": 0})
        fitting = _Fitting({"task": ray.put(task), "queue": queue}, self.placement)
        result = None
        try:
            while result is None:
                ended = fitting.ended()
                try:
                    result = self._take(cloudpickle.loads(queue.get(timeout=POLL)))
                except Empty:
                    if ended:
                        fitting.fail()
            fitting.finish()
        finally:
            fitting.clean()
        weights, *metrics = result
        self.model.load_state_dict(weights)
        return (self.model, *metrics)

    def _take(self, message: Message) -> tuple[Any, ...] | None:
        if message.log:
            with self.run.log.open("a", encoding="utf-8") as log:
                log.write(message.log)
        for name, sent in message.files.items():
            path = self.run.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as partial:  # checkpoints that are kept are links to the one before
                partial.write_bytes(_with_batch(sent, self.placement.whole) if name == PROGRESS else sent)
        if message.files:
            checkpoints.keep_checkpoint(self.run, message.step)
        if message.progress:
            for callback in self.own:
                callback.reporter.step(message.progress)
        return message.result


def _checkpoint(run: Run, placement: Placement) -> dict[str, bytes]:
    """The files that a resumed run goes on from; none for a new one.

    Raises:
        InputError: The batch that the run had reached cannot be shared out.
    """
    progress = run.folder / PROGRESS
    if not progress.is_file():
        return {}
    paths = [progress, *(run.model / "training_checkpoints").glob("*.ckpt*"), run.history]
    files = {str(path.relative_to(run.folder)): path.read_bytes() for path in paths if path.is_file()}
    files[PROGRESS] = _with_batch(files[PROGRESS], lambda size: placement.share("the run's batch", size))
    return files


def _with_batch(progress: bytes, change: Callable[[int], int]) -> bytes:
    """Ludwig's progress with another batch size.

    Workers write down, and resume with, their share; the run has the whole, since it may go on with other workers.
    """
    known = json.loads(progress)
    known["batch_size"] = change(known["batch_size"])
    return json.dumps(known, indent=4).encode()


class _Fitting:
    """Ray Train at work in a thread: in the main thread it would take Ctrl-C to itself."""

    def __init__(self, settings: dict[str, Any], placement: Placement) -> None:
        self.placement = placement
        self.error: BaseException | None = None
        # nothing of ours is kept there
        self.storage = tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir="/tmp")
        resources = {"CPU": placement.cpus} | ({"GPU": placement.gpus} if placement.use_gpu else {})
        hidden = {} if placement.use_gpu else {"CUDA_VISIBLE_DEVICES": ""}
        self.trainer = TorchTrainer(
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
                storage_path=self.storage,
                worker_runtime_env={"env_vars": {"RAY_USAGE_STATS_ENABLED": "0", **hidden}},
            ),
        )
        self.thread = threading.Thread(target=self._run, name="ray-train", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.trainer.fit()
        except BaseException as error:
            self.error = error

    def ended(self) -> bool:
        """Whether the workers have ended, well or not."""
        return not self.thread.is_alive()

    def finish(self) -> None:
        """Wait until the workers have ended.

        Raises:
            WorkersFailedError: One failed.
        """
        self.thread.join()
        if self.error is not None:
            self.fail()

    def clean(self) -> None:
        """Remove Ray Train's folder, after an interrupt too."""
        shutil.rmtree(self.storage, ignore_errors=True)

    def fail(self) -> NoReturn:
        """Say why the workers ended.

        Raises:
            WorkersFailedError: Always.
        """
        raise WorkersFailedError(reason(self.error, self.placement.number)) from self.error


def reason(error: BaseException | None, workers: int) -> str:
    """Why the workers failed, in a line: of several failures the one that the others follow from."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    for rank, failure in failures.items():
        # Ray Train notices a death as a health check that failed, and wraps what it saw.
        if isinstance(getattr(failure, "health_check_failure", failure), ray.exceptions.RayActorError):
            return f"worker {rank + 1} of {workers} died (killed, out of memory, or its machine is gone)"
    for rank, failure in failures.items():
        text = (str(failure).strip() or type(failure).__name__).splitlines()[-1][:300]
        if "closed by peer" not in text or len(failures) == 1:
            return f"worker {rank + 1} of {workers}: {text}"
    return str(error).strip().splitlines()[-1][:300] if error else "the workers ended without a result"
