"""Settings of runs: the values of a config by the path of their key."""

import re
from collections.abc import Iterator, Mapping

_PATH = re.compile(r"(?:~[^/\\]*|\.{1,2})?[/\\]|[A-Za-z]:[\\/]|file:|\S*[/\\]\S*\.\w{1,12}$")
"""Text that names a file or folder of a machine."""


def flatten_settings(config: object) -> dict[str, object]:
    """Return every plain value of a config under its path, such as `trainer.epochs` or `input_features.0.name`."""
    return dict(_leaves(config, ()))


def hide_paths(value: object) -> object:
    """Return a config with `(path)` in place of each text that names a file or folder of a machine."""
    if isinstance(value, Mapping):
        return {str(key): hide_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hide_paths(item) for item in value]
    return "(path)" if isinstance(value, str) and _PATH.match(value) else value


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, object]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None or not value:
        yield ".".join(path), value
        return
    for key, item in items:
        yield from _leaves(item, (*path, str(key)))
