"""Plots of the dashboard as data: a script draws them, and each is also a table."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

from pneumo.serving.drift.log_queries import Span
from pneumo.serving.drift.performance import Estimate, Performance
from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.pages.dashboard.board import DAY, Board, Distribution, LivePerformance
from pneumo.serving.pages.dashboard.labels import METRICS, VERDICTS, format_column, format_number, is_share

Values = Sequence[float | None]
Kind = Literal["bars", "line", "points", "steps"]
Tone = Literal["accent", "positive", "negative", "edge", "ok", "warning", "drift"]
"""Colours by their role; the style sheet has them for light and dark."""

VERDICT_TONES: dict[Verdict, Tone] = {
    Verdict.OK: "ok",
    Verdict.WARNING: "warning",
    Verdict.DRIFT: "drift",
    Verdict.TOO_FEW: "edge",
}


@dataclass(frozen=True)
class Series:
    """One curve or set of bars: a value for each x or None, and the ends of their intervals."""

    name: str
    kind: Kind
    tone: Tone
    y: Values
    low: Values | None = None
    high: Values | None = None


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        x: Dates in ISO format, or numbers; of bars between edges the middles.
        unit: Unit of y; a share is shown in percent.
        names: Name of each x in the table, if other than x.
        compact: Whether it is one of many small plots.
        intervals: Whether the series have 95% intervals.
        percent: Whether x is a share, shown in percent.
    """

    id: str
    title: str
    x: Sequence[str] | Sequence[float]
    x_title: str
    series: Sequence[Series]
    unit: Literal["count", "share", "area"] = "count"
    stacked: bool = False
    names: Sequence[str] | None = None
    compact: bool = False
    diagonal: bool = False
    intervals: bool = False
    percent: bool = False

    def data(self) -> dict[str, object]:
        """Return the plot for the script, as JSON can hold it."""
        series = [
            asdict(each) | {key: _finite(getattr(each, key)) for key in ("y", "low", "high")} for each in self.series
        ]
        is_time = bool(self.x) and isinstance(self.x[0], str)
        return vars(self) | {"names": None, "series": series, "is_time": is_time}


def _finite(values: Values | None) -> list[float | None] | None:
    """Replace infinities, which JSON cannot hold; rounding is left to the script, since a second one can differ."""
    if values is None:
        return None
    return [None if value is None or not math.isfinite(value) else float(value) for value in values]


def list_plots(board: Board) -> list[Plot]:
    """Return all plots of the dashboard, in order."""
    plots = [_plot_volume(board), _plot_doubts(board)] if board.spans else []
    if board.verdicts:
        plots.append(_plot_verdicts(board))
    plots += [_plot_distribution(each, board.positive_class) for each in board.distributions]
    if board.live:
        plots += filter(None, (_plot_metric(board, board.live, name) for name in METRICS))
        if board.live.bins:
            plots.append(_plot_calibration(board.live))
    return plots


def _plot_volume(board: Board) -> Plot:
    starts, spans = _fill_gaps(board)
    title = "Images per hour" if board.step < DAY else "Images per day"
    counts = [span.images if span else 0 for span in spans]
    return Plot("volume", title, starts, _unit(board), [Series("Images", "bars", "accent", counts)])


def _plot_doubts(board: Board) -> Plot:
    starts, spans = _fill_gaps(board)
    uncertain = [span.uncertain / span.images if span else None for span in spans]
    outliers = [span.out_of_distribution / span.images if span else None for span in spans]
    series = [
        Series("Uncertain", "line", "accent", uncertain),
        Series("Out of distribution", "line", "positive", outliers),
    ]
    title = "Uncertain and out-of-distribution images"
    return Plot("doubts", title, starts, _unit(board), series, unit="share")


def _plot_verdicts(board: Board) -> Plot:
    counts = {f"{each.day:%Y-%m-%d}": each.counts for each in board.verdicts}
    first, last = board.verdicts[0].day, board.verdicts[-1].day
    days = [f"{first + number * DAY:%Y-%m-%d}" for number in range((last - first).days + 1)]
    series = [
        Series(VERDICTS[verdict], "bars", tone, [counts.get(day, {}).get(verdict, 0) for day in days])
        for verdict, tone in VERDICT_TONES.items()
        if any(verdict in each for each in counts.values())
    ]
    return Plot("verdicts", "Verdicts per day", days, "Day (UTC)", series, stacked=True)


def _plot_distribution(column: Distribution, positive_class: str | None) -> Plot:
    bars = list(itertools.pairwise(column.edges.tolist()))
    title = format_column(column.name, positive_class)
    return Plot(
        f"column-{column.name}",
        title,
        [(low + high) / 2 for low, high in bars],
        title,
        [
            Series("Reference", "bars", "edge", column.before.tolist()),
            Series("Selected images", "steps", "accent", column.now.tolist()),
        ],
        unit="share",
        names=[f"{format_number(low, column.name)} to {format_number(high, column.name)}" for low, high in bars],
        compact=True,
        percent=is_share(column.name),
    )


def _plot_metric(board: Board, live: LivePerformance, metric: str) -> Plot | None:
    """Plot a metric over time, measured with labels and estimated without; None if there is neither."""
    measured = dict(live.measured_over_time)
    estimated = dict(zip((span.start for span in board.spans), live.estimated_over_time, strict=False))
    moments = sorted({*measured, *estimated})

    def pick(values: dict[datetime, Performance]) -> list[Estimate | None]:
        return [getattr(values[moment], metric) if moment in values else None for moment in moments]

    both = [
        _with_interval("Estimated without labels", "line", "edge", pick(estimated)),
        _with_interval("Measured with labels", "points", "accent", pick(measured)),
    ]
    series = [each for each in both if any(value is not None for value in each.y)]
    if not series:
        return None
    title, starts = METRICS[metric], [_format_start(moment, board) for moment in moments]
    unit: Literal["area", "share"] = "area" if metric == "auroc" else "share"
    return Plot(f"metric-{metric}", title, starts, _unit(board), series, unit=unit, intervals=True)


def _plot_calibration(live: LivePerformance) -> Plot:
    return Plot(
        "calibration",
        "Calibration on labelled images",
        [each.mean for each in live.bins],
        "Predicted probability",
        [_with_interval("Observed share", "points", "accent", [each.observed for each in live.bins])],
        unit="share",
        intervals=True,
        names=[f"{each.low:.0%} to {each.high:.0%}, {each.observed.images} images" for each in live.bins],
        diagonal=True,
        percent=True,
    )


def _with_interval(name: str, kind: Kind, tone: Tone, estimates: Iterable[Estimate | None]) -> Series:
    values = [(each.value, each.low, each.high) if each else (None, None, None) for each in estimates]
    return Series(name, kind, tone, *([row[place] for row in values] for place in range(3)))


def _fill_gaps(board: Board) -> tuple[list[str], list[Span | None]]:
    """Return every hour or day from the first to the last with images, with None for those without any."""
    spans = {span.start: span for span in board.spans}
    start, end = min(spans), max(spans)
    moments = [start + number * board.step for number in range((end - start) // board.step + 1)]
    return [_format_start(moment, board) for moment in moments], [spans.get(moment) for moment in moments]


def _format_start(moment: datetime, board: Board) -> str:
    return f"{moment:%Y-%m-%d}" if board.step >= DAY else f"{moment:%Y-%m-%d %H:%M}"


def _unit(board: Board) -> str:
    return "Hour (UTC)" if board.step < DAY else "Day (UTC)"
