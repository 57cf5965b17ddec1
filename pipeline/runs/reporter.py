"""Progress of a command."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pneumo.serving.contracts.quantities import format_duration

LONG = 2.0
"""Seconds above which a command tells how long it took."""


@dataclass(frozen=True)
class Step:
    """Progress of a training: what is done of `total` steps; `validation` is the latest value of `metric`, if any.

    `metric` has its full name, such as `validation/auroc`.
    """

    step: int
    total: int
    epoch: int
    rounds: int
    metric: str
    validation: float | None


@contextmanager
def timed(title: str, write: Callable[[str], object]) -> Iterator[None]:
    """Write how long something took if it took more than `LONG` seconds and did not fail."""
    began = time.perf_counter()
    yield
    if (seconds := time.perf_counter() - began) >= LONG:
        write(f"{title}: {format_duration(seconds)}")


class Reporter:
    """Receives the progress of a command; subclasses override what they show. `write`, if given, gets each message."""

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write = write

    def message(self, text: str) -> None:
        """Receive one line of progress."""
        if self._write:
            self._write(text)

    def warning(self, text: str) -> None:
        """Receive a problem that does not stop the command; on standard error if messages are dropped."""
        if self._write:
            self._write(text)
        else:
            print(text, file=sys.stderr)

    @contextmanager
    def waiting(self, title: str) -> Iterator[None]:
        """Receive the start and the duration of something whose progress is unknown."""
        self.message(f"{title} ...")
        with timed(title, self.message):
            yield

    def step(self, step: Step) -> None:
        """Receive the progress of a training."""

    def round(self, entry: dict[str, Any], seconds: float) -> None:
        """Receive an entry of `history.json` once its checkpoint is complete; `seconds` since training began."""


SILENT = Reporter()
"""Drops all messages."""
