"""The process environment of a training: its signals and its temporary folder."""

import contextlib
import shutil
import signal
import tempfile
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from pneumo.pipeline.ludwig import runtime


@contextlib.contextmanager
def restore_signals() -> Iterator[Collection[signal.Signals]]:
    """Restore the handlers of SIGINT and SIGTERM at the end; outside the main thread there are none to restore."""
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if in_main}
    try:
        yield handlers.keys()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM inside the context, if this is the main thread."""
    with restore_signals() as numbers:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
        yield


@contextlib.contextmanager
def use_scratch_folder(folder: Path) -> Iterator[None]:
    """Give Ludwig a temporary folder inside the run's.

    Ludwig leaves files in it, takes one lock in it for all trainings of a machine, and moves checkpoints out of it,
    which is only atomic on the same file system. wandb, which timm imports if it is installed, would go on writing to
    the folder after it is removed. So wandb is hidden meanwhile, unless tracking has imported it.
    """
    scratch = folder / ".scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        with runtime.replace_attribute(tempfile, "tempdir", str(scratch.resolve())), runtime.hide_packages("wandb"):
            yield
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
