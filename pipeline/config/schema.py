"""Check a document against Ludwig's JSON schema, more strictly: an unknown key is an error with a suggestion.

Not the package `jsonschema`: Ludwig's branches (`if: {properties: {type: ...}}`) have to be merged by the default type
to know which keys exist, importing it takes 0.2 s, and its messages would all be replaced.
"""

import functools
import importlib.resources
import json
import math
import operator
import re
from collections.abc import Iterator
from typing import Any

from pneumo.pipeline.config.document import Document, format_key_path
from pneumo.pipeline.config.problems import KeyPath, Problem
from pneumo.pipeline.config.suggestions import find_near, find_same, number_hint, suggest

Schema = dict[str, Any]
"""A JSON schema, or a part of one."""

TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
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
    "properties": {"threshold": {"type": "string"}, "coverage": _SHARE, "outliers": _SHARE}
    | {"fit_on": {"type": "string", "enum": ["validation", "shifts"]}},
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


def read_branches(schema: Schema) -> dict[str, Schema]:
    """Return the part that each kind adds to a section, by kind."""
    branches = schema.get("allOf", ())
    return {test["const"]: branch["then"] for branch in branches for test in branch["if"]["properties"].values()}


def check_schema(document: Document) -> Iterator[Problem]:
    """Yield unknown keys, wrong types and values out of range, each with a suggestion."""
    yield from _check(document, (), document.data, full_schema())


def check_decisions(document: Document) -> Iterator[Problem]:
    """Check the section `decisions` alone, for a config that another version may have written."""
    if DECISIONS in document.data:
        yield from _check(document, (DECISIONS,), document.data[DECISIONS], _DECISIONS_SCHEMA)


@functools.cache
def full_schema() -> Schema:
    """Return Ludwig's schema with the section `decisions` and the options of search algorithms."""
    ludwig = read_ludwig_schema()
    hyperopt = ludwig["properties"]["hyperopt"]
    branches = [make_branch(kind, options) for kind, options in SEARCHES.items()]
    search = hyperopt["properties"]["search_alg"] | {"allOf": branches}
    metric = {key: item for key, item in hyperopt["properties"]["metric"].items() if key != "enum"}  # a rule checks it
    hyperopt = hyperopt | {"properties": hyperopt["properties"] | {"search_alg": search, "metric": metric}}
    return ludwig | {"properties": ludwig["properties"] | {"hyperopt": hyperopt, DECISIONS: _DECISIONS_SCHEMA}}


def _check(document: Document, path: KeyPath, value: object, schema: Schema) -> Iterator[Problem]:
    schema = _choose_alternative(value, schema["oneOf"]) if "oneOf" in schema else schema
    if message := _find_fault(value, schema):
        yield document.wrong(path, message)
    elif isinstance(value, dict) and ("properties" in schema or "allOf" in schema):
        yield from _check_mapping(document, path, value, schema)
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _check(document, (*path, key), item, schema.get("items", {}))


def _choose_alternative(value: object, alternatives: list[Schema]) -> Schema:
    """Return the schema that a value fits, or has the type of; else one that names all types and choices."""
    fitting = [each for each in alternatives if _has_type(value, _types_of(each))]
    if fitting:
        return next((each for each in fitting if not _find_fault(value, each)), fitting[0])
    choices = [choice for each in alternatives for choice in each.get("enum", ())]
    return {"type": [kind for each in alternatives for kind in _types_of(each)], "choices": choices}


def _check_mapping(document: Document, path: KeyPath, value: dict[str, Any], schema: Schema) -> Iterator[Problem]:
    properties, is_complete = _find_properties(value, schema)
    level, section = ("", f" under {format_key_path(path)}") if path else ("top-level ", "")
    meant = set()  # keys that misspelt ones stand for
    for key, item in value.items():
        name = key
        if key not in properties and is_complete:
            name, hint = _find_meaning(key, item, properties, path)
            if name != key and name in value:
                name, hint = key, f"{hint} It is there already"
            meant.add(name)
            yield document.problem((*path, key), f"unknown {level}key {key!r}{section}{hint}", (*path, name))
        if name in properties:
            yield from _check(document, (*path, key), item, properties[name])
    for key in schema.get("required", ()):
        if key not in value and key not in meant:
            yield document.problem((*path, key), f"missing {level}key {key!r}{section}")


