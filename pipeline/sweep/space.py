"""The search space: `hyperopt.parameters` in Ludwig's language, checked, drawn from, and put into a config.

A parameter is named by where it stands, the feature's name first: `trainer.learning_rate`, `image.encoder.dropout`. The
name `.` means the whole config. Works without Ludwig and without Ray.
"""

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pneumo.pipeline import config
from pneumo.pipeline.config import Document
from pneumo.pipeline.config.document import KeyPath
from pneumo.pipeline.config.rules import component_rules
from pneumo.pipeline.config.schema import number_hint
from pneumo.serving.contracts.errors import InputError

SECTION: KeyPath = ("hyperopt", "parameters")
CHECKED_DRAWS = 24
"""Random points of the space that are checked before anything starts, besides the ends of each parameter."""

_RANGE = {"uniform": (), "quniform": ("q",), "loguniform": ("base",), "qloguniform": ("q", "base")}
_WHOLE = {"randint": (), "qrandint": ("q",), "lograndint": ("base",), "qlograndint": ("q", "base")}
_NORMAL = {"randn": (), "qrandn": ("q",)}
_LISTS = {"choice": "categories", "grid_search": "values"}
KINDS = (*_LISTS, *_RANGE, *_WHOLE, *_NORMAL)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a space.

    Attributes:
        name: As it stands under `hyperopt.parameters`.
        kind: One of `KINDS`.
        options: What stands beside `space`.
    """

    name: str
    kind: str
    options: dict[str, Any]

    @property
    def is_grid(self) -> bool:
        """Whether every value is tried."""
        return self.kind == "grid_search"

    @property
    def values(self) -> list[Any] | None:
        """The values of a list; None for a range."""
        return list(self.options[_LISTS[self.kind]]) if self.kind in _LISTS else None

    @property
    def encoded(self) -> list[Any] | None:
        """The values as search algorithms take them: mappings, lists and null as JSON text."""
        return None if self.values is None else [encode(value) for value in self.values]

    def ends(self) -> list[Any]:
        """All values of a list, the two ends of a range, the middle of a normal distribution."""
        if self.values is not None:
            return self.values
        if self.kind in _NORMAL:
            return [self.options.get("mean", 0.0)]
        low, high = self.options["lower"], self.options["upper"]
        return [low, high - 1 if self.kind in ("randint", "lograndint") else high]

    def draw(self, source: random.Random) -> Any:
        """One value, for a check; searches draw with Ray Tune's own functions."""
        if self.values is not None:
            return source.choice(self.values)
        if self.kind in _NORMAL:
            return source.gauss(self.options.get("mean", 0.0), self.options.get("sd", 1.0))
        low, high = self.ends()
        if "log" in self.kind:
            value = math.exp(source.uniform(math.log(low), math.log(high)))
        else:
            value = source.uniform(low, high)
        if self.options.get("q"):
            value = min(max(round(value / self.options["q"]) * self.options["q"], low), high)
        return int(min(max(round(value), low), high)) if self.kind in _WHOLE else value

    def decode(self, value: Any) -> Any:
        """What a search algorithm drew, as it goes into the config: plain Python, JSON text as what it says."""
        if hasattr(value, "item"):
            value = value.item()  # NumPy's
        values, encoded = self.values, self.encoded
        if values is None or encoded is None:
            return value
        for plain, text in zip(values, encoded, strict=True):
            if (type(value), value) in ((type(text), text), (type(plain), plain)) or value == json.dumps(plain):
                return plain
        raise InputError(f"hyperopt.parameters.{self.name}: {value!r} is none of its values")


