"""The bare limit, in a process of its own: file bytes, prepared, through ONNX Runtime, with no service around.

As a script it reads one JSON object a line (`Task`) and answers each with a line.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.predictor import Predictor


@dataclass(frozen=True)
class Task:
    """Work for one process.

    Attributes:
        folder: JPEG files.
        batch: Images that go through the network at once.
        judge: Whether to say what the outputs mean as well, as a service must.
        seconds: How long.
    """

    folder: str
    batch: int
    judge: bool
    seconds: float


@dataclass(frozen=True)
class Done:
    """Results of a task.

    Attributes:
        latencies: Seconds of each batch.
        images: How many there were.
        seconds: Of wall time.
        processor_s: Seconds of processor time.
        probabilities: Of the positive class for each file, where it was judged.
    """

    latencies: list[float]
    images: int
    seconds: float
    processor_s: float
    probabilities: list[float]


class Bare:
    """A process that runs tasks one by one and sleeps in between."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, task: Task) -> Done:
        assert self._process.stdin
        print(json.dumps(asdict(task)), file=self._process.stdin, flush=True)
        return Done(**self._said())

    def probabilities(self, folder: Path) -> list[float]:
        """Return the model's probabilities for each file of a folder."""
        return self.run(Task(str(folder), batch=1, judge=True, seconds=0)).probabilities

    def _said(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the bare limit does not run; what it said stands above")
        said: dict[str, Any] = json.loads(line)
        return said


@contextlib.contextmanager
def running(bundle: Path, cores: set[int]) -> Iterator[Bare]:
    """Load a bundle in a process on some cores."""
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, __file__, str(bundle), *(str(core) for core in sorted(cores))]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        bare = Bare(process)
        bare._said()
        yield bare
        assert process.stdin
        process.stdin.close()


def work(predictor: Predictor, task: Task) -> Done:
    images = [path.read_bytes() for path in sorted(Path(task.folder).iterdir())]
    known = predictor.predict([predictor.prepare(data) for data in images]) if task.judge else []
    latencies, number = [], 0
    began, used = time.perf_counter(), time.process_time()
    while (now := time.perf_counter()) < began + task.seconds:
        chosen = [images[(number + index) % len(images)] for index in range(task.batch)]
        number += task.batch
        inputs = np.stack([predictor.prepare(data) for data in chosen])
        if task.judge:
            predictor.interpret_outputs(predictor.run(inputs), elapsed_ms=0)
        else:
            predictor._session.run(["logits", "embedding"], {"image": inputs})
        latencies.append(time.perf_counter() - now)
    return Done(
        latencies=latencies,
        images=number,
        seconds=time.perf_counter() - began,
        processor_s=time.process_time() - used,
        probabilities=[each.probability for each in known],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("cores", type=int, nargs="*")
    options = parser.parse_args()
    if options.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, options.cores)
    predictor = Predictor(Bundle.open(options.bundle), threads=1)
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(work(predictor, Task(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
