"""Metrics and probabilities as text, with the same three decimals in commands, reports and pages.

`wording.js` of the pages does the same. Only values as they were computed agree: a rounded one rounds a second time.
"""

from typing import Protocol


class HasInterval(Protocol):
    """An estimate and its interval."""

    @property
    def value(self) -> float | None:
        """Value; None if it is undefined."""

    @property
    def low(self) -> float | None:
        """Lower bound; None without an interval."""

    @property
    def high(self) -> float | None:
        """Upper bound; None without an interval."""


def format_figure(value: float | None) -> str:
    """Format a metric with three decimals, `-` if it is undefined."""
    return "-" if value is None else f"{value:.3f}"


def format_probability(value: float) -> str:
    """Format a probability with three decimals; one that is not 0 or 1 never looks so: `<0.001`, `>0.999`."""
    if 0 < value < 0.001:
        return "<0.001"
    return ">0.999" if 0.999 < value < 1 else format_figure(value)


def format_interval(estimate: HasInterval) -> str:
    """Format an interval as `0.912 to 0.965`, empty if there is none."""
    low, high = estimate.low, estimate.high
    return "" if low is None or high is None else f"{format_figure(low)} to {format_figure(high)}"


def format_estimate(estimate: HasInterval) -> str:
    """Format a value and its interval, as in `0.940 (0.912 to 0.965)`."""
    bounds = format_interval(estimate)
    return f"{format_figure(estimate.value)} ({bounds})" if bounds else format_figure(estimate.value)
