"""YAML files other than a config, checked against a model, with the line of each fault."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pneumo.pipeline.config.document import Document, format_key_path, parse_document
from pneumo.pipeline.config.problems import ConfigError, Problem
from pneumo.pipeline.data.public_sets import SETS
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.contracts.population import Population


def validate_model[M: FrozenModel](content: Document, model: type[M]) -> M:
    """Return the content of a file as a model; raise a `ConfigError` that names the line of each fault."""
    try:
        return model.model_validate(content.data)
    except ValidationError as error:
        raise ConfigError([_describe_fault(content, model, fault) for fault in error.errors()]) from None


def read_population(source: str | Path) -> Population:
    """Return the population of a public data set, given its name, or of a YAML file, or raise an `InputError`."""
    if str(source) in SETS:
        return SETS[str(source)].population
    try:
        text = Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"--population {source}: no readable text file, nor a public data set ({', '.join(SETS)}); `pneumo init` "
            "writes a population.yaml to fill in"
        ) from None
    return validate_model(parse_document(text, str(source), "states nothing; fill in ages, views or sites"), Population)


def _describe_fault(content: Document, model: type[FrozenModel], fault: Any) -> Problem:
    place = tuple(part for part in fault["loc"] if part != "[key]")  # of a dictionary: the key itself is wrong
    message = ": ".join(filter(None, (format_key_path(place), fault["msg"].removeprefix("Value error, "))))
    if fault["type"] == "extra_forbidden":
        for key in place[:-1]:
            inner = model.model_fields[key].annotation
            model = inner if isinstance(inner, type) and issubclass(inner, FrozenModel) else model
        message = f"unknown key {format_key_path(place)!r}; the keys are {', '.join(model.model_fields)}"
    return content.problem(place, message)
