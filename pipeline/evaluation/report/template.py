"""HTML pages that load nothing, from templates with the style of the service in them."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pneumo.pipeline.evaluation.results import Estimate, title
from pneumo.serving.contracts.figures import format_figure, format_interval, format_probability
from pneumo.serving.pages.assets import WEB

_HERE = Path(__file__).parent


def render(
    template: str, folder: Path = _HERE, filters: Mapping[str, Callable[..., object]] = {}, **values: object
) -> str:
    """Fill in a template of a folder, which may build on those of this one, with the time of rendering."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, _HERE, WEB]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": format_value, "interval": format_interval, "metric_title": title}
    environment.filters |= {"count": "{:,}".format, "probability": format_probability, **filters}
    return environment.get_template(template).render(made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", **values)


def format_value(estimate: Estimate) -> str:
    """Format a value with three decimals, `-` if it is undefined."""
    return format_figure(estimate.value)
