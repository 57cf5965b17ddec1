"""Curves as inline SVG. Colours are CSS variables, so that a page decides between light and dark."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pneumo.pipeline.evaluation.cases import Cases
from pneumo.pipeline.evaluation.report.history import Curve
from pneumo.pipeline.evaluation.report.points import THRESHOLDS, net_benefit, reliability_points
from pneumo.serving.contracts.arrays import Float64, Mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Style = Mapping[str, Any]
"""Keyword arguments of a Matplotlib line."""

# Matplotlib has no CSS variables: it draws with these colours, which are replaced in its SVG.
_INK, _MUTED, _LINE = "#010101", "#020202", "#030303"
_SERIES = tuple(f"#0400{number:02x}" for number in range(6))
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _LINE: "--line"} | {
    colour: f"--series-{number + 1}" for number, colour in enumerate(_SERIES)
}
_DASHED: _Style = {"color": _MUTED, "linewidth": 0.8, "linestyle": (0, (4, 3))}
_OPERATING_POINT: _Style = {
    "marker": "o",
    "markersize": 8,
    "color": "none",
    "markeredgecolor": _INK,
    "markeredgewidth": 1.6,
    "linestyle": "",
    "label": "at the decision threshold",
}
_UNIT = (-0.02, 1.02)


def plot_roc(parts: Mapping[str, Cases], classes: list[str], lead: str) -> str:
    """Draw the ROC curve of the leading split with its operating point, and of other splits or one per class."""
    from sklearn.metrics import roc_curve

    figure, axes = _square("1 - specificity", "Sensitivity")
    axes.plot([0, 1], [0, 1], **_DASHED)
    for name, truth, scores, style in _curves(parts, classes, lead):
        false_positive_rate, sensitivity, _ = roc_curve(truth, scores, drop_intermediate=True)
        axes.plot(false_positive_rate, sensitivity, label=name, **style)
    if point := _operating_point(parts[lead]):
        truth, answer = point
        axes.plot(answer[~truth].mean(), answer[truth].mean(), **_OPERATING_POINT)
    _legend(axes, "lower right")
    return _svg(figure, "roc", "ROC curve")


def plot_precision_recall(parts: Mapping[str, Cases], classes: list[str], lead: str) -> str:
    """Draw precision over recall, with the prevalence as the precision of guessing."""
    from sklearn.metrics import precision_recall_curve

    figure, axes = _square("Sensitivity (recall)", "Positive predictive value (precision)")
    for name, truth, scores, style in _curves(parts, classes, lead):
        precision, recall, _ = precision_recall_curve(truth, scores, drop_intermediate=True)
        axes.plot(recall, precision, label=name, drawstyle="steps-post", **style)
    if point := _operating_point(parts[lead]):
        truth, answer = point
        axes.axhline(truth.mean(), **_DASHED)
        if answer.any():
            axes.plot(answer[truth].mean(), truth[answer].mean(), **_OPERATING_POINT)
    _legend(axes, "lower left")
    return _svg(figure, "pr", "Precision-recall curve")


def plot_reliability(cases: Cases, classes: list[str], key: str = "reliability") -> str:
    """Draw the observed rate over the predicted probability, uncalibrated and calibrated, above the counts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    _frame(axes, "", "Observed rate")
    _frame(counts, "Predicted probability", "Images")
    axes.plot([0, 1], [0, 1], **_DASHED)
    styles: dict[str, tuple[Float64, _Style]] = {
        "uncalibrated": (cases.uncalibrated, {"color": _MUTED, "linewidth": 1}),
        "calibrated": (cases.probabilities, {"color": _SERIES[0], "linewidth": 1.8}),
    }
    for name, (probabilities, style) in styles.items():
        predicted, observed = zip(*reliability_points(cases, probabilities), strict=True)
        axes.plot(predicted, observed, label=name, marker="o", markersize=4, **style)
    confidence, hit = cases.confidence(cases.probabilities)
    positive = None if cases.positive is None else classes[cases.positive]
    counts.hist(
        [confidence[~hit], confidence[hit]],
        bins=np.linspace(0, 1, 21).tolist(),
        stacked=True,
        color=[_SERIES[1], _SERIES[0]],
        label=["wrong", "correct"] if positive is None else [f"not {_plain(positive)}", _plain(positive)],
    )
    counts.legend(frameon=False, fontsize=8, labelcolor=_INK, loc="upper center", ncols=2)
    counts.set_ylim(0, counts.get_ylim()[1] * 1.5)
    axes.set(xlim=_UNIT, ylim=_UNIT)
    _legend(axes, "upper left")
    return _svg(figure, key, "Reliability diagram")


