"""Summaries of a measurement, and medians over several turns."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from service.load import Tally


@dataclass(frozen=True)
class Figure:
    """One measurement.

    Attributes:
        rate: Images answered a second.
        p50: Latency in milliseconds, as the next two.
        p95: 95 % were faster.
        p99: 99 % were faster.
        processor_ms: Milliseconds of processor time that the server spent an image, which busy neighbours hardly move.
        failed: Requests without an answer, or with an error other than 503.
        shed: Requests that were refused with 503.
        generator: Share of a core that the load generator used.
    """

    rate: float
    p50: float
    p95: float
    p99: float
    processor_ms: float
    failed: int = 0
    shed: int = 0
    generator: float = 0.0

    @classmethod
    def of(cls, tally: Tally, processor_s: float = 0.0) -> "Figure":
        p50, p95, p99 = percentiles(tally.latencies)
        each = 1000 * processor_s / max(1, tally.answered)
        return cls(tally.rate, p50, p95, p99, each, tally.failed, tally.shed, tally.generator)


def percentiles(latencies: Sequence[float]) -> tuple[float, float, float]:
    """50, 95 and 99 % of latencies in seconds, as milliseconds."""
    if not latencies:
        return (float("nan"),) * 3
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]) * 1000
    return float(p50), float(p95), float(p99)


def middle(turns: Sequence[Figure]) -> Figure:
    """Medians of turns; what failed or was refused is added up."""
    return Figure(
        rate=statistics.median(turn.rate for turn in turns),
        p50=statistics.median(turn.p50 for turn in turns),
        p95=statistics.median(turn.p95 for turn in turns),
        p99=statistics.median(turn.p99 for turn in turns),
        processor_ms=statistics.median(turn.processor_ms for turn in turns),
        failed=sum(turn.failed for turn in turns),
        shed=sum(turn.shed for turn in turns),
        generator=max(turn.generator for turn in turns),
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of each turn, in which both sides had the same neighbours."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
