"""What a training needs around it: signals that reach it, a temporary folder of its own."""

import contextlib
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from pneumo.pipeline.ludwig import runtime


@contextlib.contextmanager
def handle_signals() -> Iterator[None]:
    """Give SIGINT and SIGTERM back to who had them, and make both an interrupt meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in handlers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def use_scratch_folder(folder: Path) -> Iterator[None]:
    """Give Ludwig a temporary folder inside the run's.

    Ludwig leaves files in it, takes one lock in it for all trainings of a machine, and moves checkpoints out of it,
    which is only atomic on the same file system. wandb, which timm imports where it is there, would go on writing to it
    after it is gone: it is hidden meanwhile, unless tracking has imported it.
    """
    inside = folder / ".scratch"
    shutil.rmtree(inside, ignore_errors=True)
    inside.mkdir()
    before = tempfile.tempdir
    tempfile.tempdir = str(inside.resolve())
    try:
        with runtime.hide_packages("wandb"):
            yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(inside, ignore_errors=True)
