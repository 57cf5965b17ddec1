"""The curves of a drift simulation in one plot."""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pneumo.pipeline.drift.simulation_result import HARM, SURE, Point, Simulation, find_sure_alarm
from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.install_hints import missing_module

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 4
_AUROC, _ACCURACY, _ALARM = "#1f5fa8", "#7a9cc6", "#c2410c"
_INK, _MUTED = "#202124", "#6b7280"
_UNITS = re.compile(r" of images| levels| photons| degrees|contrast x |exponent |sigma | px")
"""Words that all grades of a kind share."""


def draw_simulation(simulation: Simulation) -> bytes:
    """Draw AUROC, accuracy and alarms of each kind of change as a PNG; raise a `MachineError` without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MachineError(missing_module(error)) from None
    kinds = simulation.group_by_kind()
    lines = -(-(len(kinds) + 1) // _COLUMNS)
    figure = Figure(figsize=(3.6 * _COLUMNS, 2.75 * lines + 0.6), dpi=120)
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
    for axes, (kind, points) in zip(grid, kinds.items(), strict=False):
        _draw_kind(axes, kind, points, simulation)
    for axes in grid[len(kinds) :]:
        axes.axis("off")
    _draw_legend(grid[len(kinds)], simulation)
    figure.suptitle(
        f"{simulation.model}:{simulation.version} on {simulation.images} {simulation.split} images of "
        f"{simulation.data}; {simulation.windows} windows of {simulation.size} images per point",
        fontsize=10,
        color=_INK,
    )
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_kind(axes: "Axes", kind: str, points: Sequence[Point], simulation: Simulation) -> None:
    every = [simulation.unchanged, *points]
    places = range(len(every))
    auroc = [point.auroc for point in every if point.auroc is not None]
    if len(auroc) == len(every):
        axes.plot(places, auroc, color=_AUROC, marker="o", markersize=3, linewidth=1.6)
    axes.plot(places, [point.accuracy for point in every], color=_ACCURACY, linewidth=1.2, linestyle="--")
    axes.plot(places, [point.alarms for point in every], color=_ALARM, marker="s", markersize=3, linewidth=1.6)
    for point, colour in ((simulation.find_harm(points), _AUROC), (find_sure_alarm(points), _ALARM)):
        if point is not None:
            axes.axvline(1 + points.index(point), color=colour, linewidth=5, alpha=0.18)
    axes.set_title(kind, fontsize=9, color=_INK)
    axes.set_ylim(-0.03, 1.03)
    labels = ["none", *(_UNITS.sub("", point.label) for point in points)]
    axes.set_xticks(list(places), labels, fontsize=6.5, color=_MUTED)
    axes.tick_params(axis="y", labelsize=7, colors=_MUTED)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_legend(axes: "Axes", simulation: Simulation) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color=_AUROC, marker="o", markersize=3, label="AUROC"),
        Line2D([], [], color=_ACCURACY, linestyle="--", label="accuracy"),
        Line2D([], [], color=_ALARM, marker="s", markersize=3, label="share of windows with an alarm"),
        Patch(color=_AUROC, alpha=0.18, label=f"AUROC has fallen by {HARM:g}"),
        Patch(color=_ALARM, alpha=0.18, label=f"alarm in {SURE:.0%} of windows"),
    ]
    axes.legend(handles=handles, loc="upper left", frameon=False, fontsize=8)
    text = f"false alarms: {simulation.unchanged.alarms:.1%}\n{simulation.notice}"
    axes.text(0.03, 0.12, text, fontsize=8, color=_MUTED, transform=axes.transAxes)
