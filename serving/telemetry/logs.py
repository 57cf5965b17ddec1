"""Log lines of the service, as text or as JSON, that quote nothing of a request.

One record is one line. For an exception it shows type and place, since a message can quote what an image holds.
Messages of other libraries are left out for the same reason: pydicom warns with the value of a tag, asyncio with the
error of a task.
"""

import contextlib
import json
import logging
import os
import queue
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TextIO

from pneumo.serving.contracts.errors import locate_failure, shorten_path

LogFormat = Literal["text", "json"]

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

_TRUSTED = ("pneumo", "uvicorn")
"""Loggers whose messages are shown: pneumo's own, and the web server's."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that could end a line early, or control a terminal."""

_WARNING = re.compile(r"\w+ at [^\n]{1,200}:\d+")
"""Pattern of the output of `_format_warning`."""

_TRACE = "Traceback (most recent call last)"
"""Text of tracebacks that the web server logs as messages."""

_IN_MESSAGE = frozenset({"request_id", "method", "route", "status", "duration_ms"})

_ASSETS = ("/static", "/favicon.ico")
"""First characters of the routes of files that a page loads."""

WAITING = 10_000
"""Most log lines that wait to be written."""

_FLUSH_S = 2.0

_GATHER_S = 0.02
"""Seconds in which lines gather before they are written at once."""

on_dropped: set[Callable[[], object]] = set()
"""Functions that are called for each line that is dropped."""

_log = logging.getLogger("pneumo.request")


@dataclass(frozen=True, slots=True)
class RequestFields:
    """Logged fields of a request; a field that is None is left out.

    `method` is as sent; an unknown one is logged as `_OTHER`. `route` is the route's template, or `-` if no route
    matched; never a path as sent. `model` is `name:version` of the model that answered, `lane` its model slot, and
    `key` the name of the API key.
    """

    request_id: str
    method: str
    route: str
    status: int
    duration_ms: float
    images: int | None = None
    bytes: int | None = None
    model: str | None = None
    lane: str | None = None
    key: str | None = None
    trace_id: str | None = None


_FIELDS = tuple(RequestFields.__dataclass_fields__)


def configure(log_format: LogFormat = "text", stream: TextIO | None = None) -> None:
    """Send the log of this process to a stream, by default standard error; another call replaces the previous one.

    It also takes over the output of the web server, of `warnings` and of failing threads.
    """
    handler = _Handler(stream) if stream else _QueuedHandler(sys.stderr)
    handler.setFormatter(_Formatter(log_format))
    handler.addFilter(_quotes_no_path)
    root = logging.getLogger()
    for other in list(root.handlers):
        if type(other) in (logging.StreamHandler, _Handler, _QueuedHandler):
            root.removeHandler(other)
            other.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("pneumo").setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"  # without a handler the server writes no access log
    logging.captureWarnings(True)
    warnings.formatwarning = _format_warning
    threading.excepthook = _log_thread_failure


def log_request(request: RequestFields) -> None:
    """Log an answered request as one line; files that a page loads only at level DEBUG, unless they are refused."""
    level = logging.DEBUG if request.status < 400 and request.route.startswith(_ASSETS) else logging.INFO
    level = logging.WARNING if request.status >= 500 else level
    if _log.isEnabledFor(level):
        fields = {name: value for name in _FIELDS if (value := getattr(request, name)) is not None}
        fields |= {"method": normalize_method(request.method), "duration_ms": round(request.duration_ms, 2)}
        words = (request.request_id, fields["method"], request.route, request.status, request.duration_ms)
        record = logging.LogRecord(_log.name, level, "", 0, "%s %s %s %d %.1f ms", words, None)  # the caller is known
        record.__dict__["request_fields"] = fields
        _log.handle(record)


def normalize_method(method: str) -> str:
    """Return an HTTP method, or `_OTHER` for one that a client made up."""
    return method if method in METHODS else "_OTHER"


