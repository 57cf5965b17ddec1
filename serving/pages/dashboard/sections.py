"""Sections of the dashboard that compare images with the reference, and predictions with ground truth."""

from collections.abc import Sequence
from html import escape

from pneumo.serving.contracts.figures import format_figure, format_interval
from pneumo.serving.drift.log_queries import SiteCounts
from pneumo.serving.drift.performance import Estimate, estimate_share
from pneumo.serving.drift.verdict import ColumnResult, DriftCheck, SiteCheck, Verdict
from pneumo.serving.drift.wording import TESTS, describe_classes, name_site
from pneumo.serving.pages.dashboard.board import Board, LivePerformance
from pneumo.serving.pages.dashboard.labels import METRICS, format_column
from pneumo.serving.pages.dashboard.markup import (
    NOTHING,
    badge,
    capitalize,
    format_estimate,
    format_middle,
    grid,
    note,
    section,
    stack_table,
)
from pneumo.serving.pages.dashboard.plots import Plot
from pneumo.serving.pages.reported_metrics import read_metrics

_ESTIMATE = (
    "The estimate needs no labels: it takes the model's probabilities as correct (confidence-based performance "
    "estimation), so it does not show when they become wrong."
)


def render_columns(check: DriftCheck, board: Board) -> str:
    """Render the columns of a check with their differences in words."""
    if not check.columns:
        return ""
    heads = {"Column": "", "Verdict": "", "Difference": "", "Reference": "n", "Window": "n", "Distance": ""}
    return section(
        "columns",
        "Columns of the latest check",
        "The strongest evidence comes first. The <em>p</em>-value is corrected for the number of columns: below 0.05 "
        "is a warning, below 0.01 is drift.",
        stack_table(
            {**heads, "<em>p</em>": "n", "Test": ""},
            (_render_column(column, board.positive_class) for column in check.columns),
        ),
    )


def _render_column(column: ColumnResult, positive_class: str | None) -> str:
    distance = min(1.0, max(0.0, column.distance))
    verdict = '<span class="alike">no drift</span>' if column.verdict is Verdict.OK else badge(column.verdict)
    p_value = "&lt;&nbsp;0.001" if column.adjusted < 0.001 else f"{column.adjusted:.3f}"
    return f"""<tr><th scope="row">{escape(format_column(column.name, positive_class))}</th>
  <td>{verdict}</td>
  <td class="whole">{escape(column.words or "")}</td>
  <td class="n" data-name="Reference">{format_middle(column.reference, column.name)}</td>
  <td class="n" data-name="Window">{format_middle(column.window, column.name)}</td>
  <td data-name="Distance"><meter min="0" max="1" value="{distance:.3f}">{distance:.2f}</meter></td>
  <td class="n" data-name="p">{p_value}</td><td class="test">{TESTS[column.test]}</td></tr>"""


def render_sites(board: Board) -> str:
    """Render volume, share of uncertain and verdict of each site; nothing if the log keeps no site."""
    checked = {each.site: each for each in board.latest.check.sites} if board.latest else {}
    heads = {"Site": "", "Images": "n", "Uncertain": "n", "Predicted": "n", "Difference": "", "Latest check": ""}
    words = "Counts are of the selected images. Verdicts are of the latest check, corrected for the number of sites."
    rows = (_render_site(each, checked.get(each.site), board.images) for each in board.sites)
    return section("sites", "Sites", words, stack_table(heads, rows)) if board.sites else ""


def _render_site(counts: SiteCounts, check: SiteCheck | None, images: int) -> str:
    uncertain = estimate_share(counts.uncertain, counts.images)
    assert uncertain is not None  # a site has images
    return f"""<tr><th scope="row">{escape(name_site(counts.site))}</th>
  <td class="n" data-name="Images">{counts.images:,} <small>{counts.images / images:.0%} of all</small></td>
  <td class="n" data-name="Uncertain">{uncertain.value:.1%}
  <small>{uncertain.low:.1%} to {uncertain.high:.1%}</small></td>
  <td class="n" data-name="Predicted">{escape(describe_classes(check.columns)) if check else ""}</td>
  <td class="whole">{escape(capitalize(check.summary)) if check else "Not in the latest check"}</td>
  <td>{badge(check.verdict) if check else NOTHING}</td></tr>"""


def render_distributions(board: Board, plots: Sequence[Plot], draws: bool) -> str:
    """Render histograms of the reference and of the selected images."""
    title = "Reference and selected images"
    columns = [plot for plot in plots if plot.id.startswith("column-")]
    if board.no_reference:
        return section("distributions", title, "", note(f"There is no reference: {escape(board.no_reference)}."))
    if not columns:
        return ""
    sample = "" if board.sampled == board.images else f", a random sample of {board.images:,}"
    words = (
        f"Bars: {board.reference_images:,} reference images. Line: {board.sampled:,} selected images{sample}. "
        "To find the day on which a difference began, select fewer days above."
    )
    return section("distributions", title, words, grid(columns, draws, "many"))


def render_performance(board: Board, plots: Sequence[Plot], draws: bool) -> str:
    """Render performance, measured with labels and estimated without."""
    live = board.live
    if live is None or not live.images:
        return ""
    own = [plot for plot in plots if plot.id.startswith("metric-") or plot.id == "calibration"]
    return section(
        "performance", "Live performance", _describe_labels(live), _list_metrics(board, live) + grid(own, draws)
    )


def _describe_labels(live: LivePerformance) -> str:
    if not live.labels:
        send = "Send them to <code>POST /v1/feedback</code>, one by one or as a table."
        return f"No ground-truth labels yet. {send} {_ESTIMATE}"
    calibration = ""
    if live.calibration_error is not None:
        calibration = f" Expected calibration error: {live.calibration_error:.3f}; with few images it is too high."
    share = f"{live.labels / live.images:.1%}"
    return (
        f"{live.labels:,} of {live.images:,} images ({share}) have ground-truth labels. If these are not typical, "
        f"neither are the metrics. {_ESTIMATE}{calibration}"
    )


def _list_metrics(board: Board, live: LivePerformance) -> str:
    rows = []
    rated = [(name, title, getattr(live.measured, name)) for name, title in METRICS.items()]
    rated += [
        (f"sensitivity:{name}", f"Sensitivity of {escape(name)}", each) for name, each in live.sensitivities.items()
    ]
    for name, title, measured in rated:
        estimated: Estimate | None = getattr(live.estimated, name, None)
        exported = _format_exported(board, name)
        if measured or estimated or exported:
            rows.append(f"""<tr><th scope="row">{title}</th>
  <td class="n" data-name="Measured with labels">{format_estimate(measured)}</td>
  <td class="n" data-name="Estimated without labels">{format_estimate(estimated)}</td>
  <td class="n" data-name="At export">{exported or NOTHING}</td></tr>""")
    heads = {"Metric, 95% interval": "", "Measured with labels": "n", "Estimated without labels": "n", "At export": "n"}
    return stack_table(heads, rows) if rows else ""


def _format_exported(board: Board, name: str) -> str:
    """Format a metric as the bundle reports it; empty if it does not."""
    if board.bundle is None:
        return ""
    split, _ = read_metrics(board.bundle.info)
    metric = split.metrics.get(name)
    if metric is None or metric.value is None or metric.low is None or metric.high is None:
        return ""
    return f"{format_figure(metric.value)} <small>{format_interval(metric)}, {split.name}</small>"
