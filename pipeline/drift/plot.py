"""The curves of a drift simulation in one plot."""

import io
from typing import TYPE_CHECKING, Any

from pneumo.pipeline.drift.simulation_result import HARM, SURE, Point, Simulation, find_sure_alarm
from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.install_hints import missing_module

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS = 4
_AUROC, _ACCURACY, _ALARM = "#1f5fa8", "#7a9cc6", "#c2410c"
_INK, _MUTED = "#202124", "#6b7280"


def draw_simulation(simulation: Simulation) -> bytes:
    """Draw a small plot for each kind of change: AUROC, accuracy and alarms from no change to the strongest.

    Returns:
        A PNG.

    Raises:
        MachineError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MachineError(missing_module(error)) from None
    kinds = simulation.kinds()
    lines = -(-(len(kinds) + 1) // _COLUMNS)
    figure = Figure(figsize=(3.6 * _COLUMNS, 2.75 * lines + 0.6), dpi=120)
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
    for axes, (kind, points) in zip(grid, kinds.items(), strict=False):
        _panel(axes, kind, points, simulation)
    _legend(grid[len(kinds)], simulation)
    for axes in grid[len(kinds) + 1 :]:
        axes.axis("off")
    figure.suptitle(
        f"{simulation.model}:{simulation.version} on {simulation.images} {simulation.split} images of "
        f"{simulation.data}; {simulation.windows} windows of {simulation.size} images a point",
        fontsize=10,
        color=_INK,
    )
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _panel(axes: Any, kind: str, points: "Sequence[Point]", simulation: Simulation) -> None:
    every = [simulation.unchanged, *points]
    places = range(len(every))
    if all(point.auroc is not None for point in every):
        axes.plot(places, [point.auroc for point in every], color=_AUROC, marker="o", markersize=3, linewidth=1.6)
    axes.plot(places, [point.accuracy for point in every], color=_ACCURACY, linewidth=1.2, linestyle="--")
    axes.plot(places, [point.alarms for point in every], color=_ALARM, marker="s", markersize=3, linewidth=1.6)
    for found, colour in ((simulation.harm(points), _AUROC), (find_sure_alarm(points), _ALARM)):
        if found is not None:
            axes.axvline(1 + points.index(found), color=colour, linewidth=5, alpha=0.18)
    axes.set_title(kind, fontsize=9, color=_INK)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xticks(list(places), ["none", *(_short(point.label) for point in points)], fontsize=6.5, color=_MUTED)
    axes.tick_params(axis="y", labelsize=7, colors=_MUTED)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(axes: Any, simulation: Simulation) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    axes.axis("off")
    handles = [
        Line2D([], [], color=_AUROC, marker="o", markersize=3, label="AUROC"),
        Line2D([], [], color=_ACCURACY, linestyle="--", label="accuracy"),
        Line2D([], [], color=_ALARM, marker="s", markersize=3, label="share of windows with an alarm"),
        Patch(color=_AUROC, alpha=0.18, label=f"AUROC has fallen by {HARM:g}"),
        Patch(color=_ALARM, alpha=0.18, label=f"alarm in {SURE:.0%} of windows"),
    ]
    axes.legend(handles=handles, loc="upper left", frameon=False, fontsize=8)
    told = f"false alarms: {simulation.unchanged.alarms:.1%}\n{simulation.notice}"
    axes.text(0.03, 0.12, told, fontsize=8, color=_MUTED, transform=axes.transAxes)


def _short(label: str) -> str:
    """A strength without the words that all strengths of a kind share."""
    for words in (" of images", " levels", " photons", " degrees", "contrast x ", "exponent ", "sigma ", " px"):
        label = label.replace(words, "")
    return label
