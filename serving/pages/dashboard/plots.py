"""The dashboard's plots as data: a script draws them, and each can be read as a table."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

from pneumo.serving.drift.performance import Estimate, Performance
from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.pages.dashboard.board import DAY, Board, Distribution, LivePerformance
from pneumo.serving.pages.dashboard.labels import METRICS, VERDICTS, format_column, format_number, is_share

Unit = Literal["count", "share", "area"]
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
    """One thing that is drawn.

    Attributes:
        name: In the legend and over its column of the table.
        kind: How it is drawn.
        tone: Its colour.
        y: Values, None where there is none.
        low: Lower ends of intervals, where there are any.
        high: Upper ends.
    """

    name: str
    kind: Kind
    tone: Tone
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        id: Of its element.
        title: Its heading.
        x: Moments as ISO dates, or numbers; of bars between edges their middles.
        x_title: What x is.
        y_title: What y is.
        series: What is drawn; each has a value for each x.
        unit: Of y; a share is shown in percent.
        stacked: Whether bars stand on each other.
        names: Of each x in the table, where other than x.
        compact: Whether it is one of many, without much around it.
        diagonal: Whether equality is drawn too.
        intervals: Whether the series have 95 % intervals.
        percent: Whether x is a share, shown in percent.
    """

    id: str
    title: str
    x: Sequence[str] | Sequence[float]
    x_title: str
    y_title: str
    series: Sequence[Series]
    unit: Unit = "count"
    stacked: bool = False
    names: Sequence[str] | None = None
    compact: bool = False
    diagonal: bool = False
    intervals: bool = False
    percent: bool = False

    def data(self) -> dict[str, Any]:
        """For the script: what JSON can hold."""
        return {
            "id": self.id,
            "title": self.title,
            "x": list(self.x),
            "xTitle": self.x_title,
            "yTitle": self.y_title,
            "unit": self.unit,
            "stacked": self.stacked,
            "compact": self.compact,
            "diagonal": self.diagonal,
            "intervals": self.intervals,
            "percent": self.percent,
            "isTime": bool(self.x) and isinstance(self.x[0], str),
            "series": [
                {
                    "name": each.name,
                    "kind": each.kind,
                    "tone": each.tone,
                    "y": _rounded(each.y),
                    "low": _rounded(each.low),
                    "high": _rounded(each.high),
                }
                for each in self.series
            ],
        }


def _rounded(values: Sequence[float | None] | None) -> list[float | None] | None:
    """Five digits are more than a screen shows, and infinities are not JSON."""
    if values is None:
        return None
    return [None if value is None or not math.isfinite(value) else float(f"{value:.5g}") for value in values]


def volume(board: Board) -> Plot:
    """Images over time."""
    starts, found = _timeline(board)
    title = "Images an hour" if board.step < DAY else "Images a day"
    counts = [span.images if span else 0 for span in found]
    return Plot("volume", title, starts, _unit(board), "Images", [Series("Images", "bars", "accent", counts)])


def doubts(board: Board) -> Plot:
    """Share of images that were uncertain, and out of distribution, over time."""
    starts, found = _timeline(board)
    uncertain = [span.uncertain / span.images if span else None for span in found]
    strange = [span.strange / span.images if span else None for span in found]
    return Plot(
        "doubts",
        "Uncertain and out of distribution",
        starts,
        _unit(board),
        "Share of images",
        [Series("Uncertain", "line", "accent", uncertain), Series("Out of distribution", "line", "positive", strange)],
        unit="share",
    )


def verdicts(board: Board) -> Plot:
    """How often each verdict was given, by day."""
    days = [each.day.date() for each in board.verdicts]
    span = _days(min(days), max(days)) if days else []
    counts = {each.day.date(): each.counts for each in board.verdicts}
    shown = [verdict for verdict in VERDICT_TONES if any(verdict in each.counts for each in board.verdicts)]
    return Plot(
        "verdicts",
        "Verdicts a day",
        [day.isoformat() for day in span],
        "Day (UTC)",
        "Checks",
        [
            Series(
                VERDICTS[verdict],
                "bars",
                VERDICT_TONES[verdict],
                [counts.get(day, {}).get(verdict, 0) for day in span],
            )
            for verdict in shown
        ],
        stacked=True,
    )


def distribution(each: Distribution, positive_class: str | None) -> Plot:
    """A column of the reference and of the images in view."""
    pairs = list(itertools.pairwise(each.edges.tolist()))
    title = format_column(each.name, positive_class)
    return Plot(
        f"column-{each.name}",
        title,
        [(low + high) / 2 for low, high in pairs],
        title,
        "Share of images",
        [
            Series("Reference", "bars", "edge", each.before.tolist()),
            Series("In view", "steps", "accent", each.now.tolist()),
        ],
        unit="share",
        names=[f"{format_number(low, each.name)} to {format_number(high, each.name)}" for low, high in pairs],
        compact=True,
        percent=is_share(each.name),
    )


def performance(board: Board, live: LivePerformance, metric: str) -> Plot | None:
    """One metric over time, as labels tell it and as probabilities say; None where neither does."""
    measured = dict(live.measured_over_time)
    estimated = dict(zip((span.start for span in board.spans), live.estimated_over_time, strict=False))
    moments = sorted({*measured, *estimated})

    def values(of: dict[datetime, Performance]) -> list[Estimate | None]:
        return [getattr(of[each], metric) if each in of else None for each in moments]

    both = [
        _with_interval("Estimated without labels", "line", "edge", values(estimated)),
        _with_interval("Measured with labels", "points", "accent", values(measured)),
    ]
    series = [each for each in both if any(value is not None for value in each.y)]
    if not series:
        return None
    return Plot(
        f"metric-{metric}",
        METRICS[metric],
        [_moment(each, board.step) for each in moments],
        _unit(board),
        METRICS[metric],
        series,
        unit="area" if metric == "auroc" else "share",
        intervals=True,
    )


def calibration(live: LivePerformance) -> Plot:
    """Probabilities against what came true."""
    bins = live.bins
    return Plot(
        "calibration",
        "Calibration on labelled images",
        [each.claimed for each in bins],
        "Probability",
        "Came true",
        [_with_interval("Came true", "points", "accent", [each.observed for each in bins])],
        unit="share",
        intervals=True,
        names=[f"{each.low:.0%} to {each.high:.0%}, {each.observed.images} images" for each in bins],
        diagonal=True,
        percent=True,
    )


def _with_interval(name: str, kind: Kind, tone: Tone, values: Sequence[Estimate | None]) -> Series:
    return Series(
        name,
        kind,
        tone,
        [each.value if each else None for each in values],
        [each.low if each else None for each in values],
        [each.high if each else None for each in values],
    )


def _timeline(board: Board) -> tuple[list[str], list[Any]]:
    """Every span between the first and the last with images, and None for those without: silence shall be seen."""
    known = {span.start: span for span in board.spans}
    if not known:
        return [], []
    start, end = min(known), max(known)
    moments = [start + number * board.step for number in range((end - start) // board.step + 1)]
    return [_moment(each, board.step) for each in moments], [known.get(each) for each in moments]


def _moment(moment: datetime, step: timedelta) -> str:
    return f"{moment:%Y-%m-%d}" if step >= DAY else f"{moment:%Y-%m-%d %H:%M}"


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def _unit(board: Board) -> str:
    return "Hour (UTC)" if board.step < DAY else "Day (UTC)"
