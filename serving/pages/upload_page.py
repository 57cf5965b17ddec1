"""The upload page as HTML: where to drop an image, which model answers, and how good it was found to be."""

import importlib.metadata
from dataclasses import dataclass
from html import escape

from pydantic import BaseModel, ValidationError

from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.inference.service import State
from pneumo.serving.model.bundle import BundleInfo
from pneumo.serving.pages.assets import read_template

SPLITS = ("test", "validation")
"""Whose results the page shows: the first that the model was measured on."""


def render_upload_page(info: BundleInfo | None, state: State, *, max_bytes: int, logs: bool = False) -> str:
    """The page as HTML.

    Args:
        info: Of the model that answers, or None where none is loaded.
        state: Of the service.
        max_bytes: Largest request body, in bytes.
        logs: Whether a prediction log is kept, which the drift dashboard needs.
    """
    return read_template("index.html").substitute(
        notice=f"{NOTICE[0].upper()}{NOTICE[1:]}",
        release=escape(importlib.metadata.version("pneumo")),
        drift='<a href="drift">Drift</a> ' if logs else "",
        max_bytes=max_bytes,
        max_size=_size(max_bytes),
        model=_model(info, state).rstrip(),
    )


def _size(count: int) -> str:
    """Bytes in words."""
    for unit, factor in (("MB", 1_000_000), ("kB", 1_000)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


def _model(info: BundleInfo | None, state: State) -> str:
    if info is None:
        words = _NO_MODEL.get(state, _NO_MODEL[State.LOADING])
        return read_template("no_model.html").substitute(state=state.value, words=words)
    return read_template("model.html").substitute(
        state=state.value,
        name=escape(info.name),
        version=escape(info.version),
        level=info.conformal.level,  # these two are for the script, which puts certainty in words
        limit=info.conformal.limit,
        task=escape(_task(info)),
        facts="\n".join(_row(fact) for fact in list_facts(info)),
    )


def _row(fact: "Fact") -> str:
    remark = f" <small>{escape(fact.remark)}</small>" if fact.remark else ""
    return f"    <div><dt>{escape(fact.name)}</dt><dd>{escape(fact.value)}{remark}</dd></div>"


_NO_MODEL = {
    State.LOADING: "The model is being loaded. You can choose images already: they wait for it.",
    State.DRAINING: "The service is stopping. Open this page again in a moment.",
    State.FAILED: "The model could not be loaded. Whoever runs the service finds the reason in its log.",
}


def _task(info: BundleInfo) -> str:
    if info.positive_class is None:
        return f"Tells {', '.join(info.classes[:-1])} and {info.classes[-1]} apart in frontal chest X-rays."
    other = next(name for name in info.classes if name != info.positive_class)
    return f"Tells {info.positive_class} from {other} in frontal chest X-rays."


@dataclass(frozen=True)
class Fact:
    """One thing to know about a model: what it is called, its value, and a remark or nothing."""

    name: str
    value: str
    remark: str = ""


def list_facts(info: BundleInfo) -> list[Fact]:
    """What a reader should know about a model before believing it."""
    measured = _Measured.from_info(info)
    found = [Fact("Name", info.name, f"version {info.version}")]
    found += measured.fact("AUROC", "auroc", measured.images)
    if info.positive_class is None:
        return [*found, Fact("Answer", "the most probable class")]
    threshold = info.thresholds["default"]
    of = "of {} images called so".format
    other = next(name for name in info.classes if name != info.positive_class)
    return [
        *found,
        Fact("Threshold", _spaced(f"{threshold:.1%}"), f"{info.positive_class} from there on; policy: {info.policy}"),
        *measured.fact("Sensitivity", "sensitivity", of(info.positive_class)),
        *measured.fact("Specificity", "specificity", of(other)),
    ]


class _Estimate(BaseModel):
    value: float | None = None
    low: float | None = None
    high: float | None = None


class _Split(BaseModel):
    images: int | None = None
    metrics: dict[str, _Estimate] = {}


class _Bootstrap(BaseModel):
    level: float = 0.95


class _Measured(BaseModel):
    """What the page takes from a bundle's metrics; a bundle may hold any or none."""

    splits: dict[str, _Split] = {}
    bootstrap: _Bootstrap = _Bootstrap()

    @classmethod
    def from_info(cls, info: BundleInfo) -> "_Measured":
        try:
            return cls.model_validate(info.metrics)
        except ValidationError:
            return cls()

    @property
    def split(self) -> str | None:
        return next((name for name in SPLITS if name in self.splits), None)

    @property
    def images(self) -> str:
        count = self.splits[self.split].images if self.split else None
        return f"on {count:,} {self.split} images" if count else f"on {self.split} images"

    def fact(self, name: str, metric: str, remark: str) -> list[Fact]:
        """A metric with its interval; nothing where it was not measured."""
        found = self.splits[self.split].metrics.get(metric) if self.split else None
        if found is None or found.value is None:
            return []
        if found.low is not None and found.high is not None:
            remark = f"{remark}; {self.bootstrap.level:.0%} interval {found.low:.3f} to {found.high:.3f}"
        return [Fact(name, f"{found.value:.3f}", _spaced(remark))]


def _spaced(text: str) -> str:
    return text.replace("%", "\N{NO-BREAK SPACE}%")
