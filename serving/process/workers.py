"""Worker processes that share one port, and the supervisor that restarts them."""

import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from pneumo.serving.contracts.errors import MachineError, PneumoError
from pneumo.serving.contracts.process_state import restore_signals, set_environment
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.registry import resolve
from pneumo.serving.telemetry import logs, metrics

STOP_S = 30
"""Seconds until a worker that was told to stop is killed."""

_RESTART_S, _LONGEST_RESTART_S = 1.0, 30.0
"""Seconds until a worker that ended is replaced; twice as many after each replacement that cannot start."""

_log = logging.getLogger("pneumo.service")

RunWorker = Callable[[Settings, Bundle, socket.socket, Callable[[], object]], None]
"""Serves a bundle on a socket until it is told to stop; calls the last argument as soon as it is ready."""


@dataclass
class _Worker:
    process: SpawnProcess
    ready: ctypes.c_bool
    """Shared memory without a lock, since a worker may be killed at any time."""
    wait_s: float
    """Seconds until it is replaced if it ends."""
    replace_at: float | None = None
    """Time at which it is replaced, after it ended."""


def run_workers(
    run: RunWorker, settings: Settings, folder: Path, listener: socket.socket, on_ready: Callable[[], object]
) -> None:
    """Keep `settings.workers` processes serving until SIGINT or SIGTERM; replace one that ends.

    A replacement resolves the model again. If it cannot start, it is tried again later while the others go on.

    Args:
        run: Serves a bundle in one process; a module-level function, since a new process imports it by name.
        settings: The settings of the service.
        folder: The bundle of the first champion.
        listener: A bound socket that does not listen yet; it is closed at the end.
        on_ready: Called as soon as one worker takes requests.

    Raises:
        MachineError: A worker ended before any was ready, or none is left and no replacement starts.
    """
    context = multiprocessing.get_context("spawn")
    stop = threading.Event()

    def start(folder: Path | None, wait_s: float = _RESTART_S) -> _Worker:
        ready = context.RawValue(ctypes.c_bool, False)
        process = context.Process(target=_work, args=(run, settings, folder, listener, ready), daemon=True)
        process.start()
        return _Worker(process, ready, wait_s)

    with (
        restore_signals(lambda *_: stop.set()),
        # the workers' counts, so that any worker can report the metrics of all
        tempfile.TemporaryDirectory(prefix="pneumo-metrics-", ignore_cleanup_errors=True) as counts,
        set_environment({metrics.SHARED: counts}, replace=True),
    ):
        workers = [start(folder) for _ in range(settings.workers)]
        announced = False
        try:
            while not stop.is_set():
                alive = [worker.process.sentinel for worker in workers if worker.process.is_alive()]
                wait(alive, timeout=0.2 if announced else 0.02)
                if not announced and any(worker.ready.value for worker in workers):
                    announced = True
                    on_ready()
                for index, worker in enumerate(workers):
                    if worker.process.is_alive() or stop.is_set():
                        continue
                    if worker.replace_at is None:
                        others = any(each.process.is_alive() for each in workers)
                        _plan_replacement(worker, alone=not announced or not others)
                    elif time.monotonic() > worker.replace_at:
                        workers[index] = start(None, worker.wait_s)
        finally:
            listener.close()  # with the last worker's own the port is closed, and nothing is left waiting in it
            _stop(workers)


def _plan_replacement(worker: _Worker, *, alone: bool) -> None:
    metrics.forget_worker(worker.process.pid or 0)
    code = worker.process.exitcode
    if worker.ready.value:
        worker.wait_s = _RESTART_S
    elif alone:
        raise MachineError(f"a worker ended before it was ready (exit {code})")
    else:
        worker.wait_s = min(2 * worker.wait_s, _LONGEST_RESTART_S)
        _log.error("a replacement worker ended before it was ready (exit %s); next try in %g s", code, worker.wait_s)
    worker.replace_at = time.monotonic() + worker.wait_s


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + STOP_S
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _work(
    run: RunWorker, settings: Settings, folder: Path | None, listener: socket.socket, ready: ctypes.c_bool
) -> None:
    """Run one worker in its own process; without a folder it serves what the model's name leads to now."""
    logs.configure(settings.log_format)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()

    def set_ready() -> None:
        ready.value = True

    try:
        bundle = Bundle.open(folder or resolve(settings.model, settings.models_dir))
    except PneumoError as error:
        _log.error("a worker cannot start: %s", error)
        raise SystemExit(error.exit_code) from None
    try:
        run(settings, bundle, listener, set_ready)
    except PneumoError as error:
        raise SystemExit(error.exit_code) from None  # the service's log says why


def _end_with_parent() -> None:
    """Stop this process as soon as the supervisor is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
