"""Check a document against Ludwig's JSON schema, more strictly: an unknown key is an error with a suggestion.

Not the package `jsonschema`: Ludwig's branches (`if: {properties: {type: ...}}`) have to be merged by the default type
to know which keys exist, importing it takes 0.2 s, and its messages would all be replaced.
"""

import difflib
import functools
import importlib.resources
import json
import math
import operator
from typing import Any

from pneumo.pipeline.config.document import Document, KeyPath, format_key_path
from pneumo.serving.contracts.yaml_text import parse_yaml

Schema = dict[str, Any]
"""A JSON schema, or a part of one."""

_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "object": ("a mapping", (dict,)),
    "array": ("a list", (list,)),
    "string": ("text", (str,)),
    "integer": ("a whole number", (int,)),
    "number": ("a number", (int, float)),
    "boolean": ("true or false", (bool,)),
    "null": ("null", (type(None),)),
}
"""Name in messages and Python types of each JSON type."""

DECISIONS = "decisions"
"""pneumo's own section at the top level of a config, which Ludwig ignores."""

_SHARE = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_POINTS = {"type": ["array", "null"], "items": {"type": "object"}}
_SEED = {"type": ["integer", "null"], "minimum": 0}
_DECISIONS_SCHEMA: Schema = {
    "type": "object",
    "properties": {"threshold": {"type": "string"}, "coverage": _SHARE, "outliers": _SHARE},
}
SEARCHES: dict[str, Schema] = {
    "variant_generator": {"points_to_evaluate": _POINTS, "random_state": _SEED},
    "random": {"points_to_evaluate": _POINTS, "random_state": _SEED},
    "optuna": {"points_to_evaluate": _POINTS, "seed": _SEED},
    "hyperopt": {
        "points_to_evaluate": _POINTS,
        "random_state_seed": _SEED,
        "n_initial_points": {"type": "integer", "minimum": 1},
        "gamma": _SHARE,
    },
}
"""Supported search algorithms and their options, which Ludwig's schema leaves open."""


@functools.cache
def read_ludwig_schema() -> Schema:
    """Read the part of Ludwig's JSON schema that an image classifier uses, with pneumo's encoders."""
    file = importlib.resources.files("pneumo.pipeline.config").joinpath("ludwig_schema.json")
    loaded: Schema = json.loads(file.read_text(encoding="utf-8"))
    return loaded


def make_branch(kind: str, options: Schema) -> Schema:
    """Return the schema of the options that a section has with one value of `type`."""
    return {"if": {"properties": {"type": {"const": kind}}}, "then": {"properties": options}}


def check_schema(document: Document) -> None:
    """Refuse unknown keys, wrong types and values out of range, with file, line and a suggestion."""
    _check(document, (), document.data, _full_schema())


def check_decisions(document: Document) -> None:
    """Check the section `decisions` alone, for a config that another version may have written."""
    if DECISIONS in document.data:
        _check(document, (DECISIONS,), document.data[DECISIONS], _DECISIONS_SCHEMA)


@functools.cache
def _full_schema() -> Schema:
    """Return Ludwig's schema with the section `decisions` and the options of search algorithms."""
    ludwig = read_ludwig_schema()
    hyperopt = ludwig["properties"]["hyperopt"]
    branches = [make_branch(kind, options) for kind, options in SEARCHES.items()]
    search = hyperopt["properties"]["search_alg"] | {"allOf": branches}
    hyperopt = hyperopt | {"properties": hyperopt["properties"] | {"search_alg": search}}
    return ludwig | {"properties": ludwig["properties"] | {"hyperopt": hyperopt, DECISIONS: _DECISIONS_SCHEMA}}


def _check(document: Document, path: KeyPath, value: object, schema: Schema) -> None:
    if "oneOf" in schema:
        schema = _choose_alternative(document, path, value, schema["oneOf"])
    _check_value(document, path, value, schema)
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check(document, (*path, index), item, schema.get("items", {}))
    elif isinstance(value, dict) and ("properties" in schema or "allOf" in schema):
        _check_mapping(document, path, value, schema)


