"""The part of `--profile` inside Ludwig's trainer. Importing this loads Ludwig."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from ludwig.callbacks import Callback
from torch.profiler import ProfilerAction, ProfilerActivity

from pneumo.pipeline.runs.training_profile import OPERATORS, STEPS, Operator, Profile

if TYPE_CHECKING:
    from ludwig.utils.trainer_utils import ProgressTracker

    from pneumo.pipeline.ludwig.protocols import Trainer

_PARTS = {
    "_forward_pass": "forward",
    "_backward_pass": "backward",
    "_optimizer_step": "optimizer",
    "run_evaluation": "evaluate",
    "_has_nan_or_inf_weights": "evaluate",  # once per round, over every weight several times
    "save_checkpoint": "checkpoint",
}
"""Part of the profile that the time of a trainer's method belongs to."""


class ProfilingCallback(Callback):
    """Times the trainer's methods, and traces a few steps after the first ones, which are slower."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.watch = profile.watch
        self.profiler: torch.profiler.profile | None = None

    def on_trainer_train_setup(self, trainer: "Trainer", save_path: str, is_coordinator: bool, **_: object) -> None:
        """Wrap the timed methods of this trainer."""
        self.watch.end("prepare")
        forward, create = trainer._forward_pass, trainer.create_checkpoint_handle

        def count_images(inputs: object, targets: dict[str, torch.Tensor], *arguments: object) -> object:
            self.profile.images += len(next(iter(targets.values())))
            return forward(inputs, targets, *arguments)

        def create_timed_checkpoint() -> object:
            checkpoint = create()
            checkpoint.save = self._time(checkpoint.save, "checkpoint")  # the best weights are saved while evaluating
            return checkpoint

        trainer._forward_pass = count_images
        trainer.create_checkpoint_handle = create_timed_checkpoint
        for name, part in _PARTS.items():
            setattr(trainer, name, self._time(getattr(trainer, name), part))

    def _time[**P, R](self, method: Callable[P, R], part: str) -> Callable[P, R]:
        def timed(*arguments: P.args, **options: P.kwargs) -> R:
            _wait_for_gpu()
            self.watch.end("data")  # the batch is complete once it goes forward
            with self.watch.part(part):
                result = method(*arguments, **options)
                _wait_for_gpu()
            return result

        return timed

    def on_epoch_start(self, trainer: "Trainer", progress_tracker: "ProgressTracker", *_: object, **__: object) -> None:
        """Start the profiler before the first step."""
        if self.profiler is None:
            left = max(1, trainer.total_steps - progress_tracker.steps)
            active = min(STEPS, left)
            warmup = min(1, left - active)
            skipped = min(2, left - active - warmup)
            on_gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self.profiler = torch.profiler.profile(
                activities=[ProfilerActivity.CPU, *on_gpu],
                schedule=torch.profiler.schedule(skip_first=skipped, wait=0, warmup=warmup, active=active, repeat=1),
                on_trace_ready=self._write_trace,
            )
            self.profiler.start()

    def on_batch_start(self, *_: object, **__: object) -> None:
        """Time the making of a batch from here on."""
        self.watch.begin("data")

    def on_batch_end(self, *_: object, **__: object) -> None:
        """Count the step."""
        self.watch.end("data")
        self.profile.steps += 1
        if self.profiler is not None:
            recording = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
            self.profile.traced_steps += self.profiler.current_action in recording
            self.profiler.step()

    def on_trainer_train_teardown(self, *_: object, **__: object) -> None:
        """Keep the steps traced so far; Ludwig calls this on an interrupt too."""
        if self.profiler is not None:
            self.profiler.stop()

    def _write_trace(self, profiler: torch.profiler.profile) -> None:
        self.profile.folder.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(self.profile.folder / "trace.json.gz"))
        rows = [
            (row.key, row.count, row.self_cpu_time_total / 1e3)
            for row in profiler.key_averages()
            if row.self_cpu_time_total > 0 and not row.key.startswith("ProfilerStep")
        ]
        rows.sort(key=lambda row: row[2], reverse=True)
        total = sum(milliseconds for _, _, milliseconds in rows)
        self.profile.operators = [Operator(*row, row[2] / total) for row in rows[:OPERATORS]]


def _wait_for_gpu() -> None:
    """Wait for the GPU, which computes while Python goes on; else its time would count for another part."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
