"""The errors that a user can meet, shared by the command line and the service."""


class PneumoError(Exception):
    """Base of all errors that are shown as one line, without a traceback.

    Attributes:
        exit_code: What the command line exits with.
    """

    exit_code = 1


class CheckFailedError(PneumoError):
    """A check, a gate or a test said no."""

    exit_code = 1


class InputError(PneumoError):
    """The user's input is wrong: the message says where, what, and how to mend it."""

    exit_code = 2


class MachineError(PneumoError):
    """The machine lacks something: a package, a file system, an accelerator."""

    exit_code = 3
