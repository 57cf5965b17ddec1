"""The dashboard as HTML; it can be read without its script, which only draws."""

import importlib.metadata
import json
from collections.abc import Sequence
from datetime import timedelta
from html import escape

from pneumo.serving.contracts.install_hints import install_hint
from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.drift.samples import LEAST
from pneumo.serving.drift.stored_checks import StoredCheck
from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.drift.wording import describe_classes
from pneumo.serving.pages.assets import read_template, render_head
from pneumo.serving.pages.dashboard import sections
from pneumo.serving.pages.dashboard.board import HOURLY_DAYS, Board
from pneumo.serving.pages.dashboard.labels import VERDICTS
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
    stack_table,
)
from pneumo.serving.pages.dashboard.plots import Plot, list_plots

_DRAW = (
    '<script src="static/vendor/plotly.min.js" defer></script>\n<script type="module" src="static/drift.js"></script>'
)
_ICONS = {Verdict.OK: "yes", Verdict.WARNING: "warning", Verdict.DRIFT: "warning", Verdict.TOO_FEW: "unsure"}
_OLD = timedelta(days=2)
"""Age from which the page warns that a check is old."""


def render_dashboard(board: Board, *, draws: bool, account: str = "") -> str:
    """Render the dashboard; `draws` tells if plotly.js is installed, `account` is HTML to sign in or out."""
    if board.chosen is None:
        return _render_document(
            note(
                "No images have been logged yet.",
                "Send one to <code>/v1/predict</code> or drop one on the <a href='./'>upload page</a>; it appears here "
                "within a second.",
            ),
            account=account,
        )
    plots = list_plots(board)
    parts = [
        _render_form(board),
        *(note(escape(words)) for words in board.query.notes),
        _render_verdict(board),
        "" if draws else note("Plotly, which draws the plots, is missing.", f"Please {escape(install_hint('drift'))}."),
        _render_figures(board),
        _render_trends(board, plots, draws),
        sections.render_sites(board),
        sections.render_columns(board.latest.check, board) if board.latest else "",
        sections.render_distributions(board, plots, draws),
        sections.render_performance(board, plots, draws),
        _render_reports(board),
    ]
    return _render_document("\n".join(filter(None, parts)), plots if draws else (), account)


def render_problem(title: str, words: str) -> str:
    """Render a page with a problem instead of the dashboard; `words`, the fix, is HTML."""
    return _render_document(note(escape(title), words, error=True))


def _render_document(body: str, plots: Sequence[Plot] = (), account: str = "") -> str:
    scripts = ""
    if plots:
        data = json.dumps([plot.data() for plot in plots], separators=(",", ":"), allow_nan=False)
        # An unescaped `<` could end the element, whatever its type.
        block = data.replace("<", "\\u003c")
        scripts = f'<script type="application/json" id="plots">{block}</script>\n{_DRAW}'
    return read_template("drift.html").substitute(
        head=render_head("drift"),
        notice=f"{NOTICE[0].upper()}{NOTICE[1:]}",
        account=account,
        release=escape(importlib.metadata.version("pneumo")),
        body=body,
        scripts=scripts,
    )


def _render_form(board: Board) -> str:
    assert board.chosen is not None
    options = "".join(
        f'<option value="{escape(each.id)}"{" selected" if each is board.chosen else ""}>{escape(each.id)}: '
        f"{each.images:,} images, {each.first:%Y-%m-%d} to {each.last:%Y-%m-%d}</option>"
        for each in board.versions
    )
    return f"""<form class="choose" method="get" action="drift">
  <label>Model version <select name="version">{options}</select></label>
  <label>From <input type="date" name="from" value="{board.first}"></label>
  <label>To <input type="date" name="to" value="{board.last}"></label>
  <button type="submit" class="primary">Show</button>
</form>"""