def _quotes_no_path(record: logging.LogRecord) -> bool:
    """Return whether to log a record: below warnings, the web server quotes paths as clients send them."""
    return record.levelno >= logging.WARNING or not record.name.startswith("uvicorn")


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Ignore the error: the standard handler prints the record with its arguments."""


class _QueuedHandler(_Handler):
    """Writes lines in a thread of its own: a pipe that nobody reads must not stop the thread that logs."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: queue.SimpleQueue[logging.LogRecord | str | threading.Event | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._lines.qsize() < WAITING:
            # The thread formats the rest; an exception would keep the images in its frames alive.
            self._lines.put(self.format(record) if record.exc_info else record)
            return
        self._dropped += 1
        for count in on_dropped:
            count()

    def flush(self) -> None:
        """Wait until all lines are written, but not for a reader that does not come."""
        if self._thread.is_alive():
            self._lines.put(written := threading.Event())
            written.wait(_FLUSH_S)

    def close(self) -> None:
        self.flush()
        self._lines.put(None)
        super().close()

    def _work(self) -> None:
        ended = False
        while not ended:
            taken = [self._lines.get()]
            if not isinstance(taken[0], threading.Event):
                time.sleep(_GATHER_S)  # to wake for each line would take the processor from requests
            with contextlib.suppress(queue.Empty):
                while True:
                    taken.append(self._lines.get_nowait())
            dropped, self._dropped = self._dropped, 0
            lines = [self._format(each) for each in taken if isinstance(each, logging.LogRecord | str)]
            if dropped:
                lines.append(f"{dropped} log lines were dropped, since nobody read them\n")
            with contextlib.suppress(OSError, ValueError):  # the stream is closed
                self._write("".join(lines))
            for each in taken:
                if isinstance(each, threading.Event):
                    each.set()
            ended = None in taken

    def _format(self, line: logging.LogRecord | str) -> str:
        try:
            return f"{line if isinstance(line, str) else self.format(line)}\n"
        except Exception:  # as `handleError`
            return ""

    def _write(self, text: str) -> None:
        try:
            file = self.stream.fileno()
        except (OSError, ValueError):
            self.stream.write(text)
            return
        data = text.encode(errors="backslashreplace")
        while data:  # not through the stream: a thread that waits in it holds its lock, and the process could not end
            data = data[os.write(file, data) :]


class _Formatter(logging.Formatter):
    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self._as_json = log_format == "json"

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        time = f"{moment.isoformat(timespec='milliseconds')}Z"  # RFC 3339
        text = _get_text(record)
        fields: dict[str, object] = getattr(record, "request_fields", {})
        if record.exc_info and record.exc_info[0] is not None:
            kind, _, trace = record.exc_info
            fields = fields | {"exception": kind.__name__, "place": locate_failure(trace)}
        if self._as_json:
            return json.dumps(
                {"time": time, "level": record.levelname, "logger": record.name, "message": text, **fields}
            )
        parts = [f"{time} {record.levelname} {record.name}: {text}"]
        parts += [f"{name}={value}" for name, value in fields.items() if name not in _IN_MESSAGE]
        return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), " ".join(parts))


def _get_text(record: logging.LogRecord) -> str:
    """Return the message of a record, or a text in place of a message that may quote a request."""
    if record.name == "py.warnings":
        message = record.getMessage()
        return message if _WARNING.fullmatch(message) else "a warning of another library, left out"
    reason = "it may quote a request"
    if record.name.partition(".")[0] in _TRUSTED:
        try:
            text = record.getMessage().strip()
        except (TypeError, ValueError):
            reason = "its arguments do not fit"
        else:
            return f"{text.splitlines()[-1].partition(':')[0]} (traceback left out)" if _TRACE in text else text
    return f"message left out, {reason} ({shorten_path(record.pathname)}:{record.lineno})"


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning without its message, in place of `warnings.formatwarning`."""
    return f"{category.__name__} at {shorten_path(filename)}:{lineno}"


def _log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is SystemExit:
        return
    logging.getLogger("pneumo.service").error(
        "the thread %s failed: %s at %s",
        failure.thread.name if failure.thread else "-",
        failure.exc_type.__name__,
        locate_failure(failure.exc_traceback),
    )
