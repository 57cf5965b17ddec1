"""Parameters for people: a short name, a short text for any value, and the place of a value on an axis."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pneumo.pipeline.sweep.record import Sweep

_LONGEST = 40
_CATEGORIES = frozenset({"choice", "grid_search"})
_LOGS = frozenset({"loguniform", "qloguniform", "lograndint", "qlograndint"})


@dataclass(frozen=True)
class Axis:
    """One parameter of a sweep.

    Attributes:
        name: As under `hyperopt.parameters`; `short` the last parts of it that no other parameter has.
        kind: How its values are laid out.
        low: Smallest value that the search may draw; `high` the largest. None for categories, and where there is no
            bound (a Gaussian) or none is known.
        categories: Values of a category, numbers in ascending order, others as declared; then those that trials had
            beside them.
        labels: A text for each category, no two alike.
        gaussian: Mean and standard deviation of a Gaussian.
    """

    name: str
    short: str
    kind: Literal["linear", "log", "category"]
    low: float | None = None
    high: float | None = None
    categories: tuple[Any, ...] = ()
    labels: tuple[str, ...] = ()
    gaussian: tuple[float, float] | None = None

    @property
    def ordered(self) -> bool:
        """Whether larger and smaller mean something."""
        return self.kind != "category" or all(_is_number(value) for value in self.categories)

    def place(self, value: Any) -> float | None:
        """Where a value lies: the number itself, or its number among the categories; None if it lies nowhere."""
        if self.kind != "category":
            return float(value) if _is_number(value) and (value > 0 or self.kind == "linear") else None
        key = _key(value)
        return next((float(index) for index, known in enumerate(self.categories) if _key(known) == key), None)

    def text(self, value: Any) -> str:
        """A value for people."""
        place = self.place(value) if self.kind == "category" else None
        return label(value) if place is None else self.labels[int(place)]


def axes(sweep: Sweep) -> list[Axis]:
    """Every parameter of a sweep, in the order of its space; then those that only trials have."""
    names = list(dict.fromkeys([*sweep.space, *(name for trial in sweep.trials for name in trial.parameters)]))
    short = short_names(names)
    found = []
    for name in names:
        seen = [trial.parameters[name] for trial in sweep.trials if name in trial.parameters]
        found.append(_axis(name, short[name], sweep.space.get(name), seen))
    return found


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The last parts of each dotted name that tell it from the others."""
    found = {}
    for name in names:
        parts = name.split(".")
        found[name] = next(
            (
                end
                for end in (".".join(parts[-count:]) for count in range(1, len(parts)))
                if sum(f".{other}".endswith(f".{end}") for other in names) == 1
            ),
            name,
        )
    return {name: end if name.strip(".") else "whole config" for name, end in found.items()}


def label(value: Any) -> str:
    """A short text for any value: numbers in four digits, a dict by its type and what else it says."""
    text = words(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3].rstrip() + "..."


def words(value: Any) -> str:
    """The same without a cut."""
    return " ".join(_words(value).split())


def number(value: float | None, digits: int = 4) -> str:
    """A measured value for people, or a dash."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0 or 1e-2 <= abs(value) < 1000:
        return f"{value:.{digits}f}"
    return f"{value:#.{digits - 1}g}"


def duration(seconds: float | None) -> str:
    """A time for people: `9.4 s`, `42 s`, `3 min 20 s`, `2 h 05 min`, or a dash."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _axis(name: str, short: str, space: Any, seen: list[Any]) -> Axis:
    space = space if isinstance(space, dict) else {}
    kind = str(space.get("space", "")).lower()
    declared = space.get("categories", space.get("values")) if kind in _CATEGORIES else None
    numbers = [float(value) for value in seen if _is_number(value)]
    if kind in _CATEGORIES or len(numbers) < len(seen):
        values = _distinct([*(declared if isinstance(declared, list) else []), *seen])
        if values and all(_is_number(value) for value in values):
            values.sort()
        return Axis(name, short, "category", categories=tuple(values), labels=_labels(values))
    low, high = (float(space[end]) if _is_number(space.get(end)) else None for end in ("lower", "upper"))
    if kind in ("randint", "lograndint") and high is not None:
        high -= 1  # Ray draws below the upper end; quantised spaces include it
    if kind in _LOGS and (low is None or low > 0) and all(value > 0 for value in numbers):
        return Axis(name, short, "log", low, high)
    gaussian = None
    if kind in ("randn", "qrandn"):
        mean, deviation = space.get("mean", 0.0), space.get("sd", 1.0)
        gaussian = (float(mean), float(deviation)) if _is_number(mean) and _is_number(deviation) else None
    return Axis(name, short, "linear", low, high, gaussian=gaussian)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _key(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1 and 1.0 are one value, 1 and true are not
    return json.dumps(value, sort_keys=True, default=str)


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({_key(value): value for value in reversed(list(values))}.values())[::-1]


def _labels(values: Sequence[Any]) -> tuple[str, ...]:
    found: list[str] = []
    for value in values:
        text, count = label(value), 2
        while text in found:
            text, count = f"{label(value)} #{count}", count + 1
        found.append(text)
    return tuple(found)


def _words(value: Any, inner: bool = False) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        parts = [_words(value[key], True) for key in ("type", "name") if key in value]
        parts += [f"{key} {_words(each, True)}" for key, each in value.items() if key not in ("type", "name")]
        text = " ".join(parts) or "{}"
        return f"({text})" if inner and len(parts) > 1 else text
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_words(each) for each in value) + "]"
    return str(value)
