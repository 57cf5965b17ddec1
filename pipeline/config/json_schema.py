"""The JSON Schema of a whole config, for editors, `pneumo config explain` and the reference of the documentation.

It says what `check_schema` checks, with meanings, defaults and choices, and draws the line closer where a rule does.
"""

import functools
import importlib.resources
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pneumo.pipeline.config import selection_metric
from pneumo.pipeline.config.schema import SEARCHES, Schema, full_schema, read_branches

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEDULERS = ("fifo", "async_hyperband", "median_stopping_rule")
"""Supported schedulers of a sweep."""

_STRUCTURE = {"properties", "allOf", "oneOf", "items", "additionalProperties", "meanings"}


@dataclass(frozen=True)
class Option:
    """A key of a config, or one of the kinds that a section can have.

    Attributes:
        names: Keys from the top level, "0" for the items of a list, a kind in brackets: `encoder`, `<backbone>`.
    """

    names: tuple[str, ...]
    schema: Schema

    @property
    def is_kind(self) -> bool:
        """True for a kind, such as an encoder."""
        return self.names[-1].startswith("<")

    @property
    def path(self) -> str:
        """Place as overrides write it, with a kind after it: `trainer.optimizer.type`, `trainer.optimizer sgd`."""
        place = ".".join(name for name in self.names if not name.startswith("<"))
        return f"{place} {self.words[-1]}" if self.is_kind else place

    @property
    def words(self) -> tuple[str, ...]:
        """Names without brackets, positions and `NAME`."""
        return tuple(name.strip("<>") for name in self.names if name not in ("0", "NAME"))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of the sections around it, outermost first."""
        return tuple(name.strip("<>") for name in self.names if name.startswith("<"))


def list_options(schema: Schema, names: tuple[str, ...] = ()) -> Iterator[Option]:
    """List every key and kind of a schema, each section before what lies under it."""
    for part in schema.get("oneOf", ()):
        yield from list_options(part, names)
    for key, name in (("items", "0"), ("additionalProperties", "NAME")):
        if isinstance(schema.get(key), dict):
            yield from list_options(schema[key], (*names, name))
    for name, sub in schema.get("properties", {}).items():
        yield Option((*names, name), sub)
        yield from list_options(sub, (*names, name))
    for kind, branch in read_branches(schema).items():
        yield Option((*names, f"<{kind}>"), branch)
        yield from list_options(branch, (*names, f"<{kind}>"))


@functools.cache
def read_descriptions() -> dict[str, dict[str, Any]]:
    """Read the texts of keys and kinds, and sections that Ludwig's schema leaves open."""
    file = importlib.resources.files("pneumo.pipeline.config").joinpath("descriptions.json")
    texts: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return texts


@functools.cache
def list_spaces() -> dict[str, tuple[list[str], list[str]]]:
    """Return the required and all keys of each kind of search space, by kind."""
    parts = read_branches(read_descriptions()["sections"]["parameters"])
    return {kind: (part["required"], list(part["properties"])) for kind, part in parts.items()}


@functools.cache
def describe_schema() -> Schema:
    """Return the schema of a config with descriptions, examples and search spaces; `if` names the kinds of a section.

    Descriptions stand in `descriptions.json` by the last names of a place, the longest wins; for other keys they are
    those of the component itself, shortened.
    """
    about = {"description": "Config of an experiment: image, label, network, training, decisions, search space."}
    schema: Schema = about | json.loads(json.dumps(full_schema()))  # parts that are shared become apart
    hyperopt, properties = schema["properties"]["hyperopt"]["properties"], schema["properties"]
    texts = read_descriptions()
    hyperopt["parameters"]["additionalProperties"] = json.loads(json.dumps(texts["sections"]["parameters"]))
    _keep_kinds(hyperopt["search_alg"], tuple(SEARCHES))
    _keep_kinds(hyperopt["executor"]["properties"]["scheduler"], (*SCHEDULERS, "medianstoppingrule"))
    metrics = sorted({name for names in schema.pop("metrics").values() for name in names})
    mean = {"type": "string", "pattern": selection_metric.MEAN}
    hyperopt["metric"]["oneOf"] = [{"enum": [*metrics, *selection_metric.OWN]}, mean]
    chooser = properties["trainer"]["properties"]["validation_metric"]
    chooser["oneOf"] = [{"enum": [*metrics, *selection_metric.OWN, None]}, mean]
    for section in ("input_features", "output_features"):
        properties[section] |= {"minItems": 1, "maxItems": 1}
    for option in list(list_options(schema)):
        words = option.words
        if option.is_kind:
            section = "encoder" if words[-2] == "members" else words[-2]
            names = (".".join(words[-3:]), f"{section}.{words[-1]}")
            option.schema.update(next((texts["kinds"][name] for name in names if name in texts["kinds"]), {}))
            continue
        plain = tuple(name for name in option.names if name in words)  # without kinds
        tails = [".".join(each[-length:]) for length in range(4, 0, -1) for each in (words, plain)]
        found = next((tail for tail in tails if tail in texts["keys"]), "")
        if "." in found or found == ".".join(words) or "description" not in option.schema:
            text = texts["keys"].get(found, {})
            option.schema.update({"description": text} if isinstance(text, str) else text)
    return schema


def _keep_kinds(section: Schema, kinds: tuple[str, ...]) -> None:
    section["properties"]["type"]["enum"] = list(kinds)
    section["allOf"] = [each for each in section["allOf"] if each["if"]["properties"]["type"]["const"] in kinds]


def build_json_schema() -> Schema:
    """Return the JSON Schema (2020-12) of a config; it refuses unknown keys, and those of another kind of a section."""
    return {"$schema": DIALECT, **_convert(describe_schema())}


def _convert(schema: Schema) -> Schema:
    converted: Schema = {key: value for key, value in schema.items() if key not in _STRUCTURE}
    if "oneOf" in schema:
        converted["anyOf"] = [_convert(part) for part in schema["oneOf"]]
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            converted[key] = _convert(schema[key])
    if "properties" not in schema and "allOf" not in schema:
        return converted
    common = {name: _convert(sub) for name, sub in schema.get("properties", {}).items()}
    if "allOf" not in schema:
        return converted | {"properties": common, "additionalProperties": False}
    key, parts = next(iter(schema["allOf"][0]["if"]["properties"])), read_branches(schema)
    default, stated = common[key].get("default"), {"required": [key]}
    common[key]["enumDescriptions"] = [parts.get(kind, {}).get("description", "") for kind in common[key]["enum"]]
    rules: list[Schema] = []
    for kind in common[key]["enum"]:
        part = parts.get(kind, {})
        own = common | {name: _convert(sub) for name, sub in part.get("properties", {}).items()} | {key: True}
        then = _convert({"required": part.get("required", [])}) | {"properties": own, "additionalProperties": False}
        test = {"properties": {key: {"const": kind}}} | ({} if kind == default else stated)
        rules.append({"if": test, "then": then})
    if default is None:
        rules.append({"if": stated, "else": {"properties": common, "additionalProperties": False}})
    return converted | {"properties": {key: common[key]}, "allOf": rules}
