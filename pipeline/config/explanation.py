"""What a key of a config means: `pneumo config explain`."""

import json
from dataclasses import dataclass
from typing import Any

from pneumo.pipeline.config.json_schema import Option, describe_schema, list_options
from pneumo.pipeline.config.schema import TYPES, Schema, read_branches
from pneumo.pipeline.config.suggestions import find_near
from pneumo.serving.contracts.errors import InputError


@dataclass(frozen=True)
class Explanation:
    """Meaning of a key, or of a kind of a section such as an encoder.

    Attributes:
        key: Its place in a config, as overrides write it, and the kind if it is one.
        name: Last part of the key, or the kind.
        kinds: Kinds of the sections around it for which this holds, such as `efficientnet_lite`.
        type: Types in words; empty if any value is taken.
        default: As YAML; empty if there is none.
        range: Bounds in words.
        examples: As YAML.
        below: Keys under it, or the kinds that it may have.
    """

    key: str
    name: str
    kinds: tuple[str, ...]
    description: str
    type: str
    default: str
    range: str
    choices: tuple[str, ...]
    examples: tuple[str, ...]
    below: "tuple[Explanation, ...]" = ()


def explain(words: list[str]) -> list[Explanation]:
    """Explain `trainer.epochs`, or last parts and kinds such as `encoder` and `backbone`; no words: the whole config.

    Raises:
        InputError: There is no such key; the message names the nearest.
    """
    query = tuple(part for word in words for part in word.split(".") if part and not part.isdigit())
    schema = describe_schema()
    if not query:
        return [explain_option(Option(("config",), schema))]
    options = list(list_options(schema))
    found = _find(query, options)
    if not found:
        vocabulary = {word for option in options for word in option.words}
        near = tuple(word if word in vocabulary else find_near(word, vocabulary) or word for word in query)
        similar = _find(near, options) or _find(near[-1:], options)
        hint = f"did you mean {similar[0].path!r}?" if similar else "`pneumo config explain` lists the sections"
        raise InputError(f"{' '.join(words)}: no such key; {hint}")
    groups: dict[str, list[Option]] = {}
    for option in found:
        groups.setdefault(option.path + json.dumps(option.schema, sort_keys=True), []).append(option)
    return [explain_option(*group) for group in groups.values()]


def explain_option(option: Option, *same: Option, deep: bool = True) -> Explanation:
    """Explain an option; `same` are those that differ in the kinds of the sections around them only."""
    schema = option.schema
    around = [each.kinds[:-1] if each.is_kind else each.kinds for each in (option, *same)]
    named = (" ".join(kind for kind in kinds if kind != "image") for kinds in around)
    return Explanation(
        key=option.path,
        name=option.names[-1].strip("<>"),
        kinds=tuple(dict.fromkeys(filter(None, named))),
        description=schema.get("description", ""),
        type="mapping" if option.is_kind else _name_types(schema),
        default=format_value(schema["default"]) if "default" in schema else "",
        range=_name_range(schema),
        choices=tuple(format_value(choice) for part in _alternatives(schema) for choice in part.get("enum", ())),
        examples=tuple(map(format_value, schema.get("examples", ()))),
        below=tuple(explain_option(each, deep=False) for each in _list_below(option)) if deep else (),
    )


def format_value(value: Any) -> str:
    """Return a value as YAML of one line, as a person writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {format_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(format_value, value)) + "]"
    return value if isinstance(value, str) and value else json.dumps(value)


def _find(query: tuple[str, ...], options: list[Option]) -> list[Option]:
    """Return options whose names are the query, or else end with it, or else hold its words in order."""

    def rank(option: Option) -> int:
        plain = tuple(word for word in option.names if word in option.words)
        forms, rest = {option.words, option.words if option.is_kind else plain}, iter(option.words)
        if any(form[-len(query) :] == query for form in forms):
            return int(query not in forms)
        return 2 if option.words[-1] == query[-1] and all(word in rest for word in query) else 3

    ranks = [rank(option) for option in options]
    best = [option for option, each in zip(options, ranks, strict=True) if each == min(ranks) < 3]
    if best and best[0].is_kind:
        least = min(len(option.names) for option in best)
        best = [option for option in best if len(option.names) == least]
    return best


def _list_below(option: Option) -> list[Option]:
    """Return the keys and the kinds of a section, or of the items of a list."""
    told = zip(option.schema.get("examples", ()), option.schema.get("meanings", ()), strict=False)
    options = [Option((*option.names, f"<{text}>"), {"description": meaning}) for text, meaning in told]
    for part in _alternatives(option.schema):
        inner = part.get("items", part.get("additionalProperties"))
        section = inner if isinstance(inner, dict) else part
        names = tuple(name for name in option.names if name != "config")
        names += ("0",) if "items" in part else ("NAME",) if isinstance(inner, dict) else ()
        options += [Option((*names, name), sub) for name, sub in section.get("properties", {}).items()]
        options += [Option((*names, f"<{kind}>"), branch) for kind, branch in read_branches(section).items()]
    return options


def _alternatives(schema: Schema) -> list[Schema]:
    return schema.get("oneOf") or [schema]


def _name_types(schema: Schema) -> str:
    types = [part.get("type", []) for part in _alternatives(schema)]
    names = [name for each in types for name in ([each] if isinstance(each, str) else each)]
    return " or ".join(dict.fromkeys(TYPES[name][0].removeprefix("a ") for name in names))


def _name_range(schema: Schema) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "more than"}
    words |= {"maximum": "at most", "exclusiveMaximum": "less than"}
    told = ((part[key], word) for part in _alternatives(schema) for key, word in words.items() if key in part)
    return ", ".join(f"{word} {bound:g}" for bound, word in told)
