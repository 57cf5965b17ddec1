"""Time profile of a training: `pneumo train --profile`.

`profile/trace.json.gz` in the run folder is a PyTorch profiler trace of a few steps, for chrome://tracing or
ui.perfetto.dev; `profile/summary.txt` and `summary.json` hold the share of each part of the whole command.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.files import write_text

PARTS = {
    "read": "reading images",
    "load": "loading Ludwig",
    "prepare": "building data set and network",
    "data": "batches and augmentation",
    "forward": "forward and loss",
    "backward": "backward",
    "optimizer": "clipping and optimizer",
    "evaluate": "evaluating each round",
    "checkpoint": "checkpoints",
    "predict": "predicting all images",
    "report": "metrics and report",
    "other": "anything else",
}
"""Label of each part of a training. No two parts overlap; `other` is the rest of the time."""

STEPS = 4
"""Steps in the trace."""
OPERATORS = 10

_STAGES = {"read": "read", "load": "load", "train": "prepare", "predict": "predict", "evaluate": "report"}
"""First part of each stage of a training (`durations` in `run.json`)."""


@dataclass(frozen=True)
class Operator:
    """An operator of torch in the traced steps, with its time on CPU without the operators that it called."""

    name: str
    calls: int
    milliseconds: float
    share: float


class Stopwatch:
    """Seconds by part, each without the parts inside it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.open = ["other"]
        self.since = clock()

    def _charge(self) -> None:
        now = self.clock()
        self.seconds[self.open[-1]] += now - self.since
        self.since = now

    def begin(self, part: str) -> None:
        """Begin a part inside the present one."""
        self._charge()
        self.open.append(part)

    def end(self, part: str) -> None:
        """End a part if it is the innermost one."""
        self._charge()
        if self.open[-1] == part and len(self.open) > 1:
            self.open.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block; parts that an interrupt left open inside it end with it."""
        self.begin(name)
        depth = len(self.open)
        try:
            yield
        finally:
            self._charge()
            del self.open[depth - 1 :]

    def stopped(self) -> dict[str, float]:
        """Return the seconds so far of each part."""
        self._charge()
        return dict(self.seconds)


class Profile:
    """The profile of one training command: a stopwatch from its start, and a trace of a few steps."""

    def __init__(self, run: Run) -> None:
        self.folder = run.folder / "profile"
        self.watch = Stopwatch()
        self.steps = 0
        self.images = 0
        self.traced_steps = 0
        self.operators: list[Operator] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of the training; inside `train` the callback names the parts."""
        with self.watch.part(_STAGES[name]):
            yield

    def write(self) -> None:
        """Write `summary.json` and `summary.txt`; an interrupted training has them as well."""
        seconds = self.watch.stopped()
        in_steps = sum(seconds[name] for name in ("data", "forward", "backward", "optimizer"))
        rate = self.images / in_steps if self.steps and in_steps else None
        document = {
            "seconds": seconds,
            "steps": self.steps,
            "images_per_second": rate,  # in the training steps alone, from batch to optimizer
            "traced_steps": self.traced_steps,
            "operators": [asdict(operator) for operator in self.operators],
        }
        self.folder.mkdir(exist_ok=True)
        write_text(self.folder / "summary.json", json.dumps(document, indent=1) + "\n")
        write_text(self.folder / "summary.txt", self._format(seconds, rate))

    def _format(self, seconds: dict[str, float], rate: float | None) -> str:
        """Return the summary as a table."""
        total = sum(seconds.values())
        lines = [f"{'part':<32}{'seconds':>9}{'share':>8}"]
        lines += [f"{PARTS[name]:<32}{part:>9.2f}{part / total:>8.1%}" for name, part in seconds.items()]
        lines.append(f"{'total':<32}{total:>9.2f}")
        if rate is not None:
            lines.append(f"{self.steps} steps, {rate:.1f} images/s in them")
        if self.operators:
            lines += ["", f"{f'operator ({self.traced_steps} steps)':<48}{'calls':>7}{'CPU, ms':>10}{'share':>8}"]
            for row in self.operators:
                lines.append(f"{row.name[:47]:<48}{row.calls:>7}{row.milliseconds:>10.1f}{row.share:>8.1%}")
        return "\n".join(lines) + "\n"
