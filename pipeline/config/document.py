"""A YAML file as plain values, with the line of each value, so that an error can name it."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from pneumo.pipeline.config.problems import ConfigError, KeyPath, Problem, refuse
from pneumo.pipeline.config.yaml_faults import compose_repaired
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.yaml_text import MAX_DEPTH, Fault, construct_yaml, explain_yaml_error, read_yaml

_POSITIVE, _TEXT = "fallback_true_label", "tag:yaml.org,2002:str"
_EXPECTED = "a config is a mapping with input_features and output_features"


@dataclass(frozen=True)
class Document:
    """Values of a YAML file and their lines."""

    name: str  # of the file, for messages
    data: dict[str, Any]
    lines: dict[KeyPath, int]  # of each value's key, from 1; 0 for a value from the command line

    def locate(self, path: KeyPath) -> tuple[str, int]:
        """Return `file:line` and line of a value or of its nearest parent; `-o KEY` and 0 if it is from an override."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return f"{self.name}:{line}" if line else f"-o {format_key_path(path[:length])}", line
        return self.name, 1

    def problem(self, path: KeyPath | str, message: str, *about: KeyPath | str) -> Problem:
        """Return a problem with a value, whose message says what it is about."""
        path = parse_key_path(path)
        return Problem(*self.locate(path), path, message, tuple(map(parse_key_path, about)))

    def wrong(self, path: KeyPath | str, message: str, *about: KeyPath | str) -> Problem:
        """Return a problem with a value, whose message begins with the key path."""
        return self.problem(path, f"{format_key_path(parse_key_path(path))} {message}", *about)

    def fail(self, path: KeyPath | str, message: str) -> NoReturn:
        """Raise a `ConfigError` with one `problem`."""
        raise ConfigError([self.problem(path, message)])

    def reject(self, path: KeyPath | str, message: str) -> NoReturn:
        """Raise a `ConfigError` with one `wrong` value."""
        raise ConfigError([self.wrong(path, message)])

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
        """Return a copy with `key.key=value` applied (positions are numbers, values YAML).

        Raises:
            ConfigError: Assignments are wrong; its `document` has the others.
        """
        changed, problems = Document(self.name, _copy(self.data), dict(self.lines)), list[Problem]()
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            path = parse_key_path(key.strip())
            try:
                if not equals or not key.strip():
                    raise InputError("write it as key.key=value, such as trainer.epochs=3")
                if len(path) > MAX_DEPTH:
                    raise InputError(f"a key of more than {MAX_DEPTH} parts")
                value, _, faults = _read(text, str(path[-1]))
                if faults:
                    raise InputError(faults[0][1])
                _assign(changed.data, path, value)
            except InputError as error:
                problems.append(Problem(f"-o {assignment}", 0, path, str(error)))
            else:
                _forget(changed.lines, path)
                changed.lines[path] = 0
        refuse(problems, changed)
        return changed


def read_document(path: pathlib.Path) -> Document:
    """Read a YAML file; raise a `ConfigError` if it is missing or cannot be read, and as `parse_document`."""
    try:
        return parse_document(read_yaml(path).decode("utf-8"), str(path))
    except FileNotFoundError:
        fault = 1, "no such file"
    except IsADirectoryError:
        fault = 1, "a folder; give a YAML file"
    except UnicodeDecodeError as error:
        fault = error.object.count(b"\n", 0, error.start) + 1, "cannot be read as text: it is not UTF-8"
    except OSError as error:
        fault = 1, f"cannot be read: {error.strerror}"
    raise ConfigError([Problem(str(path), fault[0], (), fault[1])])


def parse_document(text: str, name: str, expected: str = _EXPECTED) -> Document:
    """Parse YAML text; `expected` is what to say if it is empty or no mapping.

    Raises:
        ConfigError: It is no YAML or no mapping, or has duplicate keys; its `document` has what could be read.
    """
    data, lines, faults = _read(text)
    document = Document(name, data, lines) if isinstance(data, dict) else None
    if document is None and not faults:
        faults = [(1, expected)]
    refuse([Problem(f"{name}:{line}", line, (), message) for line, message in faults], document)
    assert document is not None
    return document


def parse_key_path(path: KeyPath | str) -> KeyPath:
    """Return a path from the form `output_features.0.loss`; a path that is parsed already stays as it is."""
    if isinstance(path, tuple):
        return path
    return tuple(int(part) if part.isascii() and part.isdigit() else part for part in path.split("."))


def format_key_path(path: KeyPath) -> str:
    """Return a path as it is written on the command line: `trainer.optimizer.type`."""
    return ".".join(map(str, path))


def _read(text: str, key: str = "") -> tuple[Any, dict[KeyPath, int], list[Fault]]:
    """Return the value that YAML text gives a key, the lines of its parts, and its faults."""
    node, found = compose_repaired(text)
    lines: dict[KeyPath, int] = {(): 1}
    value, faults = None, list[Fault]()
    if node is not None:
        faults = _collect_lines(node, (), lines)
        try:
            value = construct_yaml(_keep_name(key, node))
        except yaml.YAMLError as error:
            found.append(explain_yaml_error(error, text))
    return value, lines, [*((line, f"cannot be read as YAML: {message}") for line, message in found), *faults]


def _collect_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> list[Fault]:
    """Collect the line of each value, return faults of keys, and make names text: a class may be `yes` or `1`."""
    faults: list[Fault] = []
    if isinstance(node, yaml.MappingNode):
        pairs = []
        for key, value in node.value:
            line, place = key.start_mark.line + 1, (*path, str(key.value))
            if not isinstance(key, yaml.ScalarNode):
                faults.append((line, "a key must be a word"))
                continue
            if place in lines:
                faults.append((line, f"duplicate key {key.value!r}; the first is in line {lines[place]}"))
                _forget(lines, place)
            lines[place] = line
            pairs.append((key if key.tag.endswith(":merge") else _as_text(key), _keep_name(key.value, value)))
            faults += _collect_lines(value, place, lines)
        node.value = pairs
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[*path, index] = value.start_mark.line + 1
            faults += _collect_lines(value, (*path, index), lines)
    return faults


def _keep_name(key: str, value: yaml.Node) -> yaml.Node:
    """Return the value of a key; the positive class is text, as it is written."""
    is_name = key == _POSITIVE and isinstance(value, yaml.ScalarNode) and not value.tag.endswith(":null")
    return _as_text(value) if is_name else value


def _as_text(node: yaml.Node) -> yaml.Node:
    """Return a scalar as text, as it is written."""
    return yaml.ScalarNode(_TEXT, node.value, node.start_mark, node.end_mark)


def _forget(lines: dict[KeyPath, int], path: KeyPath) -> None:
    """Drop the lines of a value that is replaced, and of what it holds."""
    for place in [place for place in lines if place[: len(path)] == path]:
        del lines[place]


def _copy(value: Any) -> Any:
    """Copy nested values; unlike `copy.deepcopy`, two aliases of an anchor become independent."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _assign(data: Any, path: KeyPath, value: Any) -> None:
    for position, key in enumerate(path):
        parent, is_last = format_key_path(path[:position]), position == len(path) - 1
        if isinstance(data, list):
            if not isinstance(key, int) or key >= len(data):
                raise InputError(f"{parent} is a list of {len(data)}; give a number")
        elif not isinstance(data, dict):
            raise InputError(f"{parent} holds no keys")
        elif not is_last and data.get(key) is None:
            data[key] = {}
        if is_last:
            data[key] = value
        data = data[key]