def _render_verdict(board: Board) -> str:
    if board.latest is None:
        few = board.images < LEAST and all(each.images < LEAST for each in board.versions)
        wait = f"A check needs {LEAST} images. " if few else ""
        return f"""<section class="verdict too-few" aria-labelledby="verdict-title">
  {icon("unsure")}
  <div><h2 id="verdict-title">No drift check yet</h2>
  <p>{wait}<code>pneumo drift report --store</code> checks the newest images. If the service starts with
  <code>PNEUMO_DRIFT_MINUTES=60</code>, it runs a check every hour.</p></div>
</section>"""
    check = board.latest.check
    age = board.now - check.time
    old = " <strong>This check is old.</strong>" if age > _OLD else ""
    page = f' <a href="{_link(board, board.latest)}">Evidently report</a>' if board.latest.has_page else ""
    shares = escape(describe_classes(check.columns))
    classes = f"\n  <p>Predicted, reference to window: {shares}.</p>" if shares else ""
    return f"""<section class="verdict {css_class(check.verdict)}" aria-labelledby="verdict-title">
  {icon(_ICONS[check.verdict])}
  <div><h2 id="verdict-title">{VERDICTS[check.verdict]}</h2>
  <p class="summary">{escape(capitalize(check.summary))}</p>{classes}
  <p class="small">Checked {format_moment(check.time)}, {format_age(age)}: {escape(check.window)} of
  {escape(check.model)}:{escape(check.version)} ({check.images:,} images) against {check.reference_images:,} reference
  images.{old}{page}</p></div>
</section>"""


def _render_figures(board: Board) -> str:
    images = board.images
    if not images:
        return note(f"No images of this version from {board.first} to {board.last}.", "Select other days above.")
    uncertain = sum(span.uncertain for span in board.spans) / images
    outliers = sum(span.out_of_distribution for span in board.spans) / images
    labels = board.live.labels if board.live else 0
    figures = [
        ("Images", f"{images:,}", f"{board.first} to {board.last}"),
        ("Uncertain", f"{uncertain:.1%}", "the model does not settle on one class"),
        ("Out of distribution", f"{outliers:.1%}", "unlike the training images"),
        ("With ground truth", f"{labels:,}", "sent to <code>/v1/feedback</code>"),
    ]
    few = ""
    if images < LEAST:
        few = note(f"{images} image{'' if images == 1 else 's'} selected.", f"Fewer than {LEAST} cannot show drift.")
    items = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><dd class='small'>{words}</dd></div>" for name, value, words in figures
    )
    return f'{few}<dl class="figures">{items}</dl>'


def _render_trends(board: Board, plots: Sequence[Plot], draws: bool) -> str:
    trends = [plot for plot in plots if plot.id in ("volume", "doubts", "verdicts")]
    daily = (board.last - board.first).days >= HOURLY_DAYS
    hint = f" Up to {HOURLY_DAYS} days are shown per hour." if daily else ""
    return section("time", "Over time", f"Times are in UTC.{hint}", grid(trends, draws, "wide")) if trends else ""


def _render_reports(board: Board) -> str:
    if not board.checks:
        return ""
    opened = ""
    if board.report:
        when = f"{board.report.check.time:%Y-%m-%d %H:%M} UTC"
        opened = f"""<div class="bar"><h3 id="opened" tabindex="-1">Evidently, {when}</h3>
  <p class="buttons"><a href="drift/reports/{board.report.id}" target="_blank" rel="noopener">Open in a new tab</a>
  <a href="{_link(board, None)}">Close</a></p></div>
<iframe title="Evidently's report of {when}" src="drift/reports/{board.report.id}" sandbox="allow-scripts"></iframe>"""
    heads = {"Time (UTC)": "", "Verdict": "", "Summary": "", "Images": "n", "Report": ""}
    return section(
        "reports",
        "Checks and their reports",
        f"The newest {len(board.checks)} of the selected days. Reports of older checks are deleted.",
        stack_table(heads, (_render_report_row(each, board) for each in board.checks), kind="scroll list") + opened,
    )


def _render_report_row(each: StoredCheck, board: Board) -> str:
    link = "<span class='small'>deleted</span>"
    when = f"{each.check.time:%Y-%m-%d %H:%M}"
    if each.has_page:
        current = ' aria-current="true"' if each is board.report else ""
        link = f'<a href="{_link(board, each)}"{current}>Open<span class="unseen"> the report of {when}</span></a>'
    return f"""<tr><td class="when">{when}</td><td>{badge(each.check.verdict)}</td>
  <td class="whole">{escape(capitalize(each.check.summary))}</td>
  <td class="n" data-name="Images">{each.check.images:,}</td><td>{link}</td></tr>"""


def _link(board: Board, check: StoredCheck | None) -> str:
    """Return the address of the same view with the report of a check, or with none."""
    assert board.chosen is not None
    opened = f"&amp;report={check.id}#opened" if check else "#reports-title"
    return f"drift?version={quote_query(board.chosen.id)}&amp;from={board.first}&amp;to={board.last}{opened}"
