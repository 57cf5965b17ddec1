"""The dashboard as HTML; it can be read without its script, which only draws."""

import importlib.metadata
import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from html import escape

from pneumo.serving.contracts.install_hints import install_hint
from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.drift.column_tests import LEAST
from pneumo.serving.drift.stored_checks import StoredCheck
from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.pages.assets import read_template
from pneumo.serving.pages.dashboard import plots, sections
from pneumo.serving.pages.dashboard.board import HOURLY_DAYS, Board
from pneumo.serving.pages.dashboard.labels import METRICS, VERDICTS, format_share
from pneumo.serving.pages.dashboard.markup import (
    badge,
    capitalize,
    css_class,
    format_age,
    format_moment,
    grid,
    icon,
    note,
    quote_query,
    section,
)
from pneumo.serving.pages.dashboard.plots import Plot

_DRAW = (
    '<script src="static/vendor/plotly.min.js" defer></script>\n<script type="module" src="static/drift.js"></script>'
)
_ICONS = {Verdict.OK: "yes", Verdict.WARNING: "warning", Verdict.DRIFT: "warning", Verdict.TOO_FEW: "unsure"}
_OLD = timedelta(days=2)
"""After which a check is called old."""


def render_dashboard(board: Board, *, draws: bool) -> str:
    """The dashboard.

    Args:
        board: What it shows.
        draws: Whether plotly.js is there to draw plots.
    """
    if board.chosen is None:
        return _document(
            note(
                "No image was logged yet.",
                "Send one to <code>/v1/predict</code> or drop one on <a href='./'>the first page</a>; it shows here "
                "within a second.",
            )
        )
    shown = _plots(board)
    found = [
        _form(board),
        *(note(escape(words)) for words in board.asked.notes),
        _verdict(board),
        ""
        if draws
        else note("Plots need Plotly; tables do not.", f"Where pneumo is installed: {escape(install_hint('drift'))}."),
        _figures(board),
        _over_time(board, shown, draws),
        sections.columns(board.latest.check, board) if board.latest else "",
        sections.distributions(board, shown, draws),
        sections.performance(board, shown, draws),
        _reports(board),
        _versions(board),
    ]
    return _document("\n".join(filter(None, found)), shown if draws else ())


def render_problem(title: str, words: str) -> str:
    """The page where there is nothing to show.

    Args:
        title: What is wrong.
        words: What to do about it, as HTML.
    """
    return _document(note(escape(title), words, error=True))


def _document(body: str, shown: Iterable[Plot] = ()) -> str:
    data = json.dumps([plot.data() for plot in shown], separators=(",", ":"), allow_nan=False)
    scripts = ""
    if data != "[]":
        # `<` could end the element, whatever the element says it holds.
        block = data.replace("<", "\\u003c")
        scripts = f'<script type="application/json" id="plots">{block}</script>\n{_DRAW}'
    return read_template("drift.html").substitute(
        notice=f"{NOTICE[0].upper()}{NOTICE[1:]}",
        release=escape(importlib.metadata.version("pneumo")),
        body=body,
        scripts=scripts,
    )


def _plots(board: Board) -> list[Plot]:
    """Everything that is drawn, in order."""
    found = [plots.volume(board), plots.doubts(board)] if board.spans else []
    if board.verdicts:
        found.append(plots.verdicts(board))
    found += [plots.distribution(each, board.positive_class) for each in board.distributions]
    if board.live:
        found += [plot for name in METRICS if (plot := plots.performance(board, board.live, name))]
        if board.live.bins:
            found.append(plots.calibration(board.live))
    return found


def _form(board: Board) -> str:
    assert board.chosen is not None
    chosen = f"{board.chosen.model}:{board.chosen.version}"
    names = [f"{each.model}:{each.version}" for each in board.versions]
    options = "".join(
        f'<option value="{escape(name)}"{" selected" if name == chosen else ""}>{escape(name)}</option>'
        for name in names
    )
    return f"""<form class="choose" method="get" action="drift">
  <label>Model version <select name="version">{options}</select></label>
  <label>From <input type="date" name="from" value="{board.first}"></label>
  <label>To <input type="date" name="to" value="{board.last}"></label>
  <button type="submit" class="primary">Show</button>
</form>"""


def _verdict(board: Board) -> str:
    if board.latest is None:
        few = board.images < LEAST and all(each.images < LEAST for each in board.versions)
        wait = f"A check needs {LEAST} images. " if few else ""
        return f"""<section class="verdict too-few" aria-labelledby="verdict-title">
  {icon("unsure")}
  <div><h2 id="verdict-title">No drift check yet</h2>
  <p>{wait}<code>pneumo drift report --store</code> makes one of the newest images;
  with <code>PNEUMO_DRIFT_MINUTES=60</code> the service makes one every hour by itself.</p></div>
</section>"""
    check = board.latest.check
    age = board.now - check.time
    old = " <strong>That is long ago.</strong>" if age > _OLD else ""
    page = ""
    if board.latest.has_page:
        page = f' <a href="{_link(board, board.latest)}">Evidently\'s page</a>'
    return f"""<section class="verdict {css_class(check.verdict)}" aria-labelledby="verdict-title">
  {icon(_ICONS[check.verdict])}
  <div><h2 id="verdict-title">{VERDICTS[check.verdict]}</h2>
  <p class="said">{escape(capitalize(check.summary))}</p>
  <p class="small">Checked {format_moment(check.time)}, {format_age(age)}: {escape(check.window)} of
  {escape(check.model)}:{escape(check.version)} ({check.images:,} images) against {check.reference_images:,} reference
  images.{old}{page}</p></div>
</section>"""


