"""Metrics as text, of this process or of all workers that share a folder."""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

GONE_AT_ZERO = frozenset({"pneumo_model_info", "pneumo_model_loaded_timestamp_seconds"})
"""Metrics whose series are not shown at 0: a series in a shared folder cannot be removed."""


class Exposition(Collector):
    """What is shown: no `_created` series, which double the size and which few read, and no model that is gone.

    Attributes:
        registry: Where metrics are registered.
    """

    def __init__(self, folder: Path | None) -> None:
        """Show what is registered here, with this process's own metrics, or what workers left in a folder."""
        self.registry = CollectorRegistry()
        self._source = self.registry
        if folder:
            self._source = CollectorRegistry()
            MultiProcessCollector(self._source, path=str(folder))  # type: ignore[no-untyped-call]
        else:
            for collector in (ProcessCollector, PlatformCollector, GCCollector):
                collector(registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        """The metrics to show."""
        for metric in self._source.collect():
            metric.samples = [
                sample
                for sample in metric.samples
                if not sample.name.endswith("_created") and (sample.value or metric.name not in GONE_AT_ZERO)
            ]
            yield metric

    def text(self, accept: str) -> tuple[bytes, str]:
        """All metrics, and their media type; takes milliseconds.

        Args:
            accept: The request's `Accept`: OpenMetrics where that is preferred, else Prometheus' own format.
        """
        if prefers_openmetrics(accept):
            return openmetrics.generate_latest(self), openmetrics.CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]
        return generate_latest(self), CONTENT_TYPE_PLAIN_0_0_4


def prefers_openmetrics(accept: str) -> bool:
    """Whether `Accept` rates OpenMetrics at least as high as plain text.

    `prometheus_client` has its own choice, which fails on versions that are no numbers and echoes those that are.
    """
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name in quality:
            given = [part.removeprefix("q=") for part in parameters if part.startswith("q=")]
            quality[name] = max(quality[name], _number(given[0]) if given else 1.0)
    return 0 < quality["application/openmetrics-text"] >= quality["text/plain"]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
