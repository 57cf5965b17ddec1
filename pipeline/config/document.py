"""A YAML file as plain values, with the line of each value, so that an error can name it."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.yaml_text import (
    MAX_DEPTH,
    compose_yaml,
    construct_yaml,
    explain_yaml_error,
    parse_yaml,
    read_yaml,
)

KeyPath = tuple[str | int, ...]
"""Position of a value: keys and list positions from the top level down."""

_POSITIVE, _TEXT = "fallback_true_label", "tag:yaml.org,2002:str"


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
        """Return a copy with `key.key=value` applied (positions are numbers, values YAML), or raise an `InputError`."""
        data, lines = _copy(self.data), dict(self.lines)
        for assignment in assignments:
            name = f"-o {assignment}"
            key, equals, text = assignment.partition("=")
            if not equals or not key.strip():
                raise InputError(f"{name}: write it as key.key=value, such as trainer.epochs=3")
            path = parse_key_path(key.strip())
            if len(path) > MAX_DEPTH:
                raise InputError(f"-o: a key of more than {MAX_DEPTH} parts")
            try:
                value = parse_yaml(text)
                is_class = path[-1] == _POSITIVE and isinstance(value, bool | int | float)
                _assign(data, path, text.strip() if is_class else value, name)
            except yaml.YAMLError as error:
                raise InputError(explain_yaml_error(error, f"-o {key}")) from None
            lines = {place: line for place, line in lines.items() if place[: len(path)] != path} | {path: 0}
        return Document(self.name, data, lines)


def read_document(path: pathlib.Path) -> Document:
    """Read a YAML file; raise an `InputError` if it is missing, cannot be read, or is no mapping."""
    try:
        text = read_yaml(path).decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder; give a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from None
    return parse_document(text, str(path))


def parse_document(text: str, name: str) -> Document:
    """Parse YAML text; an `InputError` about a bad value, a duplicate key or no mapping begins with `name`."""
    try:
        node = compose_yaml(text)
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{name}:1: a config is a mapping with input_features and output_features")
        lines: dict[KeyPath, int] = {(): 1}
        _collect_lines(node, (), lines, name)
        return Document(name, construct_yaml(node), lines)
    except yaml.YAMLError as error:
        raise InputError(explain_yaml_error(error, name)) from None


def parse_key_path(path: KeyPath | str) -> KeyPath:
    """Return a path from the form `output_features.0.loss`; a path that is parsed already stays as it is."""
    if isinstance(path, tuple):
        return path
    return tuple(int(part) if part.isascii() and part.isdigit() else part for part in path.split("."))


def format_key_path(path: KeyPath) -> str:
    """Return a path as it is written on the command line: `trainer.optimizer.type`."""
    return ".".join(map(str, path))


def _collect_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], name: str) -> None:
    """Collect the line of each value, and make the name of the positive class text: it may be `yes` or `1`."""
    if isinstance(node, yaml.MappingNode):
        for index, (key, value) in enumerate(node.value):
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{name}:{line}: a key must be a word")
            if (*path, key.value) in lines:
                raise InputError(
                    f"{name}:{line}: duplicate key {key.value!r}; the first is in line {lines[*path, key.value]}"
                )
            lines[*path, key.value] = line
            if key.value == _POSITIVE and isinstance(value, yaml.ScalarNode) and not value.tag.endswith(":null"):
                node.value[index] = (key, yaml.ScalarNode(_TEXT, value.value, value.start_mark, value.end_mark))
            _collect_lines(value, (*path, key.value), lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[*path, index] = value.start_mark.line + 1
            _collect_lines(value, (*path, index), lines, name)


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
