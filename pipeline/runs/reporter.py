"""What a training reports while it runs, and whether experiment tracking gets it too."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True)
class Step:
    """How far training is, after a step or after an evaluation round.

    Attributes:
        step: Steps done; `total` steps in all.
        epoch: Epochs done.
        rounds: Evaluation rounds done.
        validation: The latest metric that the best model is chosen by, once there is one; `metric` is its name.
    """

    step: int
    total: int
    epoch: int
    rounds: int
    metric: str
    validation: float | None


class Reporter:
    """Receives the progress of a command; subclasses override what they show.

    Args:
        write: Called with each message, such as `print`; without it messages are dropped.
    """

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write = write

    def message(self, text: str) -> None:
        """Receive one line about what happens."""
        if self._write:
            self._write(text)

    def warning(self, text: str) -> None:
        """Receive a problem that does not stop the command; on standard error if messages are dropped."""
        if self._write:
            self._write(text)
        else:
            print(text, file=sys.stderr)

    def step(self, step: Step) -> None:
        """Receive how far training is, after a step or an evaluation round."""

    def round(self, entry: dict[str, Any], seconds: float) -> None:
        """Receive an evaluation round once its checkpoint is complete.

        Args:
            entry: The entry of `history.json`.
            seconds: Since training began.
        """


SILENT = Reporter()
"""Reports nothing."""


class TrackingMode(StrEnum):
    """Where tracking goes."""

    ONLINE = "online"
    OFFLINE = "offline"
    """Into the run's folder; `wandb sync` sends it later."""
    DISABLED = "disabled"
