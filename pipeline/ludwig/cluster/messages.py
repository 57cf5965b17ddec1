"""Messages from the first worker of a cluster to the driver. Loads neither Ludwig nor, before one is sent, Ray."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pneumo.pipeline.runs.reporter import Reporter, Step
from pneumo.pipeline.runs.run import Run

EVERY = 0.2
"""Seconds between two progress reports at least: each is a message to the driver."""


@dataclass(frozen=True)
class Message:
    """From the first worker to the driver.

    Attributes:
        progress: How far training is.
        files: Files of the run folder that are new, by path; with them a checkpoint of `step` is whole.
        log: What Ludwig logged since the last message.
        result: What Ludwig's trainer returned: weights and metrics.
    """

    progress: Step | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    step: int = 0
    log: str = ""
    result: tuple[Any, ...] | None = None


class Outbox(Reporter):
    """Sends the driver what it needs to know, and files that have changed since it last had them."""

    def __init__(self, run: Run, log: Path, queue: Any) -> None:
        super().__init__()
        self.run = run
        self.log = log
        self.queue = queue
        self.sent: dict[str, tuple[int, int]] = {}
        self.logged = 0
        self.reported = (0.0, -1)

    def step(self, step: Step) -> None:
        """Send how far training is, if it was not sent just now."""
        now = time.monotonic()
        if now - self.reported[0] >= EVERY or step.rounds != self.reported[1] or step.step == step.total:
            self.reported = (now, step.rounds)
            self._put(Message(progress=step))

    def checkpoint(self, step: int) -> None:
        """Send the checkpoint that Ludwig has just written."""
        files = {}
        model = self.run.model
        for path in (
            *sorted(model.glob("training_checkpoints/*.ckpt*")),
            model / "training_progress.json",
            self.run.history,
        ):
            if path.is_file():
                name, stat = str(path.relative_to(self.run.folder)), path.stat()
                version = (stat.st_mtime_ns, stat.st_ino)
                if self.sent.get(name) != version:
                    self.sent[name] = version
                    files[name] = path.read_bytes()
        self._put(Message(files=files, step=step, log=self._new_log()))

    def send(self, *, result: tuple[Any, ...] | None = None) -> None:
        """Send the log's end and, where there is one, the result."""
        self._put(Message(log=self._new_log(), result=result))

    def _put(self, message: Message) -> None:
        from ray import cloudpickle

        # bytes: whoever keeps the queue must not load Ludwig to hold them
        self.queue.put(cloudpickle.dumps(message))  # type: ignore[no-untyped-call]

    def _new_log(self) -> str:
        with self.log.open("r", encoding="utf-8", errors="replace") as file:
            file.seek(self.logged)
            text = file.read()
            self.logged = file.tell()
        return text
