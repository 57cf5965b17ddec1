"""Errors that a user can meet, shared by the command line and the service, and one-line texts about an exception."""

import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # pydantic would be half of the time that `pneumo --help` takes
    from pydantic import ValidationError

_PACKAGE = Path(__file__).parents[1]


class PneumoError(Exception):
    """Base of all errors that are shown as one line, without a traceback.

    Attributes:
        exit_code: Exit code of the command line.
    """

    exit_code = 1


class CheckFailedError(PneumoError):
    """A check, a gate or a test failed."""


class InputError(PneumoError):
    """The user's input is wrong: the message says where, what, and how to fix it."""

    exit_code = 2


class ImageError(InputError):
    """The bytes cannot be read as an image; `reason` names the kind of failure."""

    def __init__(self, reason: Literal["not-an-image", "unreadable", "too-large"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MachineError(PneumoError):
    """The machine lacks something: a package, a file system, an accelerator."""

    exit_code = 3


def first_problem(error: "ValidationError") -> str:
    """Return the first problem of a validation error as `place: message`; the message alone for the whole model."""
    first = error.errors()[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def first_line(error: BaseException, limit: int = 200) -> str:
    """Return the first line of an error's text, at most `limit` characters; its class name if it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:limit]


def join_lines(error: BaseException, limit: int = 300) -> str:
    """Return an error's text with its lines joined, at most `limit` characters; its class name if it has no text."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def locate_failure(trace: TracebackType | None) -> str:
    """Return the last `file:line` of the service that a traceback passes; of any package if it passes none.

    Unlike an exception's message, it cannot quote what an image holds.
    """
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(trace)]
    own = [place for place in places if Path(place[0]).is_relative_to(_PACKAGE)]
    if not places:
        return "-"
    path, line = (own or places)[-1]
    return f"{shorten_path(path)}:{line}"


def shorten_path(path: str) -> str:
    """Return a path from `serving/` on, or the last two parts of any other: no log tells where pneumo is installed."""
    file = Path(path)
    return (file.relative_to(_PACKAGE.parent) if file.is_relative_to(_PACKAGE) else Path(*file.parts[-2:])).as_posix()