@dataclass(frozen=True)
class Space:
    """What is varied, and the document it is put into.

    Attributes:
        document: The config as given, overrides applied, defaults not filled in.
        name: The config file's stem.
        parameters: In the order of the config.
    """

    document: Document
    name: str
    parameters: tuple[Parameter, ...]

    @property
    def grid(self) -> int:
        """How many points the grid has that `grid_search` parameters make; 1 without any."""
        return math.prod(len(parameter.values or ()) for parameter in self.parameters if parameter.is_grid)

    def decode(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Values by parameter, from what a search algorithm drew."""
        return {parameter.name: parameter.decode(drawn[parameter.name]) for parameter in self.parameters}

    def experiment(self, values: Mapping[str, Any]) -> config.Experiment:
        """The complete, checked config of one point, without its `hyperopt` section.

        Args:
            values: By parameter name; parameters that are left out stay as in the config.

        Raises:
            InputError: The point makes no valid config: file, line of the parameter, what is wrong.
        """
        document = substitute(self.document, values)
        document.data.pop("hyperopt", None)
        return config.build_experiment(document, self.name)

    def check(self) -> None:
        """Refuse a space that has points which make no valid config.

        Looked at are the ends of every parameter, and random points (with a fixed seed).

        Raises:
            InputError: The first that is found.
        """
        self._check_peak()
        source = random.Random(0)
        for parameter in self.parameters:
            for end in parameter.ends():
                self.experiment(self._drawn(source) | {parameter.name: end})
        for _ in range(CHECKED_DRAWS):
            self.experiment(self._drawn(source))

    def _check_peak(self) -> None:
        """`one_cycle` takes its peak from `max_lr` and ignores `learning_rate`."""
        names = {parameter.name for parameter in self.parameters}
        schedule = self.document.get(("trainer", "learning_rate_scheduler")) or {}
        swept = any(name == "." or name.startswith("trainer.learning_rate_scheduler") for name in names)
        if "trainer.learning_rate" in names and schedule.get("decay") == "one_cycle" and not swept:
            self.document.fail(
                (*SECTION, "trainer.learning_rate"),
                "hyperopt.parameters.trainer.learning_rate changes nothing under one_cycle, whose peak is max_lr; "
                "vary trainer.learning_rate_scheduler.max_lr instead",
            )

    def _drawn(self, source: random.Random) -> dict[str, Any]:
        return {parameter.name: parameter.draw(source) for parameter in self.parameters}


def read_space(document: Document, name: str) -> Space:
    """Read `hyperopt.parameters` of a config.

    Raises:
        InputError: There is none, a parameter is not in Ludwig's language, or its name means nothing in the config.
    """
    section = document.get(SECTION)
    if not isinstance(section, dict) or not section:
        document.fail(
            SECTION[:1],
            "nothing to sweep: add hyperopt: {parameters: {trainer.learning_rate: {space: loguniform, lower: 1.0e-4, "
            "upper: 1.0e-2}}}, or let `pneumo sweep --auto` choose",
        )
    parameters = tuple(_parameter(document, key, section[key]) for key in section)
    return Space(document, name, parameters)


def encode(value: Any) -> Any:
    """A value as search algorithms take it."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def substitute(document: Document, values: Mapping[str, Any]) -> Document:
    """Put values into a config where their names say, merging mappings as Ludwig does.

    Where a value changes the type of a component, what only the old type knows is dropped.
    """
    changed = document.override(())
    lines = dict(changed.lines)
    for name, value in values.items():
        path = path_of(document, name)
        line = document.lines.get((*SECTION, name), document.lines.get(SECTION, 1))
        for length in range(1, len(path)):
            lines.setdefault(path[:length], line)  # sections that only the parameter makes
        for inner in _paths(value, path):
            lines = {known: at for known, at in lines.items() if known[: len(inner)] != inner}
            lines[inner] = line
        target: Any = changed.data
        if name == ".":
            _merge_whole(target, value)
            continue
        for step, following in itertools.pairwise(path):
            if isinstance(target, dict) and target.get(step) is None:
                target[step] = [] if isinstance(following, int) else {}
            target = target[step]
            if not isinstance(target, dict | list):
                document.fail((*SECTION, name), f"hyperopt.parameters.{name}: {step!r} holds no keys")
        key = path[-1]
        known = target.get(key) if isinstance(target, dict) else None
        target[key] = _merged(known, value, path)
    return replace(changed, lines=lines)


def path_of(document: Document, name: str) -> KeyPath:
    """Where a parameter stands in a config: a feature's name first means that feature."""
    if name == ".":
        return ()
    parts: KeyPath = tuple(name.split("."))
    for section in ("input_features", "output_features"):
        for index, feature in enumerate(document.get((section,)) or []):
            if isinstance(feature, dict) and feature.get("name") == parts[0]:
                return (section, index, *parts[1:])
    return parts


def _paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, index))


