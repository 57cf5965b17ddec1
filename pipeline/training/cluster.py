"""A Ray cluster for as long as a training lasts: one of our own, or one that is there."""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pneumo.pipeline.ludwig.cluster.placement import FOLDER_PREFIX, Placement, Workers
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.errors import InputError, MachineError, first_line

TRIES = 3
"""Ray gives parts of itself 15 s to start, which a busy machine may miss."""
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray would report to its makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what it warns will be the default
    "RAY_worker_niceness": "0",  # 15, with which workers starve beside any other work
    "RAY_worker_register_timeout_seconds": "300",  # 60 and 60, which a busy machine may miss too
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
}
"""Read from the environment when Ray is imported."""


@contextlib.contextmanager
def connect_ray(workers: Workers | None) -> Iterator[Placement | None]:
    """Start or join a cluster, and leave it again with everything of ours in it ended.

    Args:
        workers: What is asked for; None needs no cluster.

    Yields:
        What the workers will be given; None without a cluster.

    Raises:
        InputError: There is no cluster at the address.
        MachineError: It cannot be started, or is too small.
    """
    if workers is None:
        yield None
        return
    with start_or_join_ray(workers.address, workers.local_cpus()):
        import ray

        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        machines = sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]
        yield workers.allocate_resources(resources, machines)


@contextlib.contextmanager
def start_or_join_ray(address: str | None, cpus: int | None = None) -> Iterator[None]:
    """Start or join a Ray cluster, and leave it again with everything of ours in it ended.

    Args:
        address: The cluster to join; None starts one on this machine.
        cpus: Cores that a cluster of our own is told it has; those that this process may use where None.

    Raises:
        InputError: There is no cluster at the address.
        MachineError: It cannot be started, or this process is in one already.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    handlers = _handlers()
    if address is None:
        # a cluster has a token; without ours Ray leaves one in the home folder
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if ray.is_initialized():
        raise MachineError("this process is in a Ray cluster already; train with backend: {type: local} here")
    folder = None
    try:
        if address is None:
            _remove_abandoned_folders()
            # Ray's sockets need a short path
            folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir="/tmp"))
            _start(cpus or available_cores(), folder)
        else:
            _join(address)
        _restore(handlers)  # Ray takes SIGTERM to itself
        yield
    finally:
        ray.shutdown()
        _restore(handlers)
        if folder is not None:
            _remove(folder)


def _remove_abandoned_folders(temp: Path = Path("/tmp")) -> None:
    """Remove folders of clusters whose process was killed."""
    for folder in temp.glob(f"{FOLDER_PREFIX}*-*"):
        pid = folder.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdigit() and folder.stat().st_uid == os.getuid() and not _is_alive(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    """Return whether a process runs, on any POSIX system: macOS has no `/proc`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # it runs as another user; the number is no process id
        return True
    return True


def _remove(folder: Path) -> None:
    """Remove Ray's folder, into which what is just ending may still write."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.25)


def _start(cpus: int, folder: Path) -> None:
    import ray

    for left in reversed(range(TRIES)):
        try:
            ray.init(
                address="local",  # whatever RAY_ADDRESS says
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(folder),
            )
            return
        except Exception as error:
            ray.shutdown()
            if not left:
                raise MachineError(f"a Ray cluster could not be started here: {first_line(error)}") from error


def _join(address: str) -> None:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise InputError(
            f"--address {address}: no Ray cluster could be joined there: {first_line(error)}; "
            "it takes auto, host:port or ray://host:port, the versions of Python and Ray there, and "
            "RAY_AUTH_MODE=token with RAY_AUTH_TOKEN where the cluster has a token"
        ) from error


def _handlers() -> "dict[signal.Signals, signal._HANDLER]":
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


def _restore(handlers: "dict[signal.Signals, signal._HANDLER]") -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
