"""Live progress of training and of downloads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pneumo.pipeline.cli.output import ConsoleReporter, say, stderr

if TYPE_CHECKING:
    from pneumo.pipeline.runs.reporter import Step


class TrainingProgress(ConsoleReporter):
    """Shows a training as a context: a bar on a terminal, one line per epoch elsewhere."""

    def __enter__(self) -> "TrainingProgress":
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = stderr()
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metric]}"),
        )
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("training", total=None, epoch=0, metric="", visible=False)
        self.rounds = 0
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def step(self, step: "Step") -> None:
        """Show a step."""
        metric = "" if step.validation is None else f"validation {step.metric} {step.validation:.4f}"
        self.bar.update(self.task, completed=step.step, total=step.total, epoch=step.epoch, metric=metric, visible=True)
        if not self.bar.console.is_terminal and step.rounds != self.rounds:
            self.rounds = step.rounds
            say(f"epoch {step.epoch}, step {step.step} of {step.total}, {metric}")


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """What a download reports its bytes to: a bar on a terminal, a line every tenth elsewhere."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = stderr()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tenths = 0

    def report(done: int, total: int | None) -> None:
        nonlocal tenths
        bar.update(task, completed=done, total=total)
        if not console.is_terminal and total and (reached := 10 * done // total) != tenths:
            tenths = reached
            say(f"{name}: {done:,} of {total:,} bytes")

    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        yield report
