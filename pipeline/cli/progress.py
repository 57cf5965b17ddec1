"""Progress on standard error: a bar on a terminal, single lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pneumo.pipeline.cli.output import say, stderr
from pneumo.pipeline.runs.reporter import Reporter, timed

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from pneumo.pipeline.runs.reporter import Step


def _make_progress(*columns: "ProgressColumn") -> "Progress":
    from rich.progress import Progress

    console = stderr()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@dataclass(frozen=True)
class CountBar:
    """A bar that counts items."""

    progress: "Progress"

    def advance(self, count: int = 1) -> None:
        """Count more items."""
        self.progress.advance(self.progress.task_ids[0], count)

    def set_count(self, count: int) -> None:
        """Set the number of items done."""
        self.progress.update(self.progress.task_ids[0], completed=count)

    def begin(self, title: str) -> None:
        """Count one item and show the title of the next."""
        self.progress.update(self.progress.task_ids[0], advance=1, description=title)
        if self.progress.disable:
            say(title)


@contextmanager
def count_bar(description: str, total: int) -> Iterator[CountBar]:
    """Show a bar that counts up to `total`; without a terminal print one line at the start."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    text, times = TextColumn("{task.description}", markup=False), (TimeElapsedColumn(), TimeRemainingColumn())
    with timed(description, say), _make_progress(text, BarColumn(), MofNCompleteColumn(), *times) as progress:
        if progress.disable:
            say(f"{description} ...")
        progress.add_task(description, total=total)
        yield CountBar(progress)


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function that shows the bytes done and in all; without a terminal it prints a line per tenth."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    tenths = 0

    def report(done: int, total: int | None) -> None:
        nonlocal tenths
        progress.update(task, completed=done, total=total)
        if progress.disable and total and (reached := 10 * done // total) != tenths:
            tenths = reached
            say(f"{name}: {done:,} of {total:,} bytes")

    with _make_progress(TextColumn("{task.description}", markup=False), *columns) as progress:
        task = progress.add_task(name, total=None)
        yield report


class ConsoleReporter(Reporter):
    """Prints messages, and on a terminal the time that something takes whose progress is unknown."""

    def __init__(self) -> None:
        super().__init__(say)

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        """Show a clock meanwhile, between a line at the start and one at the end."""
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.description}", markup=False)
        with super().waiting(title), _make_progress(SpinnerColumn(), text, TimeElapsedColumn()) as progress:
            progress.add_task(title, total=None)
            yield


class TrainingProgress(ConsoleReporter):
    """A context that shows a training: a bar on a terminal, one line per epoch elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0

    def __enter__(self) -> Self:
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.progress = _make_progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metric]}"),
        )
        self.task = self.progress.add_task("training", total=None, epoch=0, metric="", visible=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def step(self, step: "Step") -> None:
        """Show a step."""
        self.progress.start()  # not before, since only one display can be live
        metric = "" if step.validation is None else f"{step.metric} {step.validation:.3f}"
        self.progress.update(
            self.task, completed=step.step, total=step.total, epoch=step.epoch, metric=metric, visible=True
        )
        if self.progress.disable and step.rounds != self.rounds:
            self.rounds = step.rounds
            say(f"epoch {step.epoch}, step {step.step} of {step.total}, {metric}")
