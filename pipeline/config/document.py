"""A YAML file as plain values, with the line of each, so that an error can name it."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from pneumo.serving.contracts.errors import InputError, first_line

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top."""


@dataclass(frozen=True)
class Document:
    """Values and where they came from.

    Attributes:
        name: The file's name, for messages.
        data: The values.
        lines: Line (from 1) of each value's key; a value from the command line has none.
    """

    name: str
    data: dict[str, Any]
    lines: dict[KeyPath, int]

    def place(self, path: KeyPath) -> str:
        """`file:line` of a value, or of the nearest one around it; `option -o` for one from the command line."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line == 0:
                return f"-o {format_key_path(path[:length])}"
            if line is not None:
                return f"{self.name}:{line}"
        return self.name

    def fail(self, path: KeyPath, message: str) -> NoReturn:
        """Raise an InputError about a value.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{self.place(path)}: {message}")

    def get(self, path: KeyPath, default: Any = None) -> Any:
        """The value at a path, or `default`."""
        value: Any = self.data
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return default
        return value

    def override(self, assignments: Sequence[str]) -> "Document":
        """Apply `key.key=value` assignments; list positions are numbers, values are YAML.

        Raises:
            InputError: An assignment without `=`, or one that goes through something that is not a mapping or list.
        """
        data, lines = _copy(self.data), dict(self.lines)
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals or not key.strip():
                raise InputError(f"-o {assignment}: write it as key.key=value, such as trainer.epochs=3")
            try:
                node = yaml.compose(text, Loader=yaml.SafeLoader)
                value = None if node is None else _value_of(node, f"-o {assignment}")
            except yaml.YAMLError:
                raise InputError(f"-o {assignment}: the value is not YAML") from None
            path = tuple(int(part) if part.isascii() and part.isdigit() else part for part in key.strip().split("."))
            _assign(data, path, value, assignment)
            lines = {known: line for known, line in lines.items() if known[: len(path)] != path}
            lines[path] = 0
        return Document(self.name, data, lines)


def read_document(path: pathlib.Path) -> Document:
    """Read a YAML file.

    Raises:
        InputError: No such file, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder; give a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from None
    return parse_document(text, str(path))


def parse_document(text: str, name: str) -> Document:
    """Read YAML text; `name` stands in messages.

    Raises:
        InputError: Not YAML, a key twice, or not a mapping at the top.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{name}:1: a config is a mapping with input_features and output_features")
        lines: dict[KeyPath, int] = {(): 1}
        _collect(node, (), lines, name)
        return Document(name, _value_of(node, name), lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{name}:{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{name}: not YAML: {first_line(error)}") from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply, or an anchor that holds itself") from None


def format_key_path(path: KeyPath) -> str:
    """A path as people write it: `trainer.optimizer.type`."""
    return ".".join(map(str, path))


def _collect(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{name}:{line}: a key must be a word")
            if key.value in seen:
                raise InputError(f"{name}:{line}: {key.value!r} stands twice; keep one")
            seen.add(key.value)
            lines[*path, key.value] = line
            _collect(value, (*path, key.value), lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[*path, index] = value.start_mark.line + 1
            _collect(value, (*path, index), lines, name)


def _value_of(node: yaml.Node, name: str) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{name}:{line}: not YAML: {error.problem}") from None
    except ValueError as error:  # a date such as 2026-99-99
        raise InputError(f"{name}: not YAML: {error}") from None
    finally:
        loader.dispose()


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def _assign(data: Any, path: KeyPath, value: Any, assignment: str) -> None:
    for position, key in enumerate(path[:-1]):
        if isinstance(data, list):
            if not isinstance(key, int) or key >= len(data):
                raise InputError(
                    f"-o {assignment}: {format_key_path(path[:position])} is a list of {len(data)}; give a number"
                )
            data = data[key]
        else:
            if data.get(key) is None:
                data[key] = {}
            data = data[key]
        if not isinstance(data, dict | list):
            raise InputError(f"-o {assignment}: {format_key_path(path[: position + 1])} holds no keys")
    key = path[-1]
    if isinstance(data, list):
        if not isinstance(key, int) or key >= len(data):
            raise InputError(f"-o {assignment}: {format_key_path(path[:-1])} is a list of {len(data)}; give a number")
        data[key] = value
    else:
        data[key] = value