def _merged(known: Any, value: Any, path: KeyPath) -> Any:
    if not isinstance(value, dict) or not isinstance(known, dict):
        return json.loads(json.dumps(value))  # a copy of its own
    kind = value.get("type", known.get("type"))
    if kind != known.get("type"):
        understood = component_rules.find_component_schema("encoder", kind) if path[-1] == "encoder" else {}
        known = {key: item for key, item in known.items() if key in understood}
    return {**known, **{key: _merged(known.get(key), item, (*path, key)) for key, item in value.items()}}


def _merge_whole(data: dict[str, Any], value: dict[str, Any]) -> None:
    for section, item in value.items():
        features = data.get(section)
        if isinstance(features, list) and isinstance(item, dict):  # features by name, as Ludwig merges them
            for feature in features:
                feature.update(_merged(feature, item.get(feature["name"], {}), (section, 0)))
        else:
            data[section] = _merged(data.get(section), item, (section,))


def _parameter(document: Document, name: str, given: Any) -> Parameter:
    where: KeyPath = (*SECTION, name)
    label = f"hyperopt.parameters.{name}"

    def fail(message: str) -> InputError:
        return InputError(f"{document.locate(where)}: {label} {message}")

    if not isinstance(given, dict) or "space" not in given:
        if isinstance(given, dict) and any(isinstance(item, dict) for item in given.values()):
            inner = next(iter(given))
            raise fail(f"has no 'space'; write nested names with dots: {name}.{inner}: {{space: ...}}")
        raise fail("must be a mapping with 'space', such as {space: uniform, lower: 0, upper: 0.5}")
    kind = given["space"]
    if kind not in KINDS:
        raise fail(f"has the space {kind!r}; choose from {', '.join(KINDS)}")
    options = {key: value for key, value in given.items() if key != "space"}
    if kind in _LISTS:
        _check_list(options, _LISTS[kind], fail)
        parameter = Parameter(name, kind, options)
    else:
        parameter = Parameter(name, kind, _checked_range(options, kind, fail))
    path = path_of(document, name)
    if path[:1] not in (("input_features",), ("output_features",)) and name != "." and len(path) == 1:
        raise fail(f"names a whole section; name what is in it: {name}.KEY")
    if path[:1] in (("hyperopt",), ("backend",)):
        raise fail("cannot be varied by a sweep; leave it out")
    return parameter


def _check_list(options: dict[str, Any], wanted: str, fail: Callable[[str], InputError]) -> None:
    values = options.get(wanted)
    if not isinstance(values, list) or not values:
        raise fail(f"needs '{wanted}', a list of values")
    unknown = sorted(set(options) - {wanted})
    if unknown:
        raise fail(f"has the unknown key {unknown[0]!r}; known is {wanted!r}")
    texts = [json.dumps(value, sort_keys=True, default=str) for value in values]
    if len(set(texts)) < len(texts):
        raise fail(f"lists {next(text for text in texts if texts.count(text) > 1)} twice")


def _checked_range(options: dict[str, Any], kind: str, fail: Callable[[str], InputError]) -> dict[str, Any]:
    extra = (_RANGE | _WHOLE | _NORMAL)[kind]
    needed = () if kind in _NORMAL else ("lower", "upper")
    known = (*needed, *(("mean", "sd") if kind in _NORMAL else ()), *extra)
    for key, value in options.items():
        if key not in known:
            raise fail(f"has the unknown key {key!r}; known are {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise fail(
                f"has {key}: {value!r}, which is no number{number_hint(value) if isinstance(value, str) else ''}"
            )
        if kind in _WHOLE and key != "base" and not isinstance(value, int):
            raise fail(f"has {key}: {value}, which must be a whole number")
    for key in (*needed, *(key for key in extra if key == "q")):
        if key not in options:
            raise fail(f"needs {key!r}")
    if needed and options["lower"] >= options["upper"]:
        raise fail(f"runs from {options['lower']} to {options['upper']}; 'lower' must be less than 'upper'")
    if "log" in kind and options["lower"] <= 0:
        raise fail("is logarithmic, so that 'lower' must be more than 0")
    if options.get("q", 1) <= 0 or options.get("sd", 1) <= 0 or options.get("base", 10) <= 1:
        raise fail("has a 'q', 'sd' or 'base' that is too small")
    return options
