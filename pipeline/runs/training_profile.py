"""Where the time of a training goes: `pneumo train --profile`.

`profile/trace.json.gz` in the run folder is a PyTorch profiler trace of a few steps, for chrome://tracing or
ui.perfetto.dev; `profile/summary.txt` and `summary.json` say what share each part of the whole command took.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.files import write_text

PARTS = (
    ("read", "reading images"),
    ("load", "loading Ludwig"),
    ("prepare", "building data set and network"),
    ("data", "batches and augmentation"),
    ("forward", "forward and loss"),
    ("backward", "backward"),
    ("optimizer", "clipping and optimizer"),
    ("evaluate", "evaluating each round"),
    ("checkpoint", "checkpoints"),
    ("predict", "predicting all images"),
    ("report", "metrics and report"),
    ("other", "anything else"),
)
"""Every part of a training and what it is called in the table. No two overlap; `other` makes up the sum."""

STEPS = 4
"""Steps in the trace."""
OPERATORS = 10


@dataclass(frozen=True)
class Operator:
    """One of torch's operators in the traced steps.

    Attributes:
        name: Such as `aten::mkldnn_convolution`.
        calls: How often it ran.
        milliseconds: On CPU, without the operators that it called; `share` of all operators.
    """

    name: str
    calls: int
    milliseconds: float
    share: float


@dataclass(frozen=True)
class Summary:
    """Where the time went.

    Attributes:
        seconds: By part, in the order of `PARTS`; they add up to the wall time.
        steps: Training steps taken.
        images_per_second: In the training steps alone, from batch to optimizer.
        traced_steps: How many of them are in the trace.
        operators: Those that took most time in the traced steps.
    """

    seconds: dict[str, float]
    steps: int
    images_per_second: float | None
    traced_steps: int
    operators: list[Operator]

    def text(self) -> str:
        """A table for a person."""
        total = sum(self.seconds.values())
        lines = [f"{'part':<32}{'seconds':>9}{'share':>8}"]
        for name, label in PARTS:
            lines.append(f"{label:<32}{self.seconds[name]:>9.2f}{self.seconds[name] / total:>8.1%}")
        lines.append(f"{'total':<32}{total:>9.2f}")
        if self.images_per_second is not None:
            lines.append(f"{self.steps} steps, {self.images_per_second:.1f} images/s in them")
        if self.operators:
            lines += ["", f"{f'operator ({self.traced_steps} steps)':<48}{'calls':>7}{'CPU, ms':>10}{'share':>8}"]
            for row in self.operators:
                lines.append(f"{row.name[:47]:<48}{row.calls:>7}{row.milliseconds:>10.1f}{row.share:>8.1%}")
        return "\n".join(lines) + "\n"


class Stopwatch:
    """Seconds by part, each without the parts inside it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self.open = ["other"]
        self.since = clock()

    def _charge(self) -> None:
        now = self.clock()
        self.seconds[self.open[-1]] = self.seconds.get(self.open[-1], 0.0) + now - self.since
        self.since = now

    def begin(self, part: str) -> None:
        """From here on time is this part's."""
        self._charge()
        self.open.append(part)

    def end(self, part: str) -> None:
        """Back to the part around it; nothing happens where the part is not the innermost."""
        self._charge()
        if self.open[-1] == part and len(self.open) > 1:
            self.open.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block; parts left open inside it, by an interrupt, end with it."""
        self.begin(name)
        depth = len(self.open)
        try:
            yield
        finally:
            self._charge()
            del self.open[depth - 1 :]

    def stopped(self) -> dict[str, float]:
        """Seconds so far of every part in `PARTS`."""
        self._charge()
        return {name: self.seconds.get(name, 0.0) for name, _ in PARTS}


_STAGES = {"read": "read", "load": "load", "train": "prepare", "predict": "predict", "evaluate": "report"}
"""Stages of a training (`durations` in `run.json`), and the part that each begins with."""


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
        """Time a stage of the training; inside `train` the callback tells the parts."""
        with self.watch.part(_STAGES[name]):
            yield

    def summary(self) -> Summary:
        """What is known so far."""
        seconds = self.watch.stopped()
        in_steps = sum(seconds[name] for name in ("data", "forward", "backward", "optimizer"))
        rate = self.images / in_steps if self.steps and in_steps else None
        return Summary(seconds, self.steps, rate, self.traced_steps, self.operators)

    def write(self) -> Summary:
        """Write `summary.json` and `summary.txt`; an interrupted training has them as well."""
        summary = self.summary()
        self.folder.mkdir(exist_ok=True)
        write_text(self.folder / "summary.json", json.dumps(asdict(summary), indent=1) + "\n")
        write_text(self.folder / "summary.txt", summary.text())
        return summary
