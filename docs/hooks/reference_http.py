"""The reference of the HTTP interface, from the OpenAPI document of the application itself."""

import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from reference_parts import attributes, summary, table

from pneumo.serving.contracts.problems import KINDS
from pneumo.serving.http.app import create_app
from pneumo.serving.http.openapi import build_openapi
from pneumo.serving.model.bundle import Bundle, BundleInfo

Json = dict[str, Any]

_PROBLEM = "application/problem+json"


def markdown() -> str:
    """Examples, routes by topic, kinds of problems, and the fields of answers."""
    document = _openapi()
    tags: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            tags.setdefault(route["tags"][0], []).append(_route(method.upper(), path, route))
    parts = [document["info"]["description"].strip()]
    for tag, routes in tags.items():
        parts += [f"## {tag.capitalize()}", *routes]
    return "\n\n".join([*parts, _problems(), *_fields(document["components"]["schemas"])])


def _openapi() -> Json:
    info = BundleInfo.model_construct(name="pneumo", version="1")
    return build_openapi(create_app(Bundle(Path(), info, digest="")), needs_keys=True)


def _route(method: str, path: str, route: Json) -> str:
    parts = [f"### `{method} {path}`", f"{route['summary']}.", route.get("description", "")]
    if "security" in route:
        parts.append("Needs a key if the service asks for keys.")
    parameters = [
        [f"`{one['name']}`", one["in"], _type(one["schema"]), one.get("description", "")]
        for one in route.get("parameters", [])
    ]
    parts.append(table(["parameter", "in", "type", "what"], parameters))
    body = route.get("requestBody", {}).get("content", {})
    parts.append(table(["body", "holds"], [[f"`{media}`", _type(of["schema"])] for media, of in body.items()]))
    answers = [[status, _answer(status, answer)] for status, answer in sorted(route["responses"].items())]
    parts.append(table(["answer", "holds"], answers))
    return "\n\n".join(filter(None, parts))


def _answer(status: str, answer: Json) -> str:
    content = answer.get("content", {})
    if [*content] == [_PROBLEM]:
        return f"[{HTTPStatus(int(status)).phrase}](#problems)"
    held = [
        f"{_type(of['schema'])} as `{media}`" if of.get("schema") else f"`{media}`" for media, of in content.items()
    ]
    return " or ".join(held) or answer["description"]


def _type(schema: Json) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(map(_type, schema[several])))
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object":
        return _object(schema)
    binary = schema.get("format") == "binary"
    kind = (
        "bytes" if binary else schema.get("contentEncoding") or schema.get("format") or schema.get("type", "anything")
    )
    default = schema.get("default")
    return f"{kind}, `{json.dumps(default)}` by default" if default not in (None, "", []) else str(kind)


def _object(schema: Json) -> str:
    if isinstance(schema.get("additionalProperties"), dict) and "properties" not in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    needed = schema.get("required", [])
    fields = (
        f"`{name}`{'' if name in needed else '?'}: {_type(of)}" for name, of in schema.get("properties", {}).items()
    )
    return f"{{ {', '.join(fields)} }}"


def _problems() -> str:
    rows = [[f"`urn:pneumo:problem:{kind}`", str(status), title] for kind, (status, title) in KINDS.items()]
    return (
        "## Problems\n\nErrors are documents of RFC 9457 (`application/problem+json`) with the fields of "
        "[Problem](#problem). `type` is one of these, or `about:blank`:\n\n" + table(["type", "status", "title"], rows)
    )


def _fields(schemas: Json) -> Iterator[str]:
    yield "## Fields"
    classes = {found.__name__: found for found in _models(BaseModel) if found.__module__.startswith("pneumo.serving.")}
    for name, schema in sorted(schemas.items()):
        yield f"### {name}"
        yield summary(schema.get("description", ""))
        told: dict[str, str] = {}
        for ancestor in reversed(classes[name].__mro__ if name in classes else ()):
            told |= attributes(ancestor.__doc__ or "")
        fields = schema.get("properties", {})
        rows = [[f"`{field}`", _type(of), of.get("description") or told.get(field, "")] for field, of in fields.items()]
        yield table(["field", "type", "what"], rows)
        if "enum" in schema:
            yield _type(schema)


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in model.__subclasses__():
        yield child
        yield from _models(child)
