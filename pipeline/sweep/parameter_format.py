"""Parameters in readable form: a short name, a short text of any value, and a value's position on an axis."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pneumo.pipeline.sweep.record import Sweep, Trial
from pneumo.serving.contracts.figures import format_figure

_LONGEST = 40
_CATEGORIES = frozenset({"choice", "grid_search"})
_LOGS = frozenset({"loguniform", "qloguniform", "lograndint", "qlograndint"})


@dataclass(frozen=True)
class Axis:
    """One parameter of a sweep as an axis of a chart.

    Attributes:
        short: Last parts of the name that no other parameter shares.
        low: Smallest value that the search draws, `high` the largest; None for categories and unknown bounds.
        categories: Numbers in ascending order, other values as declared, then those that only trials have.
        labels: A unique text for each category.
        gaussian: Mean and standard deviation.
    """

    name: str
    short: str
    kind: Literal["linear", "log", "category"]
    low: float | None = None
    high: float | None = None
    categories: tuple[object, ...] = ()
    labels: tuple[str, ...] = ()
    gaussian: tuple[float, float] | None = None

    @property
    def ordered(self) -> bool:
        """True if the values are numbers."""
        return self.kind != "category" or all(_as_number(value) is not None for value in self.categories)

    def place(self, value: object) -> float | None:
        """Return a value's position: the number itself, or the index of its category; None if it is not on the axis."""
        if self.kind != "category":
            number = _as_number(value)
            return number if number is None or number > 0 or self.kind == "linear" else None
        key = _key(value)
        return next((float(index) for index, category in enumerate(self.categories) if _key(category) == key), None)

    def text(self, value: object) -> str:
        """Return a short text of a value."""
        place = self.place(value) if self.kind == "category" else None
        return label(value) if place is None else self.labels[int(place)]

    def place_of(self, trial: Trial) -> float | None:
        """Return the position of a trial's value, or None if it has no value on the axis."""
        return self.place(trial.parameters.get(self.name))

    def text_of(self, trial: Trial) -> str:
        """Return a short text of a trial's value, empty if it has no value."""
        return self.text(trial.parameters[self.name]) if self.name in trial.parameters else ""


def axes(sweep: Sweep) -> list[Axis]:
    """Return an axis for each parameter, in the order of the space; then for those that only trials have."""
    names = list(dict.fromkeys([*sweep.space, *(name for trial in sweep.trials for name in trial.parameters)]))
    short = short_names(names)
    return [_make_axis(sweep, name, short[name]) for name in names]


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return the last parts of each dotted name that no other name ends with."""

    def shorten(name: str) -> str:
        if not name.strip("."):
            return "whole config"
        parts = name.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts)))
        return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in names) == 1), name)

    return {name: shorten(name) for name in names}


def label(value: object) -> str:
    """Return a short text of any value: numbers in four digits, a mapping by its type and its other keys."""
    return cut(words(value), _LONGEST)


def cut(text: str, limit: int) -> str:
    """Return a text on one line, cut to `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3].rstrip() + "..."


def number(value: float | None) -> str:
    """Return a readable text of a measured value, or a dash."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0 or 1e-2 <= abs(value) < 1000:
        return format_figure(value)
    return f"{value:#.3g}"


def _make_axis(sweep: Sweep, name: str, short: str) -> Axis:
    declared = sweep.space.get(name)
    space: dict[str, object] = declared if isinstance(declared, dict) else {}
    values = [trial.parameters[name] for trial in sweep.trials if name in trial.parameters]
    kind = str(space.get("space", "")).lower()
    numbers = [value for value in map(_as_number, values) if value is not None]
    if kind in _CATEGORIES or len(numbers) < len(values):
        listed = space.get("categories", space.get("values")) if kind in _CATEGORIES else None
        every = [*(listed if isinstance(listed, list) else []), *values]
        categories = list({_key(value): value for value in every}.values())
        if all(_as_number(value) is not None for value in categories):
            categories.sort(key=lambda value: _as_number(value) or 0.0)
        return Axis(name, short, "category", categories=tuple(categories), labels=_unique_labels(categories))
    low, high = _as_number(space.get("lower")), _as_number(space.get("upper"))
    if kind in ("randint", "lograndint") and high is not None:
        high -= 1  # Ray draws below the upper end; quantised spaces include it
    if kind in _LOGS and (low is None or low > 0) and all(value > 0 for value in numbers):
        return Axis(name, short, "log", low, high)
    mean, deviation = _as_number(space.get("mean", 0.0)), _as_number(space.get("sd", 1.0))
    gaussian = (mean, deviation) if kind in ("randn", "qrandn") and mean is not None and deviation is not None else None
    return Axis(name, short, "linear", low, high, gaussian=gaussian)


def _as_number(value: object) -> float | None:
    """Return a finite number as a float; None for any other value, booleans included."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _key(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1 and 1.0 are one value, 1 and true are not
    return json.dumps(value, sort_keys=True, default=str)


def _unique_labels(values: Sequence[object]) -> tuple[str, ...]:
    labels: list[str] = []
    for value in values:
        text, count = label(value), 2
        while text in labels:
            text, count = f"{label(value)} #{count}", count + 1
        labels.append(text)
    return tuple(labels)


def words(value: object, inner: bool = False) -> str:
    """Return the text of `label` at its full length, in parentheses if it has several parts and is an inner one."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        parts = [words(value[key], True) for key in ("type", "name") if key in value]
        parts += [f"{key} {words(each, True)}" for key, each in value.items() if key not in ("type", "name")]
        text = " ".join(parts) or "{}"
        return f"({text})" if inner and len(parts) > 1 else text
    if isinstance(value, list | tuple):
        return "[" + ", ".join(words(each) for each in value) + "]"
    return " ".join(str(value).split())
