"""The errors that a user can meet, shared by the command line and the service."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # pydantic would be half of the time that `pneumo --help` takes
    from pydantic import ValidationError


class PneumoError(Exception):
    """Base of all errors that are shown as one line, without a traceback.

    Attributes:
        exit_code: What the command line exits with.
    """

    exit_code = 1


class CheckFailedError(PneumoError):
    """A check, a gate or a test failed."""

    exit_code = 1


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
