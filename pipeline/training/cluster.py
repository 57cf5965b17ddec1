"""A Ray cluster for the time of a training: one started on this machine, or one that is joined."""

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pneumo.pipeline.ludwig.cluster.placement import FOLDER_PREFIX, Placement, Workers
from pneumo.pipeline.ludwig.compat import check_names
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.errors import InputError, MachineError, first_line
from pneumo.serving.contracts.process_state import restore_signals, set_environment

TRIES = 3  # Ray gives parts of itself 15 s to start, which a busy machine may miss
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray would send usage statistics to its makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's announced future default
    "RAY_worker_niceness": "0",  # the default of 15 starves workers beside any other work
    "RAY_worker_register_timeout_seconds": "300",  # the default of 60 is too short on a busy machine
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # the same
}
"""Read from the environment when Ray is imported."""
_TOKEN = secrets.token_hex(32)
"""Token of the clusters that are started here; without one Ray leaves one in the home folder. Ray reads it once."""


@contextlib.contextmanager
def connect_ray(workers: Workers | None) -> Iterator[Placement | None]:
    """Start or join a cluster for workers and yield their resources; raise a `MachineError` if it is too small."""
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
    """Start or join a Ray cluster, and end everything of this process in it afterwards.

    Without an address one is started here with `cpus` cores, by default those that this process may use.

    Raises:
        InputError: There is no cluster at the address.
        MachineError: The cluster cannot be started, or this process is in one already.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(set_environment(_SETTINGS if address else _SETTINGS | {"RAY_AUTH_TOKEN": _TOKEN}))
        import ray

        check_names("ray")
        if ray.is_initialized():
            raise MachineError("this process is in a Ray cluster already; train with backend: {type: local} here")
        if address is None:
            _remove_abandoned_folders()
            # Ray's sockets need a short path
            folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir="/tmp"))
            stack.callback(_remove, folder)
        stack.enter_context(restore_signals())
        stack.callback(ray.shutdown)
        with restore_signals():  # Ray replaces the handler of SIGTERM
            if address is None:
                _start(cpus or available_cores(), folder)
            else:
                _join(address)
        yield


def _remove_abandoned_folders(temp: Path = Path("/tmp")) -> None:  # noqa: S108 - see start_or_join_ray
    """Remove the folders of clusters whose process was killed."""
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
    """Remove Ray's folder; processes that are ending may still write into it."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.25)


def _start(cpus: int, folder: Path) -> None:
    import ray

    for tries_left in reversed(range(TRIES)):
        try:
            ray.init(
                address="local",  # even if RAY_ADDRESS is set
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(folder),
            )
            return
        except Exception as error:
            ray.shutdown()
            _kill_leftovers(folder)
            if not tries_left:
                raise MachineError(f"a Ray cluster could not be started here: {first_line(error)}") from error


def _kill_leftovers(folder: Path) -> None:
    """End the processes of a start that failed half way: Ray forgets those that it had started already."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in word for word in process.cmdline()):
                process.kill()


def _join(address: str) -> None:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise InputError(
            f"--address {address}: no Ray cluster could be joined there: {first_line(error)}; "
            "it takes auto, host:port or ray://host:port, the cluster's versions of Python and Ray, and "
            "RAY_AUTH_MODE=token with RAY_AUTH_TOKEN if the cluster has a token"
        ) from error
