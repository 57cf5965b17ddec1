"""The search space `hyperopt.parameters` in Ludwig's language: read, checked, sampled, and put into a config.

A parameter is named by its position: `trainer.learning_rate`. That of a feature is written as in Ludwig,
`image.encoder.dropout`, or as in `-o`, `input_features.0.encoder.dropout`. The name `.` means the whole config. Works
without Ludwig and without Ray.
"""

import copy
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

from pneumo.pipeline import config
from pneumo.pipeline.config import Document
from pneumo.pipeline.config.document import format_key_path, parse_key_path
from pneumo.pipeline.config.json_schema import list_spaces
from pneumo.pipeline.config.problems import KeyPath, Problem, collect, read_on, refuse
from pneumo.pipeline.config.rules import component_rules
from pneumo.pipeline.config.suggestions import number_hint
from pneumo.serving.contracts.errors import InputError

SECTION: KeyPath = ("hyperopt", "parameters")
_FEATURES = ("input_features", "output_features")
CHECKED_DRAWS = 24
"""Random points of the space that are checked before a search starts, besides the ends of each parameter."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a space.

    Attributes:
        kind: One of `list_spaces()`.
        options: The keys beside `space`.
    """

    name: str
    kind: str
    options: dict[str, Any]

    @property
    def is_grid(self) -> bool:
        """True if every value is tried."""
        return self.kind == "grid_search"

    @property
    def is_normal(self) -> bool:
        """True for a normal distribution."""
        return self.kind.endswith("randn")

    @property
    def values(self) -> list[Any] | None:
        """The values of a list, or None for a range."""
        values = self.options.get("values", self.options.get("categories"))
        return None if values is None else list(values)

    @property
    def encoded(self) -> list[bool | int | float | str] | None:
        """The values as search algorithms take them: mappings, lists and null as JSON text."""
        return None if self.values is None else [encode(value) for value in self.values]

    def ends(self) -> list[Any]:
        """Return all values of a list, the two ends of a range, or the mean of a normal distribution."""
        if self.values is not None:
            return self.values
        if self.is_normal:
            return [self.options.get("mean", 0.0)]
        low, high = self.options["lower"], self.options["upper"]
        return [low, high - 1 if self.kind in ("randint", "lograndint") else high]

    def draw(self, source: random.Random) -> Any:
        """Draw a value for a check; searches draw with Ray Tune's own functions."""
        if self.values is not None:
            return source.choice(self.values)
        if self.is_normal:
            return source.gauss(self.options.get("mean", 0.0), self.options.get("sd", 1.0))
        low, high = self.ends()
        if "log" in self.kind:
            value = math.exp(source.uniform(math.log(low), math.log(high)))
        else:
            value = source.uniform(low, high)
        if step := self.options.get("q"):
            value = min(max(round(value / step) * step, low), high)
        return int(min(max(round(value), low), high)) if self.kind.endswith("randint") else value

    def decode(self, value: Any) -> Any:
        """Return a search algorithm's value as plain Python for the config, parsed if it is JSON text of a list."""
        if hasattr(value, "item"):
            value = value.item()  # NumPy's
        if self.values is None or self.encoded is None:
            return value
        for plain, text in zip(self.values, self.encoded, strict=True):
            if (type(value), value) in ((type(text), text), (type(plain), plain)) or value == json.dumps(plain):
                return plain
        raise InputError(f"hyperopt.parameters.{self.name}: {value!r} is none of its values")

    def encode(self, value: Any) -> Any:
        """Return a value of the config as search algorithms take it."""
        if self.values is None or self.encoded is None:
            return value
        return self.encoded[self.values.index(self.decode(value))]


