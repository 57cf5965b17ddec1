"""The parts of the dashboard that hold images against the reference, and answers against the truth."""

from collections.abc import Sequence
from html import escape

from pneumo.serving.drift.performance import Estimate, Performance
from pneumo.serving.drift.verdict import ColumnResult, DriftCheck, Verdict
from pneumo.serving.pages.dashboard.board import Board, LivePerformance
from pneumo.serving.pages.dashboard.labels import METRICS, TESTS, format_column, format_share
from pneumo.serving.pages.dashboard.markup import (
    NOTHING,
    badge,
    format_estimate,
    format_middle,
    format_p_value,
    grid,
    note,
    section,
)
from pneumo.serving.pages.dashboard.plots import Plot


def columns(check: DriftCheck, board: Board) -> str:
    """The columns of a check, with what they mean."""
    if not check.columns:
        return ""
    rows = "\n".join(_column(each, board.positive_class) for each in check.columns)
    return section(
        "columns",
        "What the latest check compared",
        "The strongest first. <em>p</em> is how often chance alone does as much, corrected for the number of columns: "
        "below 0.05 is a warning, below 0.01 drift.",
        f"""<div class="scroll"><table class="stack"><thead><tr>
  <th scope="col">Column</th><th scope="col">Says</th><th scope="col">What it means</th>
  <th scope="col" class="n">Reference</th><th scope="col" class="n">Window</th>
  <th scope="col">Distance</th><th scope="col" class="n"><em>p</em></th><th scope="col">Test</th>
</tr></thead><tbody>
{rows}
</tbody></table></div>""",
    )


def _column(each: ColumnResult, positive_class: str | None) -> str:
    distance = min(1.0, max(0.0, each.distance))
    alike = '<span class="alike">alike</span>'
    return f"""<tr><th scope="row">{escape(format_column(each.name, positive_class))}</th>
  <td>{alike if each.verdict is Verdict.OK else badge(each.verdict)}</td>
  <td class="whole">{escape(each.words or "")}</td>
  <td class="n" data-name="Reference">{format_middle(each.reference, each.name)}</td>
  <td class="n" data-name="Window">{format_middle(each.window, each.name)}</td>
  <td data-name="Distance"><meter min="0" max="1" value="{distance:.3f}">{distance:.2f}</meter></td>
  <td class="n" data-name="p">{format_p_value(each.adjusted)}</td><td class="test">{TESTS[each.test]}</td></tr>"""


def distributions(board: Board, shown: Sequence[Plot], draws: bool) -> str:
    """Histograms of the reference and of the images in view."""
    found = [plot for plot in shown if plot.id.startswith("column-")]
    if board.no_reference:
        words = f"There is nothing to compare with: {escape(board.no_reference)}."
        return section("distributions", "Reference against the images in view", "", note(words))
    if not found:
        return ""
    words = f"Bars are the {board.reference_images:,} reference images, the line is {board.sampled:,} images in view"
    words += "." if board.sampled == board.images else f", a fair sample of {board.images:,}."
    words += " Choose fewer days above to see since when they differ."
    return section("distributions", "Reference against the images in view", words, grid(found, draws, "many"))


def performance(board: Board, shown: Sequence[Plot], draws: bool) -> str:
    """How well the model does, as far as labels or probabilities tell."""
    live = board.live
    if live is None or not live.images:
        return ""
    found = [plot for plot in shown if plot.id.startswith("metric-") or plot.id == "calibration"]
    return section("performance", "Live performance", _of_labels(live), _metrics(board, live) + grid(found, draws))


def _of_labels(live: LivePerformance) -> str:
    estimate = (
        "The estimate needs no labels: it believes the model's probabilities, as confidence-based performance "
        "estimation does, and cannot know where these stop being right."
    )
    if not live.labels:
        return (
            "No true label came for these images. <code>POST /v1/feedback</code> takes them, one by one or as a table. "
            f"{estimate}"
        )
    calibration = ""
    if live.calibration_error is not None:
        calibration = f" Expected calibration error {live.calibration_error:.3f}; of few images it is too high."
    share = format_share(live.labels / live.images)
    return (
        f"True labels of {live.labels:,} of {live.images:,} images ({share}): if these are not typical, neither are "
        f"the figures. {estimate}{calibration}"
    )


def _metrics(board: Board, live: LivePerformance) -> str:
    rows = "\n".join(
        f"""<tr><th scope="row">{title}</th>
  <td class="n" data-name="Measured with labels">{format_estimate(_get(live.measured, name))}</td>
  <td class="n" data-name="Estimated without">{format_estimate(_get(live.estimated, name))}</td>
  <td class="n" data-name="When exported">{_exported(board, name) or NOTHING}</td></tr>"""
        for name, title in METRICS.items()
        if _get(live.measured, name) or _get(live.estimated, name) or _exported(board, name)
    )
    if not rows:
        return ""
    return f"""<div class="scroll"><table class="stack"><thead><tr><th scope="col">Metric, 95 % interval</th>
  <th scope="col" class="n">Measured with labels</th><th scope="col" class="n">Estimated without</th>
  <th scope="col" class="n">When exported</th></tr></thead><tbody>
{rows}
</tbody></table></div>"""


def _get(found: Performance, name: str) -> Estimate | None:
    value: Estimate | None = getattr(found, name)
    return value


def _exported(board: Board, name: str) -> str:
    """A metric as the bundle has it, of test images or else of validation; empty where it has none."""
    splits = board.bundle.info.metrics.get("splits", {}) if board.bundle else {}
    for split in ("test", "validation"):
        try:
            found = splits[split]["metrics"][name]
            return f"{found['value']:.3f} <small>{found['low']:.3f} to {found['high']:.3f}, {split}</small>"
        except (KeyError, TypeError, ValueError):
            continue
    return ""
