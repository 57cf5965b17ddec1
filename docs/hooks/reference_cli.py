"""The reference of the command line, from the commands themselves."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

from reference_parts import table
from typer.main import get_command

from pneumo.pipeline.cli import app
from pneumo.serving.contracts.errors import CheckFailedError, InputError, MachineError

NOTES = re.compile(r"\s*\[([^\[\]]*)\]$")
"""What click adds to the help of a parameter: its default, its range, whether it is required."""


def markdown() -> str:
    """A section a command, groups with their commands below them."""
    return "\n\n".join(_sections(get_command(app), ["pneumo"]))


def exit_codes() -> str:
    """The exit codes that all commands share."""
    errors = [CheckFailedError, InputError, MachineError]
    rows = [["0", "done"], *([str(error.exit_code), _first_line(error)] for error in errors)]
    return table(["exit code", "means"], [*rows, ["130", "Interrupted, with what was done kept."]])


def _first_line(error: type[Exception]) -> str:
    return (inspect.getdoc(error) or "").splitlines()[0]


def _sections(command: Any, path: list[str]) -> Iterator[str]:
    context = command.context_class(command, info_name=" ".join(path))
    if len(path) > 1:
        yield f"{'#' * len(path)} `{' '.join(path)}`"
        yield inspect.cleandoc(command.help or "")
    commands = getattr(command, "commands", {})
    if not commands:
        pieces = " ".join([*path, *command.collect_usage_pieces(context)])
        yield f"```text\n{pieces}\n```"
    parameters = [_row(parameter, context) for parameter in command.get_params(context)]
    yield table(["option", "default", "what"], [row for row in parameters if row])
    for name, sub in commands.items():
        if not sub.hidden:
            yield from _sections(sub, [*path, name])


def _row(parameter: Any, context: Any) -> list[str]:
    """Name, default and help; nothing for `--help`, which every command has, and for what is hidden."""
    if parameter.name == "help" or getattr(parameter, "hidden", False):
        return []
    record = parameter.get_help_record(context)
    names, text = record if record else (parameter.name, "")
    notes = NOTES.search(text)
    known = notes[1].split("; ") if notes else []
    default = "".join(note.removeprefix("default: ") for note in known if note.startswith("default: "))
    others = [note for note in known if not note.startswith("default: ")]
    told = NOTES.sub("", text) + (f" ({', '.join(others)})" if others else "")
    return [f"`{names}`", _default(default), told]


def _default(text: str) -> str:
    """A value as code; what click puts into brackets is either a value that is filled in later, or words."""
    if not text:
        return ""
    words = re.fullmatch(r"\((.*)\)", text)
    return words[1] if words and " " in words[1] else f"`{words[1] if words else text}`"
