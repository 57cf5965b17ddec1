"""The callback of a worker: that of a local run, with the driver at the end of a queue. Importing this loads Ludwig."""

from typing import Any

from ludwig.utils.misc_utils import set_random_seed

from pneumo.pipeline.ludwig.callback import TrainingCallback
from pneumo.pipeline.ludwig.cluster.messages import Outbox
from pneumo.pipeline.runs.reporter import SILENT
from pneumo.pipeline.runs.run import Run


class WorkerCallback(TrainingCallback):
    """On the first worker sends progress and checkpoints; on each replays a resumed schedule and draws its own luck."""

    def __init__(self, run: Run, feature: str, seed: int, rank: int, outbox: Outbox | None) -> None:
        super().__init__(run, feature, outbox or SILENT)
        self.seed = seed
        self.rank = rank
        self.outbox = outbox

    def on_epoch_start(self, trainer: Any, progress_tracker: Any, save_path: str, **_: Any) -> None:
        """Seed workers apart: dropout and augmentation would else draw alike on each."""
        if not self.schedule_restored and self.rank > 0:
            set_random_seed((self.seed + self.rank) % 2**32)
        super().on_epoch_start(trainer, progress_tracker, save_path)

    def on_checkpoint(self, trainer: Any, progress_tracker: Any, **_: Any) -> None:
        """Send the checkpoint that Ludwig has just finished."""
        if self.outbox:
            self.outbox.checkpoint(progress_tracker.steps)

    def on_eval_end(self, trainer: Any, progress_tracker: Any, save_path: str, **_: Any) -> None:
        """Write the learning curves, where they are sent from."""
        if self.outbox:
            super().on_eval_end(trainer, progress_tracker, save_path)
