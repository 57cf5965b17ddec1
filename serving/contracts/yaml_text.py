"""YAML that people write, parsed within limits: 400 bytes of nested aliases must not become a gigabyte of values."""

import re
from pathlib import Path
from typing import Any

import yaml
from yaml._yaml import CParser
from yaml.composer import Composer, ComposerError
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.parser import ParserError
from yaml.resolver import Resolver
from yaml.scanner import ScannerError

from pneumo.serving.contracts.errors import first_line

MAX_BYTES = 4_000_000
MAX_VALUES = 200_000
"""Keys and values of a document, those that its aliases repeat included; as many take about 60 MB."""
MAX_DEPTH = 100
MAX_DIGITS = 100
"""Characters of a number: `1:1:1:...` is a number in base 60 whose size grows with the square of its text."""

Fault = tuple[int, str]
"""Line from 1, and cause and fix."""
SYNTAX_ERRORS = (ScannerError, ParserError)
_WORDS = (
    ("cannot start any token", "a value cannot begin with {char}; put it in quotes"),
    ("unknown escape character", "a backslash in double quotes; use single quotes"),
    ("unexpected end of stream", "the quote that begins here is not closed"),
    ("expected ',' or", "the bracket that opens here is not closed, or a comma is missing{until}"),
    ("expected node content", "a value is missing, or a bracket is not closed"),
    ("expected '-' indicator", "a key in a list; begin each entry with '- ', or change the indentation"),
    ("could not find expected ':'", "a colon is missing, or the indentation is wrong"),
)
"""Part of the parser's message, and what to say instead."""
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def read_yaml(path: Path) -> bytes:
    """Read a YAML file, but no more than one byte above `MAX_BYTES`, which `compose_yaml` then refuses."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def parse_yaml(text: str | bytes) -> Any:
    """Parse one document into plain values; None for an empty one.

    Raises:
        YAMLError: It is not YAML, a tag is unknown or does not fit its value, or it is beyond a limit.
    """
    node = compose_yaml(text)
    return None if node is None else construct_yaml(node)


def explain_yaml_error(error: yaml.YAMLError, text: str) -> Fault:
    """Return line, cause and fix of what the parser refused."""
    mark, began = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    if mark is None:
        position = getattr(error, "position", 0)  # of a character that YAML does not allow
        return text.encode(errors="replace")[:position].count(b"\n") + 1, first_line(error)
    row, problem = mark.line, str(getattr(error, "problem", ""))
    if not isinstance(error, SYNTAX_ERRORS):
        return row + 1, ", ".join(filter(None, (getattr(error, "context", None), problem)))[:200]
    line = [*split_lines(text), ""][row]
    indent = len(line) - len(line.lstrip())
    for part, words in _WORDS:
        if part in problem:
            until = f" before line {row + 1}" if began and began.line != row else ""
            message = words.format(char=repr(line[mark.column : mark.column + 1]), until=until)
            return (began.line if began and "token" not in part and "'-'" not in part else row) + 1, message
    if "mapping values are not allowed" in problem:
        inside = "a colon inside a value; put the value in quotes"
        return row + 1, inside if ": " in line[: mark.column] else "indented deeper than the line above; align them"
    if "did not find expected key" in problem:
        words = "the indentation fits no line above" if mark.column == indent else "text after the end of a value"
        return row + 1, "a list entry among keys; change its indentation" if line[indent:][:2] == "- " else words
    return row + 1, problem[:200]


def split_lines(text: str) -> list[str]:
    """Return the lines of a text as YAML counts them."""
    return re.split(r"\r\n|[\r\n\x85\u2028\u2029]", text)


def compose_yaml(text: str | bytes) -> yaml.Node | None:
    """Parse one document into nodes, which know their lines; raise as `parse_yaml`."""
    if len(text) > MAX_BYTES:
        raise yaml.YAMLError(f"larger than {MAX_BYTES:,} bytes")
    try:
        loader = _Loader(text)
    except UnicodeEncodeError:
        raise yaml.YAMLError("holds characters that UTF-8 cannot express") from None
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def construct_yaml(node: yaml.Node) -> Any:
    """Return the plain values of nodes; raise as `parse_yaml`."""
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


class _Loader(Composer, CParser, SafeConstructor, Resolver):
    """PyYAML's safe loader on the parser of libyaml, which never recurses, with limits on what its events become."""

    def __init__(self, text: str | bytes) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}  # values of each node with an anchor, once it is complete

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        mark, before = event.start_mark, self._values
        is_alias = isinstance(event, yaml.AliasEvent)
        if not is_alias and event.anchor is not None:
            self.anchors.pop(event.anchor, None)  # an alias means the last anchor before it (YAML 1.2, 3.2.2.2)
        if self._depth == MAX_DEPTH:
            raise ComposerError(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not is_alias:
            self._values += 1
            if event.anchor is not None:
                self._sizes[id(node)] = self._values - before
        elif id(node) in self._sizes:
            self._values += self._sizes[id(node)]
        else:
            raise ComposerError(None, None, "an anchor that contains itself", mark)
        if self._values > MAX_VALUES:
            raise ComposerError(
                None, None, f"more than {MAX_VALUES:,} values, counting those that aliases repeat", mark
            )
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
            raise ConstructorError(None, None, f"a number of more than {MAX_DIGITS} digits", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, ValueError):  # `2026-99-99`, `!!bool 5`, `!!int ''`
            kind = node.tag.rpartition(":")[2]
            raise ConstructorError(None, None, f"not a valid {kind}", node.start_mark) from None
