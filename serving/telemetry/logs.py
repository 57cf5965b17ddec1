"""Log lines of the service, as text or as JSON, that quote nothing of a request.

One record is one line. Of an exception it shows type and place, since a message can quote what an image holds. Messages
of other libraries are left out for the same reason: pydicom warns with the value of a tag, asyncio with what a task
raised.
"""

import json
import logging
import re
import sys
import threading
import traceback
import warnings
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, TextIO

LogFormat = Literal["text", "json"]

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

_TRUSTED = ("pneumo", "uvicorn")
"""Loggers whose messages are shown: ours, and the web server's."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What could end a line early, or steer a terminal."""

_WARNING = re.compile(r"\w+ at [^\n]{1,200}:\d+")
"""What `_format_warning` makes of a warning."""

_log = logging.getLogger("pneumo.request")
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class RequestFields:
    """What is logged of a request; None is left out.

    Attributes:
        request_id: Of the request, also in `X-Request-ID`.
        method: As sent; an unknown one is logged as `_OTHER`.
        route: The route's template, or `-` where none matched; never a path as sent.
        status: HTTP status.
        duration_ms: Milliseconds until it was answered.
        images: Images in the request.
        bytes: Bytes of its body.
        model: `name:version` of the model that answered.
        lane: What that model is there for.
        key: Name of the API key.
        trace_id: Of its trace.
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


_NAMES = tuple(field.name for field in fields(RequestFields))
_IN_MESSAGE = frozenset(_NAMES[:5])


def configure(log_format: LogFormat = "text", stream: TextIO | None = None) -> None:
    """Send the log of this process to a stream; called again, it takes the place of the first call.

    It also takes over what the web server, `warnings` and failing threads would print themselves.

    Args:
        log_format: `text` for people, `json` for collectors of logs.
        stream: Where lines go; standard error by default.
    """
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    handler.addFilter(_tells_no_path)
    root = logging.getLogger()
    for other in list(root.handlers):
        if type(other) in (logging.StreamHandler, _Handler):
            root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("pneumo").setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"  # without a handler the server writes no access log
    logging.captureWarnings(True)
    warnings.formatwarning = _format_warning
    threading.excepthook = _on_thread_failure


def log_request(request: RequestFields) -> None:
    """Log a request that was answered: one line."""
    level = logging.WARNING if request.status >= 500 else logging.INFO
    if _log.isEnabledFor(level):
        method = normalize_method(request.method)
        known = {name: value for name in _NAMES if (value := getattr(request, name)) is not None}
        known["method"] = method
        known["duration_ms"] = round(request.duration_ms, 2)
        _log.log(
            level,
            "%s %s %s %d %.1f ms",
            request.request_id,
            method,
            request.route,
            request.status,
            request.duration_ms,
            extra={"request_fields": known},
        )


def normalize_method(method: str) -> str:
    """Return an HTTP method, or `_OTHER` for one that a client made up."""
    return method if method in METHODS else "_OTHER"


def _tells_no_path(record: logging.LogRecord) -> bool:
    """Below warnings, the web server names paths as clients send them."""
    return record.levelno >= logging.WARNING or not record.name.startswith("uvicorn")


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Nothing: the standard one prints the record with its arguments."""


class _Line(logging.Formatter):
    """What both formats show of a record."""

    def message(self, record: logging.LogRecord) -> str:
        if record.name == "py.warnings":
            told = record.getMessage()
            return told if _WARNING.fullmatch(told) else "a warning, left out since another library writes it"
        place = f"{_short(record.pathname)}:{record.lineno}"
        if record.name.partition(".")[0] not in _TRUSTED:
            return f"message left out, it may quote a request ({place})"
        try:
            text = record.getMessage().strip()
        except (TypeError, ValueError):
            return f"message left out, its arguments do not fit ({place})"
        if "Traceback (most recent call last)" in text:  # the web server logs some as messages
            return f"{text.splitlines()[-1].partition(':')[0]} (traceback left out)"
        return text

    def failure(self, record: logging.LogRecord) -> dict[str, str]:
        """Type and place of the exception, where there is one."""
        if not record.exc_info or record.exc_info[0] is None:
            return {}
        kind, _, trace = record.exc_info
        return {"exception": kind.__name__, "place": _place(trace)}

    def request(self, record: logging.LogRecord) -> dict[str, object]:
        found: dict[str, object] = getattr(record, "request_fields", {})
        return found

    def time(self, record: logging.LogRecord) -> str:
        """RFC 3339, UTC, milliseconds."""
        return (
            datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
        )


class _Json(_Line):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": self.message(record),
            **self.request(record),
            **self.failure(record),
        }
        return json.dumps(line)


class _Text(_Line):
    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.time(record)} {record.levelname} {record.name}: {self.message(record)}"
        known = {name: value for name, value in self.request(record).items() if name not in _IN_MESSAGE}
        known |= self.failure(record)
        return _CONTROL.sub(
            lambda found: found[0].encode("unicode_escape").decode(),
            " ".join([line, *(f"{name}={value}" for name, value in known.items())]),
        )


def _place(trace: TracebackType | None) -> str:
    """File and line of this package that an exception passed last on its way up, or of any where it passed none."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(trace)]
    ours = [(path, line) for path, line in frames if Path(path).is_relative_to(_PACKAGE)]
    if not frames:
        return "-"
    path, line = (ours or frames)[-1]
    return f"{_short(path)}:{line}"


def _short(path: str) -> str:
    """Path from `serving/` on, or the last two parts of a foreign path: it must not tell where pneumo is installed."""
    file = Path(path)
    return (file.relative_to(_PACKAGE.parent) if file.is_relative_to(_PACKAGE) else Path(*file.parts[-2:])).as_posix()


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning without its message, in the place of `warnings.formatwarning`."""
    return f"{category.__name__} at {_short(filename)}:{lineno}"


def _on_thread_failure(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is SystemExit:
        return
    logging.getLogger("pneumo.service").error(
        "the thread %s failed: %s at %s",
        failure.thread.name if failure.thread else "-",
        failure.exc_type.__name__,
        _place(failure.exc_traceback),
    )
