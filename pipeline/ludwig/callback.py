"""What pneumo adds to Ludwig's training loop, through Ludwig's callback interface. Importing this loads Ludwig."""

import json
import math
import signal
import threading
import time
import warnings
from types import FrameType
from typing import Any

from ludwig.callbacks import Callback
from ludwig.constants import TRAINING, VALIDATION

from pneumo.pipeline.ludwig import checkpoints
from pneumo.pipeline.ludwig.trainer_speed import RoundMetrics, use_channels_last, use_fused_optimizer
from pneumo.pipeline.runs.reporter import SILENT, Reporter, Step
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.files import write_text


class TrainingCallback(Callback):
    """Reports progress, writes learning curves, lets Ctrl-C through, resumes the schedule, and saves time."""

    def __init__(
        self,
        run: Run,
        feature: str,
        reporter: Reporter = SILENT,
    ) -> None:
        self.run = run
        self.began = time.perf_counter()
        self.told = 0
        self.history = run.history
        self.feature = feature
        self.reporter = reporter
        self.rounds: list[dict[str, Any]] = []
        self.schedule_restored = False
        self.stopping = False
        self.metrics: RoundMetrics | None = None

    def on_trainer_train_setup(self, trainer: Any, save_path: str, is_coordinator: bool, **_: Any) -> None:
        """Ludwig just took SIGINT to itself; take it back, and let SIGTERM stop in the same way."""
        self.began = time.perf_counter()
        use_channels_last(trainer)
        self.metrics = RoundMetrics(trainer)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self.stop)
            signal.signal(signal.SIGTERM, self.stop)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Stop before the next batch, so that no checkpoint is cut in two; at the second signal stop at once."""
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True

    def on_batch_start(self, trainer: Any, progress_tracker: Any, save_path: str, **_: Any) -> None:
        """Stop here if a signal asked for it."""
        if self.stopping:
            raise KeyboardInterrupt

    def on_checkpoint(self, trainer: Any, progress_tracker: Any, **_: Any) -> None:
        """Keep the checkpoint that Ludwig has just finished, and tell of the round that it completes."""
        checkpoints.keep_checkpoint(self.run, progress_tracker.steps)
        step = progress_tracker.steps
        complete = self.rounds and self.rounds[-1]["step"] == step and step != self.told
        if complete:  # Ludwig checkpoints a second time at the end of an epoch
            self.told = step
            self.reporter.round(self.rounds[-1], time.perf_counter() - self.began)

    def on_epoch_start(self, trainer: Any, progress_tracker: Any, save_path: str, **_: Any) -> None:
        """Bring a resumed run's schedule to where it was, and keep the rounds evaluated before."""
        if self.metrics:
            self.metrics.drop()
        if self.schedule_restored:
            return
        self.schedule_restored = True
        use_fused_optimizer(trainer)
        if progress_tracker.steps > 0:
            replay_schedule(trainer, progress_tracker)
            if self.history.is_file():
                earlier = json.loads(self.history.read_text(encoding="utf-8"))
                self.rounds = [entry for entry in earlier if entry["step"] <= progress_tracker.steps]

    def on_batch_end(
        self, trainer: Any, progress_tracker: Any, save_path: str, sync_step: bool = True, **_: Any
    ) -> None:
        """Report progress."""
        self._report(trainer, progress_tracker)

    def _report(self, trainer: Any, progress_tracker: Any) -> None:
        metric = trainer.validation_metric
        latest = self.rounds[-1]["validation"].get(metric) if self.rounds else None
        done = (progress_tracker.steps, trainer.total_steps, progress_tracker.epoch, len(self.rounds))
        self.reporter.step(Step(*done, metric, latest))

    def on_eval_start(self, trainer: Any, progress_tracker: Any, save_path: str, **_: Any) -> None:
        """Let Ludwig find its training metrics complete."""
        if self.metrics:
            self.metrics.flush()

    def on_eval_end(self, trainer: Any, progress_tracker: Any, save_path: str, **_: Any) -> None:
        """Write the learning curves."""
        entry = {
            "epoch": progress_tracker.epoch,
            "step": progress_tracker.steps,
            "learning_rate": progress_tracker.learning_rate,
            "train": self._latest(progress_tracker.train_metrics),
            "validation": self._latest(progress_tracker.validation_metrics),
        }
        self.rounds = [*(known for known in self.rounds if known["step"] < entry["step"]), entry]
        write_text(self.history, json.dumps(self.rounds, indent=1, allow_nan=False) + "\n")
        self._report(trainer, progress_tracker)

    def _latest(self, metrics: dict[str, dict[str, list[Any]]]) -> dict[str, float]:
        values = {name: rounds[-1][-1] for name, rounds in metrics.get(self.feature, {}).items() if rounds}
        return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def replay_schedule(trainer: Any, progress_tracker: Any) -> None:
    """Bring the learning-rate schedule of a resumed trainer to the step it had reached.

    Ludwig restores weights and optimizer but starts the schedule anew. Schedules depend only on the number of steps,
    and on the metric history where the rate falls on a plateau: both are known, so stepping through them restores it.
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
