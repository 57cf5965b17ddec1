"""A YAML file as plain values, with the line of each value, so that an error can name it."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from pneumo.serving.contracts.errors import InputError, first_line

KeyPath = tuple[str | int, ...]
"""Position of a value: keys and list positions from the top level down."""


@dataclass(frozen=True)
class Document:
    """Values of a YAML file and their lines."""

    name: str  # of the file, for messages
    data: dict[str, Any]
    lines: dict[KeyPath, int]  # of each value's key, from 1; 0 for a value from the command line

    def locate(self, path: KeyPath) -> str:
        """Return `file:line` of a value or of its nearest parent; `-o KEY` for a value from the command line."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line == 0:
                return f"-o {format_key_path(path[:length])}"
            if line is not None:
                return f"{self.name}:{line}"
        return self.name

    def fail(self, path: KeyPath | str, message: str) -> NoReturn:
        """Raise an InputError that begins with the place of a value."""
        raise InputError(f"{self.locate(parse_key_path(path))}: {message}")

    def reject(self, path: KeyPath | str, problem: str) -> NoReturn:
        """Raise an InputError that begins with the place and the key path of a value."""
        self.fail(path, f"{format_key_path(parse_key_path(path))} {problem}")

    def get(self, path: KeyPath | str, default: Any = None) -> Any:
        """Return the value at a path, or `default`."""
        value: Any = self.data
        for key in parse_key_path(path):
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return default
        return value

    def override(self, assignments: Sequence[str]) -> "Document":
        """Return a copy with `key.key=value` assignments applied; list positions are numbers, values are YAML.

        Raises:
            InputError: An assignment has no `=`, or its path goes through a value that is not a mapping or list.
        """
        data, lines = _copy(self.data), dict(self.lines)
        for assignment in assignments:
            name = f"-o {assignment}"
            key, equals, text = assignment.partition("=")
            if not equals or not key.strip():
                raise InputError(f"{name}: write it as key.key=value, such as trainer.epochs=3")
            try:
                node = yaml.compose(text, Loader=yaml.SafeLoader)
            except yaml.YAMLError:
                raise InputError(f"{name}: the value is not YAML") from None
            path = parse_key_path(key.strip())
            _assign(data, path, None if node is None else _construct(node, name), name)
            lines = {place: line for place, line in lines.items() if place[: len(path)] != path} | {path: 0}
        return Document(self.name, data, lines)


def read_document(path: pathlib.Path) -> Document:
    """Read a YAML file.

    Raises:
        InputError: There is no such file, it is not YAML, or it is not a mapping.
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
    """Parse YAML text; messages begin with `name`.

    Raises:
        InputError: The text is not YAML, has a duplicate key, or is not a mapping at the top level.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{name}:1: a config is a mapping with input_features and output_features")
        lines: dict[KeyPath, int] = {(): 1}
        _collect_lines(node, (), lines, name)
        return Document(name, _construct(node, name), lines)
    except yaml.YAMLError as error:
        raise _invalid_yaml(error, name) from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply, or an anchor that contains itself") from None


def parse_key_path(path: KeyPath | str) -> KeyPath:
    """Return a path from the form `output_features.0.loss`; a path that is parsed already stays as it is."""
    if isinstance(path, tuple):
        return path
    return tuple(int(part) if part.isascii() and part.isdigit() else part for part in path.split("."))


def format_key_path(path: KeyPath) -> str:
    """Return a path as it is written on the command line: `trainer.optimizer.type`."""
    return ".".join(map(str, path))


def _collect_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{name}:{line}: a key must be a word")
            if (*path, key.value) in lines:
                raise InputError(
                    f"{name}:{line}: duplicate key {key.value!r}; the first is in line {lines[*path, key.value]}"
                )
            lines[*path, key.value] = line
            _collect_lines(value, (*path, key.value), lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[*path, index] = value.start_mark.line + 1
            _collect_lines(value, (*path, index), lines, name)


def _construct(node: yaml.Node, name: str) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise _invalid_yaml(error, name) from None
    except ValueError as error:  # a date such as 2026-99-99
        raise InputError(f"{name}: not YAML: {error}") from None
    finally:
        loader.dispose()


def _invalid_yaml(error: yaml.YAMLError, name: str) -> InputError:
    if isinstance(error, yaml.MarkedYAMLError):
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return InputError(f"{name}:{line}: not YAML: {error.problem}")
    return InputError(f"{name}: not YAML: {first_line(error)}")


def _copy(value: Any) -> Any:
    """Copy nested values; unlike `copy.deepcopy`, two aliases of an anchor become independent."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _assign(data: Any, path: KeyPath, value: Any, name: str) -> None:
    for position, key in enumerate(path):
        parent, is_last = format_key_path(path[:position]), position == len(path) - 1
        if isinstance(data, list):
            if not isinstance(key, int) or key >= len(data):
                raise InputError(f"{name}: {parent} is a list of {len(data)}; give a number")
        elif not isinstance(data, dict):
            raise InputError(f"{name}: {parent} holds no keys")
        elif not is_last and data.get(key) is None:
            data[key] = {}
        if is_last:
            data[key] = value
        data = data[key]