@dataclass(frozen=True)
class Space:
    """The parameters of a search, and the config that they vary.

    Attributes:
        document: The config with overrides, without defaults.
        name: The config file's stem.
    """

    document: Document
    name: str
    parameters: tuple[Parameter, ...]

    @property
    def grid(self) -> int:
        """Number of points of the grid of all `grid_search` parameters; 1 without any."""
        return math.prod(len(parameter.ends()) for parameter in self.parameters if parameter.is_grid)

    def decode(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return a search algorithm's values by parameter, decoded."""
        return {parameter.name: parameter.decode(drawn[parameter.name]) for parameter in self.parameters}

    def experiment(self, values: Mapping[str, Any]) -> config.Experiment:
        """Return the checked config of parameters' values, without `hyperopt`; raise an `InputError` if it is wrong."""
        problems: list[Problem] = []
        document = read_on(problems, partial(substitute, self.document, values))
        document.data.pop("hyperopt", None)
        return config.build_experiment(document, self.name, problems=problems)

    def check(self) -> None:
        """Check the configs of each parameter's ends, and of random points with a fixed seed; raise all problems."""
        problems: list[Problem] = []
        collect(problems, self._check_peak)
        source = random.Random(0)
        for parameter in self.parameters:
            collect(problems, partial(self._check_ends, parameter, source))
        for _ in range(CHECKED_DRAWS):
            if not problems:
                collect(problems, partial(self.experiment, self._draw(source)))
        refuse(problems)

    def _check_ends(self, parameter: Parameter, source: random.Random) -> list[Problem]:
        """Return the problems of the configs of a parameter's ends, and one if it changes none of them."""
        problems: list[Problem] = []
        for end in parameter.ends():
            collect(problems, partial(self.experiment, self._draw(source) | {parameter.name: end}))
        if not problems and len(parameter.ends()) > 1 and not self._has_effect(parameter, source):
            place = (*SECTION, parameter.name)
            problems.append(self.document.wrong(place, "has no effect: the config is the same with each of its values"))
        return problems

    def _has_effect(self, parameter: Parameter, source: random.Random) -> bool:
        """Return True if two values of a parameter make different configs at one of a few random points."""
        for _ in range(8):
            point = self._draw(source)
            first, *others = (self.experiment(point | {parameter.name: end}).config for end in parameter.ends())
            if any(other != first for other in others):
                return True
        return False

    def _check_peak(self) -> None:
        """Refuse `learning_rate` under `one_cycle`, which takes its peak from `max_lr`."""
        names = {parameter.name for parameter in self.parameters}
        schedule = self.document.get(("trainer", "learning_rate_scheduler")) or {}
        swept = any(name == "." or name.startswith("trainer.learning_rate_scheduler") for name in names)
        if "trainer.learning_rate" in names and schedule.get("decay") == "one_cycle" and not swept:
            problem = "has no effect under one_cycle; vary its peak, trainer.learning_rate_scheduler.max_lr instead"
            self.document.reject((*SECTION, "trainer.learning_rate"), problem)

    def _draw(self, source: random.Random) -> dict[str, Any]:
        return {parameter.name: parameter.draw(source) for parameter in self.parameters}


def read_space(document: Document, name: str) -> Space:
    """Read `hyperopt.parameters` of a config; raise an `InputError` if it is missing or not in Ludwig's language."""
    section = document.get(SECTION)
    if not isinstance(section, dict) or not section:
        document.fail(
            SECTION[:1],
            "no search space: add hyperopt: {parameters: {trainer.learning_rate: {space: loguniform, lower: 1.0e-4, "
            "upper: 1.0e-2}}}, or let `pneumo sweep --auto` choose",
        )
    problems: list[Problem] = []
    parameters: list[Parameter] = []
    first: dict[KeyPath, str] = {}
    for key, value in section.items():
        collect(problems, partial(lambda *given: parameters.append(_read_parameter(*given)), document, key, value))
        if (other := first.setdefault(find_path(document, key), key)) != key:
            problems.append(document.wrong((*SECTION, key), f"is another name of {other}; leave one out"))
    refuse(problems)
    return Space(document, name, tuple(parameters))


def encode(value: Any) -> bool | int | float | str:
    """Return a value as search algorithms take it: scalars unchanged, all others as JSON text."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def substitute(document: Document, values: Mapping[str, Any]) -> Document:
    """Return a copy of a document with values put at the positions of their names, mappings merged as Ludwig does.

    A value that changes the type of a component drops the keys that only the old type has.
    """
    changed, problems = document.override(()), list[Problem]()
    lines = changed.lines
    for name, value in values.items():
        path = find_path(document, name)
        line = document.lines.get((*SECTION, name), document.lines.get(SECTION, 1))
        lines = {other: at for other, at in lines.items() if other[: len(path)] != path}
        lines |= dict.fromkeys(_list_paths(value, path), line)
        for length in range(1, len(path)):
            lines.setdefault(path[:length], line)  # sections that only the parameter makes
        if problem := _put(changed.data, path, value):
            problems.append(document.wrong((*SECTION, name), problem))
    changed = replace(changed, lines=lines)
    refuse(problems, changed)
    return changed


def find_path(document: Document, name: str) -> KeyPath:
    """Return the position of a parameter in a config; a feature is given by its name, or by its place in its list."""
    if name == ".":
        return ()
    parts = parse_key_path(name)
    for section in _FEATURES:
        listed = document.get((section,))
        names = [each.get("name") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        rest = parts[1:] if parts[0] == section else parts
        if rest and rest[0] in names:
            return (section, names.index(str(rest[0])), *rest[1:])
    return parts


def _put(data: dict[str, Any], path: KeyPath, value: Any) -> str | None:
    """Put a value at a position of a config; return the problem if that does not exist."""
    if not path or (len(path) == 1 and path[0] in _FEATURES):
        return _merge_whole(data, {path[0]: value} if path else value)
    target: Any = data
    for position, key in enumerate(path):
        parent = format_key_path(path[:position])
        if isinstance(target, list) and (not isinstance(key, int) or key >= len(target)):
            return f"does not exist: {parent} is a list of {len(target)}, without {key!r}"
        if not isinstance(target, dict | list):
            return f"does not exist: {parent} holds no keys"
        step: Any = key
        old = target.get(step) if isinstance(target, dict) else target[step]
        target[step] = _merge(old, value, path) if position == len(path) - 1 else {} if old is None else old
        target = target[step]
    return None


def _list_paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _list_paths(item, (*path, key))


def _merge(old: Any, value: Any, path: KeyPath) -> Any:
    if not isinstance(value, dict) or not isinstance(old, dict):
        return copy.deepcopy(value)
    kind = value.get("type", old.get("type"))
    if kind != old.get("type") and isinstance(path[-1], str):
        options = component_rules.find_component_schema("encoder", kind) if path[-1] == "encoder" else {}
        old = {key: item for key, item in old.items() if key in options}
    return {**old, **{key: _merge(old.get(key), item, (*path, key)) for key, item in value.items()}}


def _merge_whole(data: dict[str, Any], value: Any) -> str | None:
    """Merge sections into a config, features by name as Ludwig does; return the problem if a feature does not exist."""
    if not isinstance(value, dict):
        return f"has the value {value!r:.100}, which is no mapping of sections"
    for section, item in value.items():
        features = data.get(section)
        if isinstance(features, list) and isinstance(item, dict):
            by_name = {feature.get("name"): feature for feature in features}
            if unknown := [name for name in item if name not in by_name]:
                return f"names the feature {unknown[0]!r}, which {section} lacks; it has {', '.join(map(str, by_name))}"
            for name, part in item.items():
                by_name[name].update(_merge(by_name[name], part, (section, 0)) if isinstance(part, dict) else {})
        else:
            data[section] = _merge(data.get(section), item, (section,))
    return None


def _read_parameter(document: Document, name: str, given: Any) -> Parameter:
    def fail(problem: str) -> NoReturn:
        document.reject((*SECTION, name), problem)

    if not isinstance(given, dict) or "space" not in given:
        if isinstance(given, dict) and any(isinstance(item, dict) for item in given.values()):
            fail(f"has no 'space'; write nested names with dots: {name}.{next(iter(given))}: {{space: ...}}")
        fail("must be a mapping with 'space', such as {space: uniform, lower: 0, upper: 0.5}")
    kind = given["space"]
    if kind not in list(list_spaces()):  # it may be a list
        fail(f"has the space {kind!r}; choose from {', '.join(list_spaces())}")
    options = {key: value for key, value in given.items() if key != "space"}
    _check_options(options, kind, fail)
    if find_path(document, name)[:1] in (("hyperopt",), ("backend",)):
        fail("cannot be varied by a sweep; leave it out")
    return Parameter(name, kind, options)


def _check_options(options: dict[str, Any], kind: str, fail: Callable[[str], NoReturn]) -> None:
    required, known = list_spaces()[kind]
    if unknown := [key for key in options if key not in known]:
        fail(f"has the unknown key {unknown[0]!r}; known are {', '.join(known)}")
    if missing := [key for key in required if key not in options]:
        fail(f"needs {missing[0]!r}")
    if kind in ("choice", "grid_search"):
        _check_values(required[0], options[required[0]], fail)
    else:
        _check_range(options, kind, fail)


def _check_values(name: str, values: object, fail: Callable[[str], NoReturn]) -> None:
    if not isinstance(values, list) or not values:
        fail(f"needs {name!r}, a list of values")
    texts = [json.dumps(value, sort_keys=True, default=str) for value in values]
    if repeated := [text for text in texts if texts.count(text) > 1]:
        fail(f"lists {repeated[0]} twice")


def _check_range(options: dict[str, Any], kind: str, fail: Callable[[str], NoReturn]) -> None:
    for key, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            fail(f"has {key}: {value!r}, which is no number{number_hint(value)}")
        if kind.endswith("randint") and key != "base" and not isinstance(value, int):
            fail(f"has {key}: {value}, which must be a whole number")
    low, high = options.get("lower", 0), options.get("upper", 1)
    if low >= high:
        fail(f"has the range {low} to {high}; 'lower' must be less than 'upper'")
    if "log" in kind and low <= 0:
        fail("is logarithmic, so 'lower' must be more than 0")
    step = options.get("q", 1)
    if step <= 0 or options.get("sd", 1) <= 0 or options.get("base", 10) <= 1:
        fail("has a 'q' or 'sd' that is not above 0, or a 'base' that is not above 1")
    for key in ("lower", "upper") if "q" in options and "lower" in options else ():
        if not math.isclose(options[key] / step, round(options[key] / step)):
            fail(f"has {key}: {options[key]}, which is no multiple of q: {step}")
