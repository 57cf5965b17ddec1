"""pneumo's part of Ludwig's training loop, as a Ludwig callback. Importing this loads Ludwig."""

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ludwig.callbacks import Callback
from ludwig.constants import LOGITS, TRAINING, VALIDATION
from ludwig.utils.metric_utils import TrainerMetric
from ludwig.utils.output_feature_utils import get_feature_concat_name

from pneumo.pipeline.ludwig import checkpoints
from pneumo.pipeline.ludwig.inference import BATCH
from pneumo.pipeline.ludwig.trainer_speed import RoundMetrics, use_channels_last, use_fused_optimizer
from pneumo.pipeline.runs.history import find_label_type, name_metric, name_metrics, read_history, write_history
from pneumo.pipeline.runs.reporter import SILENT, Reporter, Step
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.process_state import set_handler
from pneumo.serving.images.types import Gray

if TYPE_CHECKING:
    from ludwig.utils.trainer_utils import ProgressTracker

    from pneumo.pipeline.ludwig.feature_cache import FeatureCache
    from pneumo.pipeline.ludwig.protocols import EpochMetric, Trainer


class TrainingCallback(Callback):
    """Reports progress, writes learning curves, stops on signals, resumes the schedule, and speeds up training.

    With `epoch_metric` it measures that at the end of each epoch, and Ludwig chooses the best epoch by it.
    """

    def __init__(
        self,
        run: Run,
        feature: str,
        reporter: Reporter = SILENT,
        epoch_metric: "EpochMetric | None" = None,
        cache: "FeatureCache | None" = None,
    ) -> None:
        self.run = run
        self.feature = feature
        self.reporter = reporter
        self.epoch_metric = epoch_metric
        self.cache = cache
        self.began = time.perf_counter()
        self.reported_step = 0
        self.rounds: list[dict[str, Any]] = []
        self.schedule_restored = False
        self.stopping = False
        self.metrics: RoundMetrics | None = None

    def on_trainer_train_setup(self, trainer: "Trainer", save_path: str, is_coordinator: bool, **_: object) -> None:
        """Speed up the trainer, and handle SIGINT and SIGTERM instead of Ludwig."""
        self.began = time.perf_counter()
        use_channels_last(trainer)
        self.metrics = RoundMetrics(trainer)
        if self.cache:
            self.cache.connect(trainer, self.stop_on_signal)
        set_handler(self.stop)
        if self.epoch_metric:
            trainer._validation_metric = self.epoch_metric.name

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Stop before the next batch, so that no checkpoint is cut in two; on the second signal stop at once."""
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True

    def on_batch_start(self, trainer: "Trainer", progress_tracker: "ProgressTracker", *_: object, **__: object) -> None:
        """Stop here if there was a signal."""
        self.stop_on_signal()

    def stop_on_signal(self) -> None:
        """Stop here if there was a signal."""
        if self.stopping:
            raise KeyboardInterrupt

    def on_checkpoint(self, trainer: "Trainer", progress_tracker: "ProgressTracker", **_: object) -> None:
        """Keep the checkpoint that Ludwig has just finished, and report the round that it completes."""
        step = progress_tracker.steps
        checkpoints.keep_checkpoint(self.run, step)
        # Ludwig writes a second checkpoint at the end of an epoch
        if self.rounds and self.rounds[-1]["step"] == step and step != self.reported_step:
            self.reported_step = step
            self.reporter.round(self.rounds[-1], time.perf_counter() - self.began)

    def on_epoch_start(self, trainer: "Trainer", progress_tracker: "ProgressTracker", *_: object, **__: object) -> None:
        """Restore the schedule and the evaluated rounds of a resumed run."""
        if self.metrics:
            self.metrics.batches = []  # Ludwig resets its metrics at the start of an epoch
        if self.schedule_restored:
            return
        self.schedule_restored = True
        use_fused_optimizer(trainer)
        if progress_tracker.steps > 0:
            replay_schedule(trainer, progress_tracker)
            self.rounds = [entry for entry in read_history(self.run) if entry["step"] <= progress_tracker.steps]

    def on_batch_end(self, trainer: "Trainer", progress_tracker: "ProgressTracker", *_: object, **__: object) -> None:
        """Report progress."""
        measured = progress_tracker.validation_metrics.get(self.feature, {})
        metric = name_metric(trainer.validation_metric, find_label_type(measured))
        latest = self.rounds[-1]["validation"].get(metric) if self.rounds else None
        done = (progress_tracker.steps, trainer.total_steps, progress_tracker.epoch, len(self.rounds))
        self.reporter.step(Step(*done, f"validation/{metric}", latest))

    def on_eval_start(self, *_: object, **__: object) -> None:
        """Complete Ludwig's training metrics before it reads them."""
        if self.metrics:
            self.metrics.flush()

    def on_validation_end(
        self, trainer: "Trainer", progress_tracker: "ProgressTracker", *_: object, **__: object
    ) -> None:
        """Add the epoch metric to Ludwig's metrics of the validation split, before Ludwig looks for the best epoch."""
        if self.epoch_metric is None:
            return
        rounds = progress_tracker.validation_metrics[self.feature]
        latest = {name: float(values[-1][-1]) for name, values in rounds.items() if values}
        with evaluation_mode(trainer.model):
            measured = self.epoch_metric.measure(latest, partial(predict_logit, trainer, self.feature))
        for name, value in measured.items():
            rounds.setdefault(name, []).append(
                TrainerMetric(epoch=progress_tracker.epoch, step=progress_tracker.steps, value=value)
            )

    def on_eval_end(self, trainer: "Trainer", progress_tracker: "ProgressTracker", *_: object, **__: object) -> None:
        """Write the learning curves and report progress."""
        entry = {
            "epoch": progress_tracker.epoch,
            "step": progress_tracker.steps,
            "time": round(time.time(), 3),
            "learning_rate": progress_tracker.learning_rate,
            "train": self._read_latest(progress_tracker.train_metrics),
            "validation": self._read_latest(progress_tracker.validation_metrics),
        }
        self.rounds = [*(earlier for earlier in self.rounds if earlier["step"] < entry["step"]), entry]
        write_history(self.run, self.rounds)
        self.on_batch_end(trainer, progress_tracker)

    def _read_latest(self, metrics: dict[str, dict[str, list[Any]]]) -> dict[str, float]:
        values = {name: float(rounds[-1][-1]) for name, rounds in metrics.get(self.feature, {}).items() if rounds}
        return {name: value for name, value in name_metrics(values).items() if math.isfinite(value)}


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Evaluate a network without gradients; afterwards it trains again if it did before."""
    trains = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(trains)


def predict_logit(trainer: "Trainer", label: str, images: Sequence[Gray]) -> Float64:
    """Return the logit [N] of the positive class of model inputs, uint8 [H, W, C], from a network in training."""
    (image,), key = trainer.model.input_features, get_feature_concat_name(label, LOGITS)
    logits = []
    for start in range(0, len(images), BATCH):
        pixels = torch.from_numpy(np.stack(images[start : start + BATCH])).permute(0, 3, 1, 2).to(trainer.device)
        logits.append(trainer.model({image: pixels.float() / 255})[key].reshape(-1).double().cpu().numpy())
    return np.concatenate(logits)


def replay_schedule(trainer: "Trainer", progress_tracker: "ProgressTracker") -> None:
    """Bring the learning-rate schedule of a resumed trainer to the step it had reached.

    Ludwig restores weights and optimizer but starts the schedule anew. A schedule depends only on the number of steps
    and, with `reduce_on_plateau`, on the metric history. Both are stored, so stepping through them restores it.
    """
    scheduler, config = trainer.scheduler, trainer.config.learning_rate_scheduler
    splits = {TRAINING: progress_tracker.train_metrics, VALIDATION: progress_tracker.validation_metrics}
    metrics = splits.get(config.reduce_eval_split, progress_tracker.test_metrics)
    rounds = metrics.get(trainer.validation_field, {}).get(config.reduce_eval_metric, [])
    evaluated = {int(entry[1]): float(entry[-1]) for entry in rounds}  # entries are (epoch, step, value)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step.*")
        for step in range(1, progress_tracker.steps + 1):
            scheduler.step()
            if scheduler._eval_scheduler is not None and step in evaluated:
                scheduler._eval_scheduler.step(evaluated[step])
