"""HTML pages that load nothing, from the templates of this folder with the style in them."""

from datetime import UTC, datetime
from pathlib import Path

from pneumo.pipeline.evaluation.results import Estimate, title


def render(template: str, **values: object) -> str:
    """Fill in a template of this folder, with the time of rendering."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": format_value, "interval": format_interval, "metric_title": title}
    environment.filters["count"] = "{:,}".format
    return environment.get_template(template).render(made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", **values)


def format_value(estimate: Estimate) -> str:
    """Format a value with three decimals, `-` if it is undefined."""
    return "-" if estimate.value is None else f"{estimate.value:.3f}"


def format_interval(estimate: Estimate) -> str:
    """Format an interval as `0.912 to 0.965`, empty if there is none."""
    return "" if estimate.low is None or estimate.high is None else f"{estimate.low:.3f} to {estimate.high:.3f}"
