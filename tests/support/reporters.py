"""Reporters that record or interrupt a training."""

import os
import signal
from collections.abc import Callable

from pneumo.pipeline.runs.reporter import Reporter, Step
from pneumo.pipeline.sweep.record import Sweep
from pneumo.pipeline.sweep.reporter import SweepReporter


class RecordingReporter(Reporter):
    """Keeps messages, and the number of every step."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.steps: list[int] = []
        super().__init__(self.messages.append)

    def step(self, step: Step) -> None:
        self.steps.append(step.step)


class StopAt(Reporter):
    """Sends this process SIGINT after a number of steps."""

    def __init__(self, stop: int) -> None:
        super().__init__()
        self.stop = stop

    def step(self, step: Step) -> None:
        if step.step == self.stop:
            os.kill(os.getpid(), signal.SIGINT)


class UpdateReporter(SweepReporter):
    """Calls a function with each update of a sweep."""

    def __init__(self, receive: Callable[[Sweep, float], None]) -> None:
        super().__init__()
        self.receive = receive

    def update(self, sweep: Sweep, now: float) -> None:
        self.receive(sweep, now)
