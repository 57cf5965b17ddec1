"""Pieces of the dashboard's HTML."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from html import escape
from urllib.parse import quote

from pneumo.serving.contracts.figures import format_figure, format_interval
from pneumo.serving.drift.performance import Estimate
from pneumo.serving.drift.verdict import Middle, Verdict
from pneumo.serving.pages.dashboard.labels import VERDICTS, format_number
from pneumo.serving.pages.dashboard.plots import Plot, Series

NOTHING = "\N{EN DASH}"


def section(name: str, title: str, words: str, content: str) -> str:
    """Render a part of the page under a heading; words and content are HTML."""
    intro = f'\n  <p class="small">{words}</p>' if words else ""
    return f"""<section class="part" aria-labelledby="{name}-title">
  <h2 id="{name}-title">{title}</h2>{intro}
{content}
</section>"""


def stack_table(heads: Mapping[str, str], rows: Iterable[str], *, kind: str = "scroll") -> str:
    """Render a table that becomes a list on small screens: HTML of the heads with their classes, and of the rows."""
    names = "".join(f'<th scope="col"{css and f' class="{css}"'}>{name}</th>' for name, css in heads.items())
    return f"""<div class="{kind}" tabindex="0"><table class="stack"><thead><tr>{names}</tr></thead><tbody>
{"\n".join(rows)}
</tbody></table></div>"""


def grid(plots: Sequence[Plot], draws: bool, kind: str = "few") -> str:
    """Render plots beside each other."""
    figures = "".join(_render_figure(plot, draws) for plot in plots)
    return f'<div class="plots {kind}">\n{figures}</div>' if plots else ""


def _render_figure(plot: Plot, draws: bool) -> str:
    """Render a plot's place and its table."""
    place = f'<div class="drawing" id="{plot.id}" role="img" aria-label="Plot: {escape(plot.title)}" hidden></div>'
    return f"""<figure><figcaption>{escape(plot.title)}</figcaption>{place if draws else ""}
<details open><summary>As a table</summary><div class="scroll list" tabindex="0">{_render_table(plot)}</div></details>
</figure>
"""


def _render_table(plot: Plot) -> str:
    head = "".join(f'<th scope="col" class="n">{escape(each.name)}</th>' for each in plot.series)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f'<td class="n">{_render_cell(plot, series, place)}</td>' for series in plot.series)
        + "</tr>"
        for place, name in enumerate(plot.names or map(str, plot.x))
    )
    return f"""<table><thead><tr><th scope="col">{escape(plot.x_title)}</th>{head}</tr></thead><tbody>
{rows}
</tbody></table>"""


def _render_cell(plot: Plot, series: Series, place: int) -> str:
    """Render a value with its interval."""
    spec = {"share": ".1%", "count": ",.0f", "area": ".3f"}[plot.unit]
    value, low, high = (values[place] if values else None for values in (series.y, series.low, series.high))
    if value is None:
        return NOTHING
    interval = "" if low is None or high is None else f" <small>{low:{spec}} to {high:{spec}}</small>"
    return f"{value:{spec}}{interval}"


def note(title: str, words: str = "", *, error: bool = False) -> str:
    """Render a highlighted box; both texts are HTML."""
    kind = "note error" if error else "note"
    return f'<div class="{kind}">{icon("warning")}<p><strong>{title}</strong> {words}</p></div>'


def badge(verdict: Verdict) -> str:
    """Render a verdict as a coloured word."""
    return f'<span class="badge {css_class(verdict)}">{VERDICTS[verdict]}</span>'


def icon(name: str) -> str:
    """Render an icon of `drift.html`."""
    return f'<svg aria-hidden="true"><use href="#icon-{name}"/></svg>'


def css_class(verdict: Verdict) -> str:
    """Return the class of a verdict in the style sheet."""
    return verdict.value.replace("_", "-")


def format_estimate(estimate: Estimate | None) -> str:
    """Format a metric with its interval."""
    if estimate is None:
        return NOTHING
    return f"{format_figure(estimate.value)} <small>{format_interval(estimate)}, {estimate.images:,} images</small>"


def format_middle(middle: Middle | None, name: str) -> str:
    """Format the median of a column, and its 5% and 95% quantiles."""
    if middle is None:
        return NOTHING
    low, median, high = (format_number(value, name) for value in (middle.low, middle.median, middle.high))
    return median if middle.low == middle.high else f"{median} <small>{low} to {high}</small>"


def capitalize(words: str) -> str:
    """Return a sentence with a capital."""
    return words[:1].upper() + words[1:]


def format_moment(when: datetime) -> str:
    """Format a time in UTC."""
    return f'<time datetime="{when.isoformat()}">{when:%Y-%m-%d %H:%M} UTC</time>'


def format_age(age: timedelta) -> str:
    """Format the time since an event."""
    minutes = int(age.total_seconds() // 60)
    for length, name in ((1440, "day"), (60, "hour"), (1, "minute")):
        if minutes >= length:
            count = minutes // length
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return "just now"


def quote_query(value: str) -> str:
    """Quote a value inside an address."""
    return escape(quote(value, safe=":"))
