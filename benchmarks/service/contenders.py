"""Servers that answer for the same model, each a group of processes on cores of its own."""

import contextlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service.load import Target

from pneumo.serving.model.bundle import Bundle

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
START_S = 180
STOP_S = 20
_LOOK_S = 0.01


@dataclass(frozen=True)
class Contender:
    """A server under test: command, request and reader of its answer.

    Attributes:
        name: In tables.
        command: With `{port}` where the port goes.
        path: Route that predicts.
        ready: Route that answers 200 once it can.
        media_type: Of a raw body, where it takes one.
        form_field: Of a form, where it takes that.
        probability: Reads the calibrated probability of the positive class out of an answer.
        environment: Variables that it needs.
        folder: Where it runs.
    """

    name: str
    command: tuple[str, ...]
    path: str
    ready: str
    probability: Callable[[str], float]
    media_type: str | None = None
    form_field: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path = ROOT

    def target(self, port: int) -> Target:
        return Target(port, self.path, self.media_type, self.form_field)


def pneumo(bundle: Path, folder: Path, *, workers: int = 1, threads: int = 1, log: bool = False) -> Contender:
    """pneumo itself.

    Args:
        bundle: What it serves.
        folder: Where it runs, and leaves its prediction log.
        workers: Processes.
        threads: Of each network.
        log: Whether it keeps a prediction log, as it does unless told not to; nobody else has one.
    """
    shape = f"{workers} worker{'s' * (workers > 1)} x {threads} thread{'s' * (threads > 1)}"
    return Contender(
        name=f"pneumo, {shape}{', prediction log' * log}",
        command=(
            *_entry("pneumo.pipeline.cli"),
            "serve",
            "--model",
            f"{bundle}/",
            "--port",
            "{port}",
            *["--no-log"] * (not log),
        ),
        path="/v1/predict",
        ready="/readyz",
        probability=lambda body: float(json.loads(body)["predictions"][0]["probability"]),
        media_type="image/jpeg",
        environment={"PNEUMO_WORKERS": str(workers), "PNEUMO_THREADS": str(threads)},
        folder=folder,
    )


def ludwig(run: Path, bundle: Path) -> Contender:
    """`ludwig serve` with the model that the bundle was made of."""
    info = Bundle.open(bundle).info

    def probability(body: str) -> float:
        answer = json.loads(body)
        (name,) = (key for key in answer if key.endswith(f"_probabilities_{info.positive_class}"))
        raw = min(max(answer[name], 1e-9), 1 - 1e-9)
        logit = math.log(raw / (1 - raw))
        return 1 / (1 + math.exp(-logit / info.temperature))

    return Contender(
        name="ludwig serve",
        command=(*_entry("ludwig.cli"), "serve", "-m", str(run / "model"), "-p", "{port}", "-H", "127.0.0.1"),
        path="/predict",
        ready="/",
        probability=probability,
        form_field="image",
        environment={"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
    )


def litserve(python: Path, bundle: Path) -> Contender:
    return Contender(
        name="LitServe",
        command=(str(python), str(HERE / "litserve_app.py"), str(bundle), "{port}"),
        path="/predict",
        ready="/health",
        probability=lambda body: float(json.loads(body)["probability"]),
        form_field="file",
        environment={"PYTHONPATH": str(ROOT)},
    )


def bentoml(python: Path, bundle: Path, home: Path) -> Contender:
    return Contender(
        name="BentoML",
        command=(str(python), "-m", "bentoml", "serve", "bentoml_app:Served", "--port", "{port}"),
        path="/predict",
        ready="/readyz",
        probability=lambda body: float(json.loads(body)[0]["probability"]),
        form_field="images",
        environment={
            "PYTHONPATH": str(ROOT),
            "BUNDLE": str(bundle),
            "BENTOML_HOME": str(home),
            "BENTOML_DO_NOT_TRACK": "true",
        },
        folder=HERE,
    )


def has(python: Path, package: str) -> bool:
    """Return whether another Python can import a package."""
    return subprocess.run([python, "-c", f"import {package}"], capture_output=True, check=False).returncode == 0


@dataclass
class Server:
    """A contender that runs.

    Attributes:
        contender: What it is.
        port: Where it listens.
        started_s: From the start of its process to its first 200 on the ready route.
    """

    contender: Contender
    port: int
    started_s: float
    _process: subprocess.Popen[bytes]

    @property
    def target(self) -> Target:
        return self.contender.target(self.port)

    @contextlib.contextmanager
    def awake(self) -> Iterator["Server"]:
        """Run meanwhile; otherwise it is stopped, so that it takes nothing from who is measured."""
        self._signal(signal.SIGCONT)
        try:
            yield self
        finally:
            self._signal(signal.SIGSTOP)

    def memory(self) -> list[tuple[int, int]]:
        """Resident bytes, now and at most so far, of each process with a network, largest first."""
        found = [_memory(pid) for pid in _family(self._process.pid)]
        return sorted((now, most) for now, most in found if most > 100 * 2**20)[::-1]

    def processor_s(self) -> float:
        """Processor time that its processes used so far, in seconds."""
        return sum(_processor_s(pid) for pid in _family(self._process.pid))

    def _signal(self, number: signal.Signals) -> None:
        for pid in _family(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        self._signal(signal.SIGCONT)
        family = _family(self._process.pid)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        for pid in family:  # some leave a process behind
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def running(contender: Contender, cores: set[int], log: Path) -> Iterator[Server]:
    """Start a contender on some cores and wait until it is ready.

    Raises:
        RuntimeError: It ended, or was not ready in time; with the end of what it said.
    """
    port = _free_port()
    command = [part.replace("{port}", str(port)) for part in contender.command]
    began = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=contender.folder,
            env=os.environ | contender.environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            preexec_fn=lambda: pin(cores),
        )
    server = Server(contender, port, math.nan, process)
    try:
        while not _answers(port, contender.ready):
            if process.poll() is not None or time.perf_counter() - began > START_S:
                said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
                raise RuntimeError(f"{contender.name} does not start: " + " | ".join(said))
            time.sleep(_LOOK_S)
        server.started_s = time.perf_counter() - began
        yield server
    finally:
        server.stop()


def pin(cores: set[int]) -> None:
    """Keep this process, and what it starts, on some cores; no effect on a system that cannot."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _entry(module: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"from {module} import main; main()")


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _family(oldest: int) -> list[int]:
    """A process and its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [oldest] if oldest in parents else []
    for pid in found:  # grows meanwhile
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _processor_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> tuple[int, int]:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return (0, 0)
    values = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", text))
    return int(values.get("VmRSS", 0)) * 1024, int(values.get("VmHWM", 0)) * 1024
