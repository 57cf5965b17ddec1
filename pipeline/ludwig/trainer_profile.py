"""The part of `--profile` that sits in Ludwig's trainer. Importing this loads Ludwig."""

from collections.abc import Callable
from typing import Any

import torch
from ludwig.callbacks import Callback
from torch.profiler import ProfilerAction, ProfilerActivity

from pneumo.pipeline.runs.training_profile import OPERATORS, STEPS, Operator, Profile

_PARTS = {
    "_forward_pass": "forward",
    "_backward_pass": "backward",
    "_optimizer_step": "optimizer",
    "run_evaluation": "evaluate",
    "_has_nan_or_inf_weights": "evaluate",  # once a round, over every weight several times
    "save_checkpoint": "checkpoint",
}
"""Methods of Ludwig's trainer, and the part that their time belongs to."""
_RECORDING = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
_STEP = "ProfilerStep"
"""How the profiler names the range of a step."""


class ProfilingCallback(Callback):
    """Times the trainer's methods and traces a few steps after the first, which are slower."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.watch = profile.watch
        self.profiler: torch.profiler.profile | None = None

    def on_trainer_train_setup(self, trainer: Any, save_path: str, is_coordinator: bool, **_: Any) -> None:
        """Wrap what is timed, on this trainer alone."""
        self.watch.end("prepare")
        trainer._forward_pass = self._counted(trainer._forward_pass)
        for name, part in _PARTS.items():
            setattr(trainer, name, self._timed(getattr(trainer, name), part))
        create = trainer.create_checkpoint_handle

        def create_timed(*arguments: Any, **options: Any) -> Any:
            checkpoint = create(*arguments, **options)
            checkpoint.save = self._timed(checkpoint.save, "checkpoint")  # the best weights are saved while evaluating
            return checkpoint

        trainer.create_checkpoint_handle = create_timed

    def _counted(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def counted(inputs: Any, targets: dict[str, torch.Tensor], *arguments: Any, **options: Any) -> Any:
            self.profile.images += len(next(iter(targets.values())))
            return forward(inputs, targets, *arguments, **options)

        return counted

    def _timed(self, method: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            _wait_for_gpu()
            self.watch.end("data")  # a batch is there once it goes forward
            with self.watch.part(part):
                result = method(*arguments, **options)
                _wait_for_gpu()
            return result

        return timed

    def on_epoch_start(self, trainer: Any, progress_tracker: Any, save_path: str, **_: Any) -> None:
        """Start the profiler before the first step."""
        if self.profiler is None:
            left = max(1, trainer.total_steps - progress_tracker.steps)
            active = min(STEPS, left)
            warmup = min(1, left - active)
            skipped = min(2, left - active - warmup)
            self.profiler = torch.profiler.profile(
                activities=_activities(),
                schedule=torch.profiler.schedule(skip_first=skipped, wait=0, warmup=warmup, active=active, repeat=1),
                on_trace_ready=self._keep_trace,
            )
            self.profiler.start()

    def on_batch_start(self, trainer: Any, progress_tracker: Any, save_path: str, **_: Any) -> None:
        """From here on a batch is made."""
        self.watch.begin("data")

    def on_batch_end(
        self, trainer: Any, progress_tracker: Any, save_path: str, sync_step: bool = True, **_: Any
    ) -> None:
        """Count the step."""
        self.watch.end("data")
        self.profile.steps += 1
        if self.profiler is not None:
            self.profile.traced_steps += self.profiler.current_action in _RECORDING
            self.profiler.step()

    def on_trainer_train_teardown(
        self, trainer: Any, progress_tracker: Any, save_path: str, is_coordinator: bool, **_: Any
    ) -> None:
        """Called at an interrupt too: keep the steps traced so far."""
        if self.profiler is not None:
            self.profiler.stop()

    def _keep_trace(self, profiler: torch.profiler.profile) -> None:
        self.profile.folder.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(self.profile.folder / "trace.json.gz"))
        rows = profiler.key_averages()
        operators = [row for row in rows if row.self_cpu_time_total > 0 and not row.key.startswith(_STEP)]
        total = sum(row.self_cpu_time_total for row in operators)
        operators.sort(key=lambda row: row.self_cpu_time_total, reverse=True)
        self.profile.operators = [
            Operator(row.key, row.count, row.self_cpu_time_total / 1e3, row.self_cpu_time_total / total)
            for row in operators[:OPERATORS]
        ]


def _activities() -> list[ProfilerActivity]:
    on_gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return [ProfilerActivity.CPU, *on_gpu]


def _wait_for_gpu() -> None:
    """A GPU computes while Python goes on: wait for it, or its time counts as another part's."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
