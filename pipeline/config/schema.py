"""Check a document against Ludwig's schema, more strictly: an unknown key is an error, with the nearest real one."""

import difflib
import functools
import importlib.resources
import json
import math
from typing import Any

from pneumo.pipeline.config.document import Document, KeyPath, format_key_path

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


DECISIONS = "decisions"
"""Our own section at the top of a config, which Ludwig passes over."""

_SHARE = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_OURS: dict[str, Any] = {
    DECISIONS: {
        "type": "object",
        "properties": {"threshold": {"type": "string"}, "coverage": _SHARE, "outliers": _SHARE},
    }
}


_POINTS = {"type": ["array", "null"], "items": {"type": "object"}}
_SEED = {"type": ["integer", "null"], "minimum": 0}
SEARCHES: dict[str, dict[str, Any]] = {
    "variant_generator": {"points_to_evaluate": _POINTS, "random_state": _SEED},
    "random": {"points_to_evaluate": _POINTS, "random_state": _SEED},
    "optuna": {"points_to_evaluate": _POINTS, "seed": _SEED},
    "hyperopt": {
        "points_to_evaluate": _POINTS,
        "random_state_seed": _SEED,
        "n_initial_points": {"type": "integer", "minimum": 1},
        "gamma": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    },
}
"""Search algorithms that run here, with their options, which Ludwig's schema leaves open."""


@functools.cache
def read_ludwig_schema() -> dict[str, Any]:
    """The part of Ludwig's JSON schema that an image classifier uses, with pneumo's encoders."""
    text = (
        importlib.resources.files("pneumo.pipeline.config").joinpath("ludwig_schema.json").read_text(encoding="utf-8")
    )
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def check_schema(document: Document) -> None:
    """Refuse unknown keys, wrong types and values out of range.

    Raises:
        InputError: The first thing that is wrong, with its file and line and what was meant.
    """
    _check(document, (), document.data, _whole())


def check_decisions(document: Document) -> None:
    """Check our section alone, as of a config that was written by another version.

    Raises:
        InputError: The first thing that is wrong in it.
    """
    if DECISIONS in document.data:
        _check(document, (DECISIONS,), document.data[DECISIONS], _OURS[DECISIONS])


@functools.cache
def _whole() -> dict[str, Any]:
    """Ludwig's schema with our section."""
    properties = read_ludwig_schema()["properties"] | _OURS
    section = properties["hyperopt"]
    search = section["properties"]["search_alg"]
    branches = [
        {"if": {"properties": {"type": {"const": kind}}}, "then": {"properties": options}}
        for kind, options in SEARCHES.items()
    ]
    told = section | {"properties": section["properties"] | {"search_alg": search | {"allOf": branches}}}
    return read_ludwig_schema() | {"properties": properties | {"hyperopt": told}}


def _check(document: Document, path: KeyPath, value: Any, schema: dict[str, Any]) -> None:
    if "oneOf" in schema:
        schema = _alternative(document, path, value, schema["oneOf"])
    _check_value(document, path, value, schema)
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check(document, (*path, index), item, schema.get("items", {}))
    elif isinstance(value, dict) and ("properties" in schema or "allOf" in schema):
        _check_mapping(document, path, value, schema)


def _check_mapping(document: Document, path: KeyPath, value: dict[str, Any], schema: dict[str, Any]) -> None:
    properties = dict(schema.get("properties", {}))
    kind = value.get("type", properties.get("type", {}).get("default"))
    for branch in schema.get("allOf", ()):
        if branch["if"]["properties"]["type"]["const"] == kind:
            properties |= {name: sub for name, sub in branch["then"]["properties"].items() if name != "type"}
    if isinstance(value.get("type"), str) and "type" in properties:
        _check(document, (*path, "type"), value["type"], properties["type"])
    for key, item in value.items():
        if key not in properties:
            where = format_key_path(path) or "the top"
            document.fail((*path, key), f"unknown key {key!r} under {where}{_suggest_name(str(key), properties, path)}")
        _check(document, (*path, key), item, properties[key])
    for key in schema.get("required", ()):
        if key not in value:
            document.fail(path, f"missing key {key!r} under {format_key_path(path) or 'the top'}")


def _check_value(document: Document, path: KeyPath, value: Any, schema: dict[str, Any]) -> None:
    name = format_key_path(path)
    if "enum" in schema and value not in schema["enum"]:
        choices = [choice for choice in schema["enum"] if choice is not None]
        near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(map(str, choices))}"
        document.fail(path, f"{name} is {value!r}; {hint}")
    types = schema.get("type")
    types = [types] if isinstance(types, str) else types
    if types and not any(_is(value, kind) for kind in types):
        wanted = " or ".join(_WORDS[kind] for kind in types)
        document.fail(path, f"{name} must be {wanted}, not {value!r}{_number_hint(value, types)}")
    if isinstance(value, float) and not math.isfinite(value):
        document.fail(path, f"{name} is {value}; it must be a finite number")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            document.fail(path, f"{name} is {value}; the least is {schema['minimum']:g}")
        if "maximum" in schema and value > schema["maximum"]:
            document.fail(path, f"{name} is {value}; the most is {schema['maximum']:g}")
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            document.fail(path, f"{name} is {value}; it must be more than {schema['exclusiveMinimum']:g}")
        if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
            document.fail(path, f"{name} is {value}; it must be less than {schema['exclusiveMaximum']:g}")


def _alternative(document: Document, path: KeyPath, value: Any, options: list[dict[str, Any]]) -> dict[str, Any]:
    for option in options:
        types = option.get("type")
        kinds = [types] if isinstance(types, str) else (types or list(_TYPES))
        if any(_is(value, kind) for kind in kinds) and ("enum" not in option or value in option["enum"]):
            return option
    words = [_WORDS[option["type"]] for option in options if isinstance(option.get("type"), str)]
    return document.fail(path, f"{format_key_path(path)} must be {' or '.join(words)}, not {value!r}")


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _number_hint(value: Any, types: list[str]) -> str:
    if not isinstance(value, str) or not {"number", "integer"} & set(types):
        return ""
    return number_hint(value)


def number_hint(value: str) -> str:
    """What to write for a number that YAML 1.1 reads as text, such as `1e-3`."""
    try:
        number = float(value)
    except ValueError:
        return ""
    mantissa, _, exponent = f"{number:e}".partition("e")
    return f" (YAML reads it as text; write {float(mantissa)}e{int(exponent):+d})"


def _suggest_name(key: str, properties: dict[str, Any], path: KeyPath) -> str:
    near = difflib.get_close_matches(key, list(properties), n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    places = [place for place in _places(key, _whole(), ()) if place != path]
    if places:
        return f"; it belongs under {format_key_path(places[0])}" if places[0] else "; it belongs at the top"
    return f"; known are {', '.join(sorted(properties))}" if len(properties) <= 20 else ""


def _places(key: str, schema: dict[str, Any], path: KeyPath) -> list[KeyPath]:
    properties = schema.get("properties", {})
    found = [path] if key in properties else []
    for name, sub in properties.items():
        if len(path) < 2 and isinstance(sub, dict) and name != "defaults":
            found += _places(key, sub, (*path, name))
    return found
