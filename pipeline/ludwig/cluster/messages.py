"""Messages from the first worker of a cluster to the driver. Loads neither Ludwig nor, before one is sent, Ray."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.pipeline.ludwig import checkpoints
from pneumo.pipeline.runs.reporter import Reporter, Step
from pneumo.pipeline.runs.run import Run

if TYPE_CHECKING:
    import torch
    from ray.util.queue import Queue

Result = tuple[dict[str, "torch.Tensor"], list[object]]
"""Weights, and metrics of training, validation and test by round."""

MIN_INTERVAL = 0.2  # seconds between two progress reports: each is a message to the driver


@dataclass(frozen=True)
class Message:
    """A message from the first worker to the driver."""

    progress: Step | None = None
    files: dict[str, bytes] = field(default_factory=dict)  # new files of the run folder, by path
    step: int = 0  # with `files`, the checkpoint of this step is complete
    log: str = ""  # Ludwig's, since the last message
    result: Result | None = None


class Outbox(Reporter):
    """Sends progress, changed files, the log and the result to the driver."""

    def __init__(self, run: Run, log: Path, queue: "Queue") -> None:
        super().__init__()
        self.run = run
        self.log = log
        self.queue = queue
        self.sent: dict[str, tuple[int, int]] = {}
        self.logged = 0
        self.reported = (0.0, -1)

    def step(self, step: Step) -> None:
        """Send progress, unless the last report was just now."""
        now = time.monotonic()
        if now - self.reported[0] >= MIN_INTERVAL or step.rounds != self.reported[1] or step.step == step.total:
            self.reported = (now, step.rounds)
            self._put(Message(progress=step))

    def checkpoint(self, step: int) -> None:
        """Send the checkpoint that Ludwig has just written."""
        files = {}
        for path in checkpoints.list_files(self.run):
            name, stat = str(path.relative_to(self.run.folder)), path.stat()
            version = (stat.st_mtime_ns, stat.st_ino)
            if self.sent.get(name) != version:
                self.sent[name] = version
                files[name] = path.read_bytes()
        self._put(Message(files=files, step=step, log=self._read_log()))

    def send(self, result: Result | None = None) -> None:
        """Send the end of the log and, if training succeeded, the result."""
        self._put(Message(log=self._read_log(), result=result))

    def _put(self, message: Message) -> None:
        from ray import cloudpickle

        # as bytes, so that the queue's process need not load Ludwig
        self.queue.put(cloudpickle.dumps(message))  # type: ignore[no-untyped-call]

    def _read_log(self) -> str:
        with self.log.open("r", encoding="utf-8", errors="replace") as file:
            file.seek(self.logged)
            text = file.read()
            self.logged = file.tell()
        return text
