"""`pneumo train --profile`: PyTorch's profiler over a few steps of Ludwig's trainer. Importing this loads Ludwig.

`profile/trace.json.gz` in the run folder is for chrome://tracing or ui.perfetto.dev, `profile/summary.txt` has the
parts of a step and the profiler's table of what took most time. The seconds of the stages around the training stand in
`run.json`.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from ludwig.callbacks import Callback
from torch.profiler import ProfilerActivity, record_function

if TYPE_CHECKING:
    from ludwig.utils.trainer_utils import ProgressTracker

    from pneumo.pipeline.ludwig.protocols import Trainer

STEPS = 4
"""Steps in the trace."""
ROWS = 20
"""Rows of the table."""

PARTS = {"_forward_pass": "forward", "_backward_pass": "backward", "_optimizer_step": "clipping and optimizer"}
"""Name in the profile of a method of the trainer; what lies before the first is `BATCH`."""
BATCH = "batch and augmentation"


class ProfilingCallback(Callback):
    """Traces a few steps after the first ones, which are slower, and names the parts of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.profiler: torch.profiler.profile | None = None
        self.batch = ExitStack()

    def on_trainer_train_setup(self, trainer: "Trainer", save_path: str, is_coordinator: bool, **_: object) -> None:
        """Wrap the named methods of this trainer."""
        for name, part in PARTS.items():
            setattr(trainer, name, self._name(getattr(trainer, name), part))

    def _name[**P, R](self, method: Callable[P, R], part: str) -> Callable[P, R]:
        def named(*arguments: P.args, **options: P.kwargs) -> R:
            self.batch.close()  # the batch is complete once it goes forward
            with record_function(part):
                return method(*arguments, **options)

        return named

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
        """Name the making of a batch from here on."""
        self.batch.enter_context(record_function(BATCH))

    def on_batch_end(self, *_: object, **__: object) -> None:
        """Count the step."""
        self.batch.close()
        if self.profiler is not None:
            self.profiler.step()

    def on_trainer_train_teardown(self, *_: object, **__: object) -> None:
        """Keep the steps traced so far; Ludwig calls this on an interrupt too."""
        self.batch.close()
        if self.profiler is not None:
            self.profiler.stop()

    def _write_trace(self, profiler: torch.profiler.profile) -> None:
        self.folder.mkdir(exist_ok=True)
        profiler.export_chrome_trace(str(self.folder / "trace.json.gz"))
        averages = profiler.key_averages()
        took = {each.key: each.cpu_time_total / each.count / 1000 for each in averages}  # milliseconds
        parts = [f"{part} {took.get(part, 0.0):.2f} ms" for part in (BATCH, *PARTS.values())]
        table = averages.table(sort_by="cpu_time_total", row_limit=ROWS, max_name_column_width=40)
        text = f"Parts of a step, in the mean: {', '.join(parts)}\n{table}"
        (self.folder / "summary.txt").write_text(text, encoding="utf-8")
