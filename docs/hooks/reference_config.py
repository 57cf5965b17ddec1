"""The reference of configs, from their JSON Schema: a section a mapping, its kinds with an example each."""

from collections.abc import Iterator
from pathlib import Path

from reference_parts import table

from pneumo.pipeline.config.explanation import Explanation, explain_option, format_value
from pneumo.pipeline.config.json_schema import Option, describe_schema, list_options
from pneumo.pipeline.config.schema import read_branches

ORDER = ("config", "input_features", "output_features", "trainer", "preprocessing", "decisions", "hyperopt")
PICTURES = Path(__file__).parents[1] / "reference" / "augmentations"
REPLACED = ("Refused: ", "Becomes ")
HEADINGS = {
    "encoder": "Encoders",
    "augmentation": "Augmentations",
    "loss": "Losses",
    "decoder": "Decoders",
    "optimizer": "Optimizers",
    "parameters": "Search spaces",
    "search_alg": "Search algorithms",
    "scheduler": "Schedulers",
    "threshold": "Threshold policies",
}


def markdown() -> str:
    """Return a section per mapping of a config; what is said once is not repeated."""
    seen: set[str] = set()
    parts: list[str] = []
    schema = describe_schema()
    options = [Option(("config",), schema), *list_options(schema)]
    places = {name: place for place, name in enumerate(ORDER)}
    for option in sorted(options, key=lambda option: places.get(option.names[0], len(ORDER))):
        section = explain_option(option)
        is_repeated = option.is_kind or "ensemble" in option.kinds or [each.name for each in section.below] == ["type"]
        body = "\n\n".join(filter(None, _section(option, section)))
        if section.below and not is_repeated and body not in seen:
            seen.add(body)
            parts += [f"## {_heading(option)}", body]
    return "\n\n".join(parts)


def _heading(option: Option) -> str:
    if option.names == ("config",):
        return "The whole file"
    name, kinds = HEADINGS.get(option.names[-1]), [f" of `{kind}`" for kind in option.kinds if kind != "image"]
    return f"{name}: `{option.path}`{''.join(kinds)}" if name else f"`{option.path}`{''.join(kinds)}"


def _section(option: Option, section: Explanation) -> Iterator[str]:
    yield section.description
    names = {each.name for each in section.below if " " in each.key}  # kinds
    yield _table(each for each in section.below if each.name not in names)
    parts = (option.schema, *option.schema.get("oneOf", ()))
    sections = [part.get("items", part.get("additionalProperties")) for part in parts]
    kinds = [found for part in (*parts, *sections) if isinstance(part, dict) for found in read_branches(part).items()]
    if "meanings" in option.schema:
        yield table(["policy", "chooses"], [[f"`{each.name}`", each.description] for each in section.below])
    yield table(
        ["type", "instead"],
        [[f"`{kind}`", f"{part['description']} `{_example(option, part)}`"] for kind, part in kinds if _replaced(part)],
    )
    for kind, part in kinds:
        if not _replaced(part):
            explained = explain_option(Option((*option.names, f"<{kind}>"), part))
            yield f"### `{kind}`"
            yield part["description"]
            yield _table(explained.below)
            if (PICTURES / f"{kind}.webp").is_file():
                yield f"![{kind} at its extremes, on a phantom](augmentations/{kind}.webp)"
            yield f"```yaml\n{_example(option, part)}\n```"


def _replaced(part: dict[str, object]) -> bool:
    return str(part["description"]).startswith(REPLACED)


def _example(option: Option, part: dict[str, list[object]]) -> str:
    """Return a kind's example as YAML of one line, under the key that it stands at."""
    name, example = option.names[-1], format_value(part["examples"][0])
    if name == "parameters":
        return f"trainer.batch_size: {example}" if "int" in example else f"image.encoder.dropout: {example}"
    lists = ("augmentation", "input_features", "output_features")
    return f"{name}: [{example}]" if name in lists else f"{name}: {example}"


def _table(keys: Iterator[Explanation] | tuple[Explanation, ...]) -> str:
    rows = [
        [
            f"`{each.name}`",
            each.type,
            f"`{each.default}`" if each.default else "",
            ", ".join([each.range, *(f"`{choice}`" for choice in each.choices)]).strip(", "),
            each.description,
        ]
        for each in keys
        if each.description != "Set by Ludwig."
    ]
    return table(["key", "type", "default", "values", "what"], rows)
