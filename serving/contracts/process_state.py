"""Changes of state that a whole process shares, undone when the work that needs them ends: people work in notebooks."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from types import FrameType

type Handler = Callable[[int, FrameType | None], object] | int

_STOP = (signal.SIGINT, signal.SIGTERM)
_RESTORED = (*_STOP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals whose handlers Ludwig, Ray or pneumo replace."""


def set_handler(handler: Handler, numbers: Collection[signal.Signals] = _STOP) -> None:
    """Handle signals, inside `restore_signals`; do nothing outside the main thread, where Python allows no handler."""
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            signal.signal(number, handler)


@contextlib.contextmanager
def restore_signals(handler: Handler | None = None, numbers: Collection[signal.Signals] = _STOP) -> Iterator[None]:
    """Restore the handlers of SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 at the end; meanwhile use `handler`, if any."""
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in _RESTORED if in_main}
    try:
        if handler is not None:
            set_handler(handler, numbers)
        yield
    finally:
        for number, before in handlers.items():
            if before is not None:  # None: not set by Python, which cannot set it again
                signal.signal(number, before)


@contextlib.contextmanager
def set_environment(values: Mapping[str, str], *, replace: bool = False) -> Iterator[None]:
    """Set environment variables inside the context; those that are set already stay, unless `replace`."""
    before = {name: os.environ.get(name) for name in values if replace or name not in os.environ}
    os.environ.update({name: values[name] for name in before})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def silence_loggers(*names: str, level: int = logging.CRITICAL + 1) -> Iterator[None]:
    """Keep records below a level, by default all, of these loggers and those below them from any handler."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, earlier in zip(loggers, before, strict=True):
            logger.setLevel(earlier)
