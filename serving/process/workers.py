"""Several processes that serve on one port, with one that looks after them."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from pneumo.serving.contracts.errors import MachineError, PneumoError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.telemetry import logs, metrics

STOP_S = 30
"""Seconds after which a worker that was told to stop is killed."""

_PAUSE_S = 1.0

RunWorker = Callable[[Settings, Bundle, socket.socket, Callable[[], object]], None]
"""Serves a bundle on a socket until it is told to stop, and calls the last argument once it takes requests."""


@dataclass
class _Worker:
    process: SpawnProcess
    said: Connection
    ready: bool = False


def run_workers(
    run: RunWorker, settings: Settings, folder: Path, listener: socket.socket, ready: Callable[[], object]
) -> None:
    """Keep `settings.workers` processes serving until SIGINT or SIGTERM; one that dies is started anew.

    Args:
        run: Serves a bundle in one process; a function of a module, since a new process imports it by its name.
        settings: How to serve.
        folder: The champion's bundle to begin with.
        listener: Bound, not yet listening.
        ready: Called once a worker takes requests.

    Raises:
        MachineError: A worker ended before it was ready.
    """
    context = multiprocessing.get_context("spawn")
    told = threading.Event()

    def start() -> _Worker:
        mine, its = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(run, settings, folder, listener, its), daemon=True)
        process.start()
        its.close()
        return _Worker(process, mine)

    with _stopped_by(told), _shared_metrics():
        workers = [start() for _ in range(settings.workers)]
        announced = False
        try:
            while not told.is_set():
                _listen_to(workers)
                if not announced and any(worker.ready for worker in workers):
                    announced = True
                    ready()
                for index, worker in enumerate(workers):
                    if worker.process.is_alive() or told.is_set():
                        continue
                    metrics.forget_worker(worker.process.pid or 0)
                    if not worker.ready:
                        raise MachineError(f"a worker ended before it was ready (exit {worker.process.exitcode})")
                    time.sleep(_PAUSE_S)
                    workers[index] = start()
        finally:
            _stop(workers)


def _listen_to(workers: list[_Worker]) -> None:
    pipes = {worker.said: worker for worker in workers if not worker.ready}
    sentinels = [worker.process.sentinel for worker in workers]
    for found in wait([*pipes, *sentinels], timeout=0.2):
        if isinstance(found, Connection):
            with contextlib.suppress(EOFError, OSError):
                found.recv_bytes()
                pipes[found].ready = True


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    ends = time.monotonic() + STOP_S
    for worker in workers:
        worker.process.join(max(0.0, ends - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


@contextlib.contextmanager
def _stopped_by(told: threading.Event) -> Iterator[None]:
    before = {
        number: signal.signal(number, lambda _number, _frame: told.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _shared_metrics() -> Iterator[None]:
    """A folder where the workers leave their counts, so that any of them can tell of all."""
    folder = tempfile.mkdtemp(prefix="pneumo-metrics-")
    before = os.environ.get(metrics.SHARED)
    os.environ[metrics.SHARED] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ[metrics.SHARED]
        else:
            os.environ[metrics.SHARED] = before
        shutil.rmtree(folder, ignore_errors=True)


def _work(run: RunWorker, settings: Settings, folder: Path, listener: socket.socket, said: Connection) -> None:
    """One worker, in a process of its own."""
    logs.configure(settings.log_format)
    _end_with_parent()
    try:
        run(settings, Bundle.open(folder), listener, lambda: said.send_bytes(b"ready"))
    except PneumoError as error:
        raise SystemExit(error.exit_code) from None  # the service's log says why


def _end_with_parent() -> None:
    """Stop when the process that looks after the workers is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