def _check_mapping(document: Document, path: KeyPath, value: dict[str, object], schema: Schema) -> None:
    properties = dict(schema.get("properties", {}))
    kind = value.get("type", properties.get("type", {}).get("default"))
    for branch in schema.get("allOf", ()):
        if branch["if"]["properties"]["type"]["const"] == kind:
            properties |= {name: sub for name, sub in branch["then"]["properties"].items() if name != "type"}
    level, section = ("", f" under {format_key_path(path)}") if path else ("top-level ", "")
    for key in sorted(value, key=lambda key: key != "type"):  # the type decides which other keys exist
        if key not in properties:
            suggestion = _suggest_name(str(key), properties, path)
            document.fail((*path, key), f"unknown {level}key {key!r}{section}{suggestion}")
        _check(document, (*path, key), value[key], properties[key])
    for key in schema.get("required", ()):
        if key not in value:
            document.fail(path, f"missing {level}key {key!r}{section}")


def _check_value(document: Document, path: KeyPath, value: object, schema: Schema) -> None:
    if "enum" in schema and value not in schema["enum"]:
        choices = [str(choice) for choice in schema["enum"] if choice is not None]
        near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(choices)}"
        document.reject(path, f"is {value!r:.100}; {hint}")
    types = _types_of(schema)
    if not _has_type(value, types):
        hint = number_hint(value) if isinstance(value, str) and {"number", "integer"} & set(types) else ""
        document.reject(path, f"must be {_name_types(types)}, not {value!r:.100}{hint}")
    if isinstance(value, float) and not math.isfinite(value):
        document.reject(path, f"is {value}; it must be a finite number")
    if isinstance(value, int | float) and not isinstance(value, bool):
        for key, is_wrong, rule in (
            ("minimum", operator.lt, "the least is"),
            ("maximum", operator.gt, "the most is"),
            ("exclusiveMinimum", operator.le, "it must be more than"),
            ("exclusiveMaximum", operator.ge, "it must be less than"),
        ):
            if key in schema and is_wrong(value, schema[key]):
                document.reject(path, f"is {value}; {rule} {schema[key]:g}")


def _choose_alternative(document: Document, path: KeyPath, value: object, alternatives: list[Schema]) -> Schema:
    for schema in alternatives:
        if _has_type(value, _types_of(schema)) and ("enum" not in schema or value in schema["enum"]):
            return schema
    types = [kind for schema in alternatives for kind in _types_of(schema)]
    return document.reject(path, f"must be {_name_types(types)}, not {value!r}")


def _types_of(schema: Schema) -> list[str]:
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else types


def _name_types(types: list[str]) -> str:
    return " or ".join(_TYPES[kind][0] for kind in types)


def _has_type(value: object, types: list[str]) -> bool:
    if isinstance(value, bool):
        return not types or "boolean" in types
    return not types or any(isinstance(value, _TYPES[kind][1]) for kind in types)


def number_hint(value: str) -> str:
    """Return how to write a number that is text in YAML 1.1, such as `1e-3` or `"25"`; empty for other text."""
    try:
        number = float(value)
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    mantissa, _, exponent = f"{number:e}".partition("e")
    if not isinstance(parse_yaml(value), str):
        return f" (the quotes make it text; write {value.strip()})"
    return f" (YAML reads it as text; write {float(mantissa)}e{int(exponent):+d})"


def _suggest_name(key: str, properties: Schema, path: KeyPath) -> str:
    if near := difflib.get_close_matches(key, list(properties), n=1, cutoff=0.6):
        return f"; did you mean {near[0]!r}?"
    for section in _find_sections(key, _full_schema(), ()):
        if section != path:
            return f"; it belongs under {format_key_path(section)}" if section else "; it belongs at the top level"
    return f"; choose from {', '.join(sorted(properties))}" if len(properties) <= 20 else ""


def _find_sections(key: str, schema: Schema, path: KeyPath) -> list[KeyPath]:
    """Return the sections, at most two levels down, that have a key."""
    properties = schema.get("properties", {})
    sections = [path] if key in properties else []
    for name, sub in properties.items():
        if len(path) < 2 and isinstance(sub, dict) and name != "defaults":
            sections += _find_sections(key, sub, (*path, name))
    return sections
