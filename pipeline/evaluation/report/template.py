"""Pages that need nothing else: templates of this folder, with the style of the report in them."""

from pathlib import Path
from typing import Any

from pneumo.pipeline.evaluation.results import Estimate, title


def render(template: str, **values: Any) -> str:
    """Fill in a template of this folder."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "interval": interval, "metric_title": title}
    return environment.get_template(template).render(**values)


def figure(estimate: Estimate) -> str:
    """A value for people: three decimals, or a dash."""
    return "-" if estimate.value is None else f"{estimate.value:.3f}"


def interval(estimate: Estimate) -> str:
    """An interval for people, `0.912 to 0.965`, or nothing where there is none."""
    return "" if estimate.low is None or estimate.high is None else f"{estimate.low:.3f} to {estimate.high:.3f}"