def plot_decision_curve(cases: Cases, name: str, key: str = "decision") -> str:
    """Draw the net benefit over the threshold probability: of the model, and of calling all images positive.

    `name` is the positive class; the ids of the figure begin with `key`.
    """
    truth, scores = cases.truth == cases.positive, cases.probabilities[:, cases.positive or 0]
    figure, axes = _square("Threshold probability", "Net benefit")
    axes.axhline(0, color=_MUTED, linewidth=0.8)
    axes.plot(THRESHOLDS, net_benefit(np.ones((len(THRESHOLDS), 1), np.bool_), truth), label="all called", **_DASHED)
    axes.plot(THRESHOLDS, net_benefit(scores >= THRESHOLDS[:, None], truth), label=_plain(name), color=_SERIES[0])
    axes.set(ylim=(-0.1, max(0.1, 1.1 * float(truth.mean()))), aspect="auto")
    _legend(axes, "lower left")
    return _svg(figure, key, "Decision curve")


def plot_learning(curves: Sequence[Curve]) -> str:
    """Draw each metric over the epochs, training and validation, with the round that was kept."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(curves), 3.2), layout="constrained")
    for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        _frame(axes, curve.over, curve.title)
        for colour, (name, points) in zip((_SERIES[1], _SERIES[0]), curve.series.items(), strict=False):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=colour, linewidth=1.8, marker="o", markersize=3 if len(x) < 30 else 0, label=name)
        if curve.kept is not None:
            axes.axvline(curve.kept, label="kept", **_DASHED)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(axes, "best")
    return _svg(figure, "learning", "Learning curves")


def _curves(parts: Mapping[str, Cases], classes: list[str], lead: str) -> Iterator[tuple[str, Mask, Float64, _Style]]:
    """Yield name, truth, scores and style of each curve that is defined."""
    cases = parts[lead]
    if cases.positive is None:
        for column, name in enumerate(classes):
            truth = cases.truth == column
            if truth.any() and not truth.all():
                style = {"color": _SERIES[column % len(_SERIES)], "linewidth": 1.6}
                yield _plain(name), truth, cases.probabilities[:, column], style
        return
    others = [name for name in parts if name != lead]
    styles = {name: {"color": _SERIES[1 + number % 2], "linewidth": 1} for number, name in enumerate(others)}
    for name, style in (styles | {lead: {"color": _SERIES[0], "linewidth": 2}}).items():
        part = parts[name]
        if _has_both(part):
            yield name, part.truth == cases.positive, part.probabilities[:, cases.positive], style


def _has_both(cases: Cases) -> bool:
    return len(np.unique(cases.truth)) > 1


def _operating_point(cases: Cases) -> tuple[Mask, Mask] | None:
    """Return the positive images and those called positive, if there is a threshold and both classes have images."""
    if cases.positive is None or not _has_both(cases):
        return None
    return cases.truth == cases.positive, cases.answer == cases.positive


def _square(x: str, y: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.subplots()
    _frame(axes, x, y)
    axes.set(xlim=_UNIT, ylim=_UNIT, aspect="equal")
    return figure, axes


def _frame(axes: "Axes", x: str, y: str) -> None:
    axes.set_facecolor("none")
    axes.grid(color=_LINE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=9, length=0)
    axes.set_xlabel(x, color=_INK, fontsize=10)
    axes.set_ylabel(y, color=_INK, fontsize=10)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_LINE)


def _legend(axes: "Axes", place: Literal["lower right", "lower left", "upper right", "upper left", "best"]) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=place, frameon=False, fontsize=9, labelcolor=_INK)


def _plain(text: str) -> str:
    """Escape a user's string: no Matplotlib formulas, and no leading underscore, which would hide it."""
    return text.replace("$", r"\$").lstrip("_") or "?"


def _svg(figure: "Figure", name: str, label: str) -> str:
    """Write a figure as an SVG element whose ids start with `name`, so that several fit on one page."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "pneumo"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font(-family)?: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font\1: \2system-ui, sans-serif", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