def _figures(board: Board) -> str:
    images = board.images
    if not images:
        return note(f"No images of this version from {board.first} to {board.last}.", "Choose other days above.")
    uncertain = sum(span.uncertain for span in board.spans) / images
    strange = sum(span.strange for span in board.spans) / images
    labels = board.live.labels if board.live else 0
    facts = [
        ("Images", f"{images:,}", f"{board.first} to {board.last}"),
        ("Uncertain", format_share(uncertain), "the model cannot settle on its answer"),
        ("Out of distribution", format_share(strange), "unlike the images of training"),
        ("With a true label", f"{labels:,}", "sent to <code>/v1/feedback</code>"),
    ]
    few = ""
    if images < LEAST:
        few = note(f"{images} image{'' if images == 1 else 's'} in view.", f"Fewer than {LEAST} say nothing of drift.")
    items = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><dd class='small'>{words}</dd></div>" for name, value, words in facts
    )
    return f'{few}<dl class="figures">{items}</dl>'


def _over_time(board: Board, shown: Sequence[Plot], draws: bool) -> str:
    found = [plot for plot in shown if plot.id in ("volume", "doubts", "verdicts")]
    if not found:
        return ""
    hint = (
        ""
        if (board.last - board.first).days < HOURLY_DAYS
        else f" A range of up to {HOURLY_DAYS} days is shown by the hour."
    )
    return section("time", "Over time", f"Days and hours are UTC.{hint}", grid(found, draws, "wide"))


def _reports(board: Board) -> str:
    if not board.checks:
        return ""
    rows = "\n".join(_report_row(each, board) for each in board.checks)
    opened = ""
    if board.report:
        when = f"{board.report.check.time:%Y-%m-%d %H:%M} UTC"
        opened = f"""<div class="bar"><h3 id="opened" tabindex="-1">Evidently, {when}</h3>
  <p class="buttons"><a href="drift/reports/{board.report.id}" target="_blank" rel="noopener">In a tab of its own</a>
  <a href="{_link(board, None)}">Close</a></p></div>
<iframe title="Evidently's report of {when}" src="drift/reports/{board.report.id}" sandbox="allow-scripts"></iframe>"""
    return section(
        "reports",
        "Checks and their reports",
        f"The newest {len(board.checks)} in view. Of old ones only the verdict is kept.",
        f"""<div class="scroll list"><table class="stack"><thead><tr>
  <th scope="col">When (UTC)</th><th scope="col">Verdict</th>
  <th scope="col">In words</th><th scope="col" class="n">Images</th><th scope="col">Report</th></tr></thead><tbody>
{rows}
</tbody></table></div>{opened}""",
    )


def _report_row(each: StoredCheck, board: Board) -> str:
    link = "<span class='small'>not kept</span>"
    when = f"{each.check.time:%Y-%m-%d %H:%M}"
    if each.has_page:
        current = ' aria-current="true"' if each is board.report else ""
        link = f'<a href="{_link(board, each)}"{current}>Open<span class="unseen"> the report of {when}</span></a>'
    return f"""<tr><td class="when">{when}</td><td>{badge(each.check.verdict)}</td>
  <td class="whole">{escape(capitalize(each.check.summary))}</td>
  <td class="n" data-name="Images">{each.check.images:,}</td><td>{link}</td></tr>"""


def _versions(board: Board) -> str:
    if len(board.versions) < 2:
        return ""
    rows = "\n".join(
        f"""<tr><th scope="row"><a href="drift?version={quote_query(f"{each.model}:{each.version}")}">
  {escape(each.model)}:{escape(each.version)}</a></th><td class="n whole" data-name="Images">{each.images:,}</td>
  <td class="when" data-name="First (UTC)">{each.first:%Y-%m-%d %H:%M}</td>
  <td class="when" data-name="Last (UTC)">{each.last:%Y-%m-%d %H:%M}</td></tr>"""
        for each in board.versions
    )
    return section(
        "versions",
        "Versions that answered",
        "",
        f"""<div class="scroll"><table class="stack"><thead><tr>
  <th scope="col">Version</th><th scope="col" class="n">Images</th>
  <th scope="col">First (UTC)</th><th scope="col">Last (UTC)</th></tr></thead><tbody>
{rows}
</tbody></table></div>""",
    )


def _link(board: Board, check: StoredCheck | None) -> str:
    """The same view with the report of a check, or with none."""
    assert board.chosen is not None
    version = quote_query(f"{board.chosen.model}:{board.chosen.version}")
    opened = f"&amp;report={check.id}#opened" if check else "#reports-title"
    return f"drift?version={version}&amp;from={board.first}&amp;to={board.last}{opened}"
