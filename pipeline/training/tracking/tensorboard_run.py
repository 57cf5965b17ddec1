"""TensorBoard: event files in the run's folder. Ludwig's own log is not used: see docs/architecture.md."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pneumo.pipeline.runs.settings import flatten_settings
from pneumo.pipeline.training.tracking.interface import Artifact, Plot, TrackedRun, TrackerRun

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

FOLDER = "tensorboard"


def begin(place: str, tracked: TrackedRun, folder: Path, warn: Callable[[str], None]) -> "TensorBoardRun":
    """Begin event files in `tensorboard/` of a run's folder; a resumed run writes its rounds anew, from its history."""
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    run, config = TensorBoardRun(folder / FOLDER), tracked.describe()
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    run.write_text("config", "".join(f"    {line}\n" for line in text.splitlines()))  # code in Markdown
    chosen = flatten_settings(config.get("parameters") or config.get("trainer") or {})
    scalars = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in chosen.items()}
    run.write(hparams_pb(scalars, trial_id=tracked.name))
    return run


class TensorBoardRun(TrackerRun):
    """The event files of a run, for `tensorboard --logdir runs`."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder))

    def write(self, summary: "Summary", step: int = 0, moment: float | None = None) -> None:
        """Write a summary."""
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time() if moment is None else moment, step=step, summary=summary))
        self._writer.flush()

    def write_text(self, tag: str, markdown: str) -> None:
        """Write a text in Markdown."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        self.write(text_pb(tag, markdown))

    def log(self, values: Mapping[str, float], step: int, moment: float) -> None:
        """Write a scalar for each value."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self.write(Summary(value=scalars), step, moment)

    def draw(self, plots: Sequence[Plot]) -> None:
        """Write a table for each curve."""
        for plot in plots:
            rows = [f"| {x:.6g} | {y:.6g} |" for x, y in plot.thin()]
            self.write_text(f"plots/{plot.title}", "\n".join((f"| {plot.x} | {plot.y} |", "|---|---|", *rows)))

    def keep(self, artifact: Artifact) -> None:
        """Do nothing: event files hold no models."""

    def finish(self, metrics: Mapping[str, float], status: str) -> None:
        """Write the final metrics behind the last round, and close the file."""
        self.log(metrics, max(self.last_step, 0), time.time())
        self.write_text("status", status)
        self._writer.close()
