"""Pieces of the dashboard's HTML."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from html import escape
from urllib.parse import quote

from pneumo.serving.drift.performance import Estimate
from pneumo.serving.drift.verdict import Middle, Verdict
from pneumo.serving.pages.dashboard.labels import VERDICTS, format_number, format_share
from pneumo.serving.pages.dashboard.plots import Plot, Series

NOTHING = "\N{EN DASH}"


def section(name: str, title: str, words: str, content: str) -> str:
    """A part of the page under a heading; words and content are HTML."""
    said = f'\n  <p class="small">{words}</p>' if words else ""
    return f"""<section class="part" aria-labelledby="{name}-title">
  <h2 id="{name}-title">{title}</h2>{said}
{content}
</section>"""


def grid(found: Sequence[Plot], draws: bool, kind: str = "few") -> str:
    """Plots beside each other."""
    return f'<div class="plots {kind}">\n{"".join(figure(plot, draws) for plot in found)}</div>' if found else ""


def figure(plot: Plot, draws: bool) -> str:
    """A plot's place and its table; without anything that draws, the table is open."""
    drawn = (
        f'<div class="drawing" id="{plot.id}" role="img" aria-label="Plot: {escape(plot.title)}" hidden></div>'
        if draws
        else ""
    )
    return f"""<figure><figcaption>{escape(plot.title)}</figcaption>{drawn}
<details open><summary>As a table</summary><div class="scroll list" tabindex="0">{table(plot)}</div></details></figure>
"""


def table(plot: Plot) -> str:
    """A plot as a table."""
    head = "".join(f'<th scope="col" class="n">{escape(each.name)}</th>' for each in plot.series)
    names = plot.names or [str(x) for x in plot.x]
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td class="n">{cell(plot, series, place)}</td>' for series in plot.series)
        + "</tr>"
        for place, name in enumerate(names)
    )
    return f"""<table><thead><tr><th scope="col">{escape(plot.x_title)}</th>{head}</tr></thead><tbody>
{rows}
</tbody></table>"""


def cell(plot: Plot, series: Series, place: int) -> str:
    """A value with its interval."""
    value = series.y[place]
    if value is None:
        return NOTHING
    low, high = (ends[place] if ends else None for ends in (series.low, series.high))
    interval = "" if low is None or high is None else f" <small>{_told(plot, low)} to {_told(plot, high)}</small>"
    return f"{_told(plot, value)}{interval}"


def _told(plot: Plot, value: float) -> str:
    if plot.unit == "share":
        return format_share(value)
    return f"{value:,.0f}" if plot.unit == "count" else f"{value:.3f}"


def note(title: str, words: str = "", *, error: bool = False) -> str:
    """A box that catches the eye; both are HTML."""
    kind = "note error" if error else "note"
    return f'<div class="{kind}">{icon("warning")}<p><strong>{title}</strong> {words}</p></div>'


def badge(verdict: Verdict) -> str:
    """A verdict as a coloured word."""
    return f'<span class="badge {css_class(verdict)}">{VERDICTS[verdict]}</span>'


def icon(name: str) -> str:
    """A drawing of the page's own, see `drift.html`."""
    return f'<svg aria-hidden="true"><use href="#icon-{name}"/></svg>'


def css_class(verdict: Verdict) -> str:
    """What the style sheet calls a verdict."""
    return verdict.value.replace("_", "-")


def format_estimate(found: Estimate | None) -> str:
    """Format a figure with its interval."""
    if found is None:
        return NOTHING
    return f"{found.value:.3f} <small>{found.low:.3f} to {found.high:.3f}, {found.images:,} images</small>"


def format_middle(middle: Middle | None, name: str) -> str:
    """Format where the middle nine tenths of a column lie."""
    if middle is None:
        return NOTHING
    if middle.low == middle.median == middle.high:
        return format_number(middle.median, name)
    low, median, high = (format_number(value, name) for value in (middle.low, middle.median, middle.high))
    return f"{median} <small>{low} to {high}</small>"


def format_p_value(value: float) -> str:
    """Format a p-value with three digits, never as 0."""
    return "&lt;&nbsp;0.001" if value < 0.001 else f"{value:.3f}"


def capitalize(words: str) -> str:
    """Return a sentence with a capital."""
    return words[:1].upper() + words[1:]


def format_moment(when: datetime) -> str:
    """Format a time in UTC."""
    return f'<time datetime="{when.isoformat()}">{when:%Y-%m-%d %H:%M} UTC</time>'


def format_age(age: timedelta) -> str:
    """Say how long ago that is."""
    minutes = int(age.total_seconds() // 60)
    for length, name in ((1440, "day"), (60, "hour"), (1, "minute")):
        if minutes >= length:
            count = minutes // length
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return "just now"


def quote_query(value: str) -> str:
    """Quote a value inside an address."""
    return escape(quote(value, safe=":"))
