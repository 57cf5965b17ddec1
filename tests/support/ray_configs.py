"""Ray cluster configs of `deploy/`, parsed and checked."""

from typing import Any

TEXT, WHOLE, TRUTH = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}


def closed(required: str = "", **properties: Any) -> dict[str, Any]:
    """A mapping that has no other keys."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def every(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}
