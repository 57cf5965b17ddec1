"""Write `ludwig_schema.json` from the Ludwig that is installed: `python -m pneumo.pipeline.ludwig.schema_extract`."""

import inspect
import json
from pathlib import Path
from typing import Any

from pneumo.pipeline.ludwig import runtime

TARGET = Path(__file__).parents[1] / "config" / "ludwig_schema.json"
INPUTS, OUTPUTS, COMBINERS = ("image",), ("binary", "category"), ("concat",)
BACKEND: dict[str, Any] = {
    "type": "object",
    "properties": {"type": {"enum": ["local", "ray"]}},
    "allOf": [
        {
            "if": {"properties": {"type": {"const": "ray"}}},
            "then": {
                "properties": {
                    "trainer": {
                        "type": "object",
                        "properties": {
                            "num_workers": {"type": "integer", "minimum": 1},
                            "use_gpu": {"type": "boolean"},
                            "resources_per_worker": {
                                "type": "object",
                                "properties": {
                                    name: {"type": "number", "exclusiveMinimum": 0} for name in ("CPU", "GPU")
                                },
                            },
                        },
                    }
                }
            },
        }
    ],
}
"""Ludwig's schema leaves it open. These keys mean the same to its own Ray backend."""
_PROSE = {"description", "title", "parameter_metadata", "enumDescriptions", "additionalProperties"}


def schema() -> dict[str, Any]:
    """Ludwig's JSON schema without prose and without what an image classifier cannot use. Loads Ludwig."""
    runtime.load_ludwig()
    from ludwig.config_validation.validation import get_schema
    from ludwig.modules.metric_registry import get_metric_names_for_type

    full = get_schema("ecd")["properties"]
    properties = {
        "input_features": _only(full["input_features"], INPUTS),
        "output_features": _only(full["output_features"], OUTPUTS),
        "combiner": _narrow(full["combiner"], COMBINERS),
        "trainer": full["trainer"],
        "preprocessing": full["preprocessing"],
        "hyperopt": full["hyperopt"],
        "model_type": {"enum": ["ecd"]},
        "ludwig_version": {"type": "string"},
        "backend": BACKEND,
    }
    required = ["input_features", "output_features"]
    trimmed: dict[str, Any] = _trim({"type": "object", "properties": properties, "required": required})
    _describe_layers(trimmed, _layers())
    trimmed["metrics"] = {kind: sorted({"loss", *get_metric_names_for_type(kind)}) for kind in OUTPUTS}
    return trimmed


def main() -> None:
    """Write the file."""
    TARGET.write_text(text(), encoding="utf-8")


def text() -> str:
    """What the file should hold."""
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def _layers() -> dict[str, dict[str, Any]]:
    """Schema of the items of `conv_layers` and `fc_layers`, which Ludwig's schema leaves open.

    Its stacks take each key of a layer from a `default_` argument of theirs, and ignore any other key.
    """
    from ludwig.modules.convolutional_modules import Conv2DStack
    from ludwig.modules.fully_connected_modules import FCStack

    found = {}
    for name, stack, width in (("conv_layers", Conv2DStack, "out_channels"), ("fc_layers", FCStack, "output_size")):
        arguments = inspect.signature(stack).parameters
        keys = [argument.removeprefix("default_") for argument in arguments if argument.startswith("default_")]
        item = {"type": "object", "properties": {key: {} for key in keys} | {width: {"type": "integer", "minimum": 1}}}
        found[name] = {"default": None, "type": ["array", "null"], "items": item}
    return found


def _describe_layers(schema: Any, layers: dict[str, dict[str, Any]]) -> None:
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        if isinstance(part, dict):
            part.update({name: layer for name, layer in layers.items() if name in part})
        _describe_layers(part, layers)


def _only(features: dict[str, Any], kinds: tuple[str, ...]) -> dict[str, Any]:
    return {**features, "items": _narrow(features["items"], kinds)}


def _narrow(section: dict[str, Any], kinds: tuple[str, ...]) -> dict[str, Any]:
    branches = [branch for branch in section["allOf"] if branch["if"]["properties"]["type"]["const"] in kinds]
    kind = {**section["properties"]["type"], "enum": list(kinds)}
    return {**section, "allOf": branches, "properties": {**section["properties"], "type": kind}}


def _trim(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_trim(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _trim(value) for key, value in schema.items() if key not in _PROSE}
    if "properties" in schema:
        kept["properties"] = {name: _trim(sub) for name, sub in schema["properties"].items()}
    return kept


if __name__ == "__main__":
    main()
