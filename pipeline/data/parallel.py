"""Apply a function to many images in several processes."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from itertools import batched

from pneumo.pipeline.data.sources import Blob, Item, Skipped, Source, UnreadableError
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.errors import ImageError, MachineError

Progress = Callable[[int], None]
"""Called with the number of images done so far."""

_CHUNK = 16
_IN_FLIGHT = 3
_WORTH_IT = 600
"""Fewest images that are worth the 0.8 s that processes take to start: an image of 224 px takes 2.7 ms."""


def choose_workers(images: int, size: int, wanted: int | None = None) -> int:
    """Return the number of processes for so many images of `size` bytes in all: `wanted`, all cores, or 1 if few."""
    if wanted is not None:
        return max(1, wanted)
    return 1 if images < _WORTH_IT and size < 32 * 2**20 else available_cores()


def apply[T, R](function: Callable[[T], R], tasks: Iterable[T], *, workers: int) -> Generator[R]:
    """Apply a picklable function to tasks in `workers` processes and yield the results in order.

    Tasks are taken when workers are free, so that few of them are in memory at a time. Processes are spawned, since
    forking a process that has threads (a progress bar, torch) can hang. They end with this process, even by kill -9.
    One worker is this process itself.

    Raises:
        MachineError: A process was killed.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)
    waiting: deque[Future[list[R]]] = deque()
    try:
        for chunk in batched(tasks, _CHUNK):
            waiting.append(pool.submit(_apply_all, function, chunk))
            if len(waiting) >= workers * _IN_FLIGHT:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        raise MachineError("a worker process was killed, most likely for lack of memory; try --workers 1") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def map_source[R](
    function: Callable[[Item, Blob], R], source: Source, *, workers: int | None, progress: Progress | None
) -> tuple[list[R], list[Skipped]]:
    """Apply a picklable function to each image of a source.

    Returns:
        The results in order, and the images that cannot be read: `function` raises ImageError for them.
    """
    skipped: list[Skipped] = []

    def tasks() -> Iterator[tuple[Item, Blob]]:
        for item in source.items:
            try:
                yield item, source.read(item)
            except UnreadableError as error:
                skipped.append(Skipped(item.name, str(error), lost=True))

    results: list[R] = []
    count = choose_workers(len(source.items), sum(item.size for item in source.items), workers)
    with closing(apply(partial(_apply_or_skip, function), tasks(), workers=count)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, Skipped):
                skipped.append(outcome)
            else:
                results.append(outcome)
            if progress is not None:
                progress(len(results) + len(skipped))
    return results, skipped


def _apply_or_skip[R](function: Callable[[Item, Blob], R], task: tuple[Item, Blob]) -> R | Skipped:
    try:
        return function(*task)
    except ImageError as error:
        return Skipped(task[0].name, str(error), lost=True)


def _apply_all[T, R](function: Callable[[T], R], tasks: Iterable[T]) -> list[R]:
    return [function(task) for task in tasks]


def _start_worker() -> None:
    # Ctrl-C reaches the whole process group; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
