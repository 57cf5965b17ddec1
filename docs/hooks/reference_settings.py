"""The reference of the service's settings, from `pneumo.serving.contracts.settings`."""

from pathlib import Path

from reference_parts import attributes, table

from pneumo.serving.contracts.settings import PREFIX, Settings


def markdown() -> str:
    """A row a setting: its variable, its default, what it is."""
    told = attributes(Settings.__doc__ or "")
    rows = [
        [f"`{PREFIX}{name.upper()}`", _default(field.default), told[name]]
        for name, field in Settings.model_fields.items()
    ]
    return table(["variable", "default", "what"], rows)


def _default(value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{int(value)}`"
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"
