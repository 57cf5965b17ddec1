"""Curves as inline SVG. Colours are CSS variables, so that a page decides between light and dark."""

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pneumo.pipeline.evaluation.cases import Cases
from pneumo.pipeline.evaluation.report.history import Curve
from pneumo.pipeline.evaluation.report.points import reliability_points

# Matplotlib knows no CSS variables: it draws with these colours, which are replaced in what it wrote.
_INK, _MUTED, _LINE = "#010101", "#020202", "#030303"
_SERIES = tuple(f"#0400{number:02x}" for number in range(6))
_DASHED: dict[str, Any] = {"color": _MUTED, "linewidth": 0.8, "linestyle": (0, (4, 3))}
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _LINE: "--line"} | {
    colour: f"--series-{number + 1}" for number, colour in enumerate(_SERIES)
}


def plot_roc(parts: dict[str, Cases], classes: list[str], lead: str) -> str:
    """Draw the ROC curve of the leading split with its operating point, the others thin; one a class with more."""
    from sklearn.metrics import roc_curve

    figure, axes = _square("1 - specificity", "Sensitivity")
    axes.plot([0, 1], [0, 1], **_DASHED)
    for name, truth, scores, style in _curves(parts, classes, lead):
        false, found, _ = roc_curve(truth, scores, drop_intermediate=True)
        axes.plot(false, found, label=name, **style)
    cases = parts[lead]
    if cases.positive is not None and _both(cases):
        truth, answer = cases.truth == cases.positive, cases.answer == cases.positive
        axes.plot(answer[~truth].mean(), answer[truth].mean(), **_dot())
    _legend(axes, "lower right")
    return _svg(figure, "roc", "ROC curve")


def plot_precision_recall(parts: dict[str, Cases], classes: list[str], lead: str) -> str:
    """Draw precision over recall, with the prevalence as the line that guessing reaches."""
    from sklearn.metrics import precision_recall_curve

    figure, axes = _square("Sensitivity (recall)", "Positive predictive value (precision)")
    cases = parts[lead]
    for name, truth, scores, style in _curves(parts, classes, lead):
        precision, recall, _ = precision_recall_curve(truth, scores, drop_intermediate=True)
        axes.plot(recall, precision, label=name, drawstyle="steps-post", **style)
    if cases.positive is not None and _both(cases):
        truth, answer = cases.truth == cases.positive, cases.answer == cases.positive
        axes.axhline(truth.mean(), **_DASHED)
        if answer.any():
            axes.plot(answer[truth].mean(), truth[answer].mean(), **_dot())
    _legend(axes, "lower left")
    return _svg(figure, "pr", "Precision-recall curve")


def plot_reliability(cases: Cases, classes: list[str]) -> str:
    """Draw what was claimed against what came true, by bin, before and after the temperature; beneath, the counts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    _frame(axes, "", "Came true")
    _frame(counts, "Claimed probability", "Images")
    axes.plot([0, 1], [0, 1], **_DASHED)
    for name, probabilities, style in (
        ("before temperature", cases.uncalibrated, {"color": _MUTED, "linewidth": 1}),
        ("after temperature", cases.probabilities, {"color": _SERIES[0], "linewidth": 1.8}),
    ):
        claimed, true = zip(*reliability_points(cases, probabilities), strict=True)
        axes.plot(claimed, true, label=name, marker="o", markersize=4, **style)
    confidence, hit = cases.confidence(cases.probabilities)
    names = (
        (f"not {classes[cases.positive]}", classes[cases.positive])
        if cases.positive is not None
        else ("wrong", "right")
    )
    counts.hist(
        [confidence[~hit], confidence[hit]],
        bins=np.linspace(0, 1, 21).tolist(),
        stacked=True,
        color=[_SERIES[1], _SERIES[0]],
        label=[_plain(name) for name in names],
    )
    counts.legend(frameon=False, fontsize=8, labelcolor=_INK, loc="upper center", ncols=2)
    counts.set_ylim(0, counts.get_ylim()[1] * 1.5)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _legend(axes, "upper left")
    return _svg(figure, "reliability", "Reliability diagram")


def plot_learning(curves: Sequence[Curve]) -> str:
    """Draw each metric over the epochs, training and validation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(curves), 3.2), layout="constrained")
    for axes, curve in zip(np.atleast_1d(figure.subplots(1, len(curves))), curves, strict=True):
        _frame(axes, curve.over, curve.title)
        for colour, (name, points) in zip((_SERIES[1], _SERIES[0]), curve.series.items(), strict=False):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=colour, linewidth=1.8, marker="o", markersize=3 if len(x) < 30 else 0, label=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(axes, "best")
    return _svg(figure, "learning", "Learning curves")


def _curves(parts: dict[str, Cases], classes: list[str], lead: str) -> Iterable[tuple[str, Any, Any, dict[str, Any]]]:
    """Names, truths, scores and styles of the curves that are defined."""
    cases = parts[lead]
    if cases.positive is None:
        for column, name in enumerate(classes):
            truth = cases.truth == column
            if truth.any() and not truth.all():
                style = {"color": _SERIES[column % len(_SERIES)], "linewidth": 1.6}
                yield _plain(name), truth, cases.probabilities[:, column], style
        return
    others = [name for name in parts if name != lead]
    for name, style in [
        *(
            (name, {"color": (_SERIES[1], _SERIES[2])[number % 2], "linewidth": 1})
            for number, name in enumerate(others)
        ),
        (lead, {"color": _SERIES[0], "linewidth": 2}),
    ]:
        part = parts[name]
        if _both(part) and part.positive is not None:
            yield name, part.truth == part.positive, part.probabilities[:, part.positive], style


def _both(cases: Cases) -> bool:
    return len(np.unique(cases.truth)) > 1


def _dot() -> dict[str, Any]:
    return {
        "marker": "o",
        "markersize": 8,
        "color": "none",
        "markeredgecolor": _INK,
        "markeredgewidth": 1.6,
        "linestyle": "",
        "label": "at the threshold",
    }


def _square(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.2), layout="constrained")
    axes = figure.subplots()
    _frame(axes, x, y)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    return figure, axes


def _frame(axes: Any, x: str, y: str) -> None:
    axes.set_facecolor("none")
    axes.grid(color=_LINE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=9, length=0)
    axes.set_xlabel(x, color=_INK, fontsize=10)
    axes.set_ylabel(y, color=_INK, fontsize=10)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_LINE)


def _legend(axes: Any, place: str) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc=place, frameon=False, fontsize=9, labelcolor=_INK)


def _plain(text: str) -> str:
    """A user's string without Matplotlib's formulas, and not hidden by a leading underscore."""
    return text.replace("$", r"\$").lstrip("_") or "?"


def _svg(figure: Any, name: str, label: str) -> str:
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
