"""A config while it is upgraded and completed: each value keeps the line that it was written in."""

import json
from collections.abc import Iterator
from typing import Any

from pneumo.pipeline.config.document import Document, format_key_path, parse_key_path
from pneumo.pipeline.config.problems import KeyPath


class Draft:
    """An editable copy of a document.

    Attributes:
        document: The copy.
        remarks: A line for each change that its author should know of.
    """

    def __init__(self, document: Document) -> None:
        self.document = document.override(())
        self.remarks: list[str] = []

    def get(self, path: KeyPath | str, default: Any = None) -> Any:
        """Return the value at a path, or `default`."""
        return self.document.get(path, default)

    def keys(self, path: KeyPath | str) -> list[str]:
        """Return the keys of a mapping, or an empty list if there is no mapping at the path."""
        value = self.get(path)
        return list(value) if isinstance(value, dict) else []

    def list_mappings(self, *sections: str) -> Iterator[KeyPath]:
        """Yield the path of each mapping in the lists of these sections."""
        for section in sections:
            value = self.get(section)
            for index, item in enumerate(value if isinstance(value, list) else ()):
                if isinstance(item, dict):
                    yield (section, index)

    def put(self, path: KeyPath | str, value: Any, why: str = "") -> None:
        """Write a value, and remark on it if there is a reason."""
        path = parse_key_path(path)
        if why:
            before = self.get(path)
            instead = "" if isinstance(before, dict | None) else f" instead of {_write(before)}"
            self.remark(path, f"is {_write(value)}{instead}: {why}")
        parent: Any = self.document.data
        for key in path[:-1]:
            if isinstance(parent, dict) and parent.get(key) is None:
                parent[key] = {}
            parent = parent[key] if type(parent) in (dict, list) else None
        if isinstance(parent, dict) or isinstance(path[-1], int):  # else its type is wrong, which the schema reports
            parent[path[-1]] = value

    def drop(self, path: KeyPath | str, why: str = "") -> None:
        """Remove a key if it is there, and remark on it if there is a reason."""
        path = parse_key_path(path)
        if path[-1] not in self.keys(path[:-1]):
            return
        if why:
            self.remark(path, why)
        del self.get(path[:-1])[path[-1]]

    def copy(self, source: KeyPath, target: KeyPath) -> None:
        """Write the value of one path at another, with its lines."""
        self.put(target, self.get(source))
        lines = self.document.lines
        for place in [place for place in lines if place[: len(source)] == source]:
            lines[*target, *place[len(source) :]] = lines[place]

    def move(self, source: KeyPath, target: KeyPath) -> None:
        """Move a value, if there is one, with its lines; one that is at the target already stays."""
        if source[-1] in self.keys(source[:-1]):
            if target[-1] not in self.keys(target[:-1]):
                self.copy(source, target)
            self.drop(source)

    def remark(self, path: KeyPath | str, text: str) -> None:
        """Add a line that begins with the place and the path of a value."""
        path = parse_key_path(path)
        self.remarks.append(f"{self.document.locate(path)[0]}: {format_key_path(path)} {text}")


def _write(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace('"', "")