def _find_properties(value: dict[str, Any], schema: Schema) -> tuple[Schema, bool]:
    """Return the keys that a mapping may have; False if there may be others, since its type is wrong or missing."""
    properties = dict(schema.get("properties", {}))
    branches = read_branches(schema)
    types = [*branches, *properties.get("type", {}).get("enum", ())]
    only = types[0] if "type" in schema.get("required", ()) and len(set(types)) == 1 else None
    kind = value.get("type", properties.get("type", {}).get("default", only))
    kind = kind if kind in types else find_near(str(kind), types)
    branch = branches.get(kind or "", {}).get("properties", {})
    return properties | {name: sub for name, sub in branch.items() if name != "type"}, not branches or kind is not None


def _find_meaning(key: str, item: object, properties: Schema, path: KeyPath) -> tuple[str, str]:
    """Return the key that an unknown one stands for, or the same, and how to fix it."""
    if item is None and (joined := re.fullmatch(r"(\w+)(:| +)(\S+)", key)) and joined[1] in properties:
        what = "space is missing after the colon" if joined[2] == ":" else "colon is missing"
        return joined[1], f"; a {what}: {joined[1]}: {joined[3]}"
    if near := find_near(key, properties):
        return near, f"; did you mean {near!r}?"
    for section, keys in _list_sections():
        if section != path and (same := find_same(key, keys)):
            place = f"under {format_key_path(section)}" if section else "at the top level"
            return key, f"; it belongs {place}" + (f", as {same!r}" if same != key else "")
    return key, f"; choose from {', '.join(sorted(properties))}" if len(properties) <= 20 else ""


@functools.cache
def _list_sections() -> list[tuple[KeyPath, tuple[str, ...]]]:
    """Return the sections of a config, those near the top level first, and the keys that each may have."""
    sections: list[tuple[KeyPath, tuple[str, ...]]] = []
    waiting: list[tuple[KeyPath, Schema]] = [((), full_schema())]
    for path, schema in waiting:
        properties = dict(schema.get("properties", {}))
        for branch in read_branches(schema).values():
            properties |= branch.get("properties", {})
        sections.append((path, tuple(name for name in properties if name != "type")))
        for name, sub in sorted(properties.items(), key=lambda item: item[0] != "preprocessing"):
            if name not in ("defaults", "hyperopt", "backend", "type"):
                waiting.append(((*path, name, 0), sub["items"]) if "items" in sub else ((*path, name), sub))
    return sections


def _find_fault(value: object, schema: Schema) -> str | None:
    """Return what is wrong with a value itself, and its fix."""
    types, choices = _types_of(schema), [choice for choice in schema.get("enum", ()) if choice is not None]
    if not isinstance(value, str | int | float | dict | list | None):
        return f"is read as a {type(value).__name__}; put it in quotes"
    if "enum" in schema and not _is_listed(value, schema["enum"]):
        return f"is {value!r:.100}; {suggest(value, list(map(str, choices)))}"
    if not _has_type(value, types):
        hint = number_hint(value, "number" not in types) if {"number", "integer"} & set(types) else ""
        if "object" in types and isinstance(value, str) and re.match(r"[\w.]+:\S", value):
            hint = " (a space is missing after a colon)"
        if schema.get("choices"):
            hint = f"; choose from {', '.join(schema['choices'])}"
        return f"must be {' or '.join(TYPES[kind][0] for kind in types)}, not {value!r:.100}{hint}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}; it must be a finite number"
    if isinstance(value, int | float) and not isinstance(value, bool):
        for key, is_wrong, rule in (
            ("minimum", operator.lt, "the least is"),
            ("maximum", operator.gt, "the most is"),
            ("exclusiveMinimum", operator.le, "it must be more than"),
            ("exclusiveMaximum", operator.ge, "it must be less than"),
        ):
            if key in schema and is_wrong(value, schema[key]):
                return f"is {value}; {rule} {schema[key]:g}"
    return None


def _is_listed(value: object, choices: list[object]) -> bool:
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in choices)  # True == 1


def _types_of(schema: Schema) -> list[str]:
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else types


def _has_type(value: object, types: list[str]) -> bool:
    if isinstance(value, bool):
        return not types or "boolean" in types
    return not types or any(isinstance(value, TYPES[kind][1]) for kind in types)
