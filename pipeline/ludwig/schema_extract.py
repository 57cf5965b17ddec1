"""Write `ludwig_schema.json` from the installed Ludwig: `python -m pneumo.pipeline.ludwig.schema_extract`."""

import inspect
import json
import textwrap
from pathlib import Path

from pneumo.pipeline.config.json_schema import read_descriptions
from pneumo.pipeline.config.schema import Schema
from pneumo.pipeline.ludwig import runtime

TARGET = Path(__file__).parents[1] / "config" / "ludwig_schema.json"
INPUTS, OUTPUTS, COMBINERS = ("image",), ("binary", "category"), ("concat",)
_PROSE = {"description", "title", "parameter_metadata", "enumDescriptions", "additionalProperties"}
_LONGEST_TEXT = 160


def schema() -> Schema:
    """Return Ludwig's JSON schema, with short descriptions, as far as an image classifier uses it. Loads Ludwig."""
    runtime.load_ludwig()
    from ludwig.config_validation.validation import get_schema
    from ludwig.modules.metric_registry import get_metric_names_for_type

    full = get_schema("ecd")["properties"]
    properties = {
        "input_features": full["input_features"] | {"items": _narrow(full["input_features"]["items"], INPUTS)},
        "output_features": full["output_features"] | {"items": _narrow(full["output_features"]["items"], OUTPUTS)},
        "combiner": _narrow(full["combiner"], COMBINERS),
        "trainer": full["trainer"],
        "preprocessing": full["preprocessing"],
        "hyperopt": full["hyperopt"],
        "model_type": {"enum": ["ecd"]},
        "ludwig_version": {"type": "string"},
        "backend": read_descriptions()["sections"]["backend"],
    }
    trimmed = {
        "type": "object",
        "properties": {name: _trim(part) for name, part in properties.items()},
        "required": ["input_features", "output_features"],
        "metrics": {kind: sorted({"loss", *get_metric_names_for_type(kind)}) for kind in OUTPUTS},
    }
    _describe_layers(trimmed, _layers())
    return trimmed


def text() -> str:
    """Return the content of the file."""
    return json.dumps(schema(), indent=1, sort_keys=True) + "\n"


def _layers() -> Schema:
    """Return the schema of `conv_layers` and `fc_layers`, which Ludwig's leaves open.

    Its stacks take each key of a layer from one of their `default_` arguments, and ignore any other key.
    """
    from ludwig.modules.convolutional_modules import Conv2DStack
    from ludwig.modules.fully_connected_modules import FCStack

    layers: Schema = {}
    for name, stack, width in (("conv_layers", Conv2DStack, "out_channels"), ("fc_layers", FCStack, "output_size")):
        arguments = inspect.signature(stack).parameters
        keys = [argument.removeprefix("default_") for argument in arguments if argument.startswith("default_")]
        item = {"type": "object", "properties": {key: {} for key in keys} | {width: {"type": "integer", "minimum": 1}}}
        layers[name] = {"default": None, "type": ["array", "null"], "items": item}
    return layers


def _describe_layers(part: object, layers: Schema) -> None:
    for sub in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        if isinstance(sub, dict):
            sub.update({name: layer for name, layer in layers.items() if name in sub})
        _describe_layers(sub, layers)


def _narrow(section: Schema, kinds: tuple[str, ...]) -> Schema:
    """Return the schema of a section with only some of its types."""
    branches = [branch for branch in section["allOf"] if branch["if"]["properties"]["type"]["const"] in kinds]
    kind = section["properties"]["type"] | {"enum": list(kinds)}
    return section | {"allOf": branches, "properties": section["properties"] | {"type": kind}}


def _trim[T](part: T) -> T:
    """Return a schema with the first sentence of descriptions; a property may have the name of a key of prose."""
    if isinstance(part, list):
        return [_trim(item) for item in part]  # type: ignore[return-value]
    if not isinstance(part, dict):
        return part
    kept = {key: _trim(value) for key, value in part.items() if key not in _PROSE}
    if isinstance(text := part.get("description"), str) and text.strip():
        kept["description"] = textwrap.shorten(text.split(". ")[0].rstrip(".") + ".", _LONGEST_TEXT, placeholder=" ...")
    if "properties" in part:
        kept["properties"] = {name: _trim(sub) for name, sub in part["properties"].items()}
    return kept  # type: ignore[return-value]


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
