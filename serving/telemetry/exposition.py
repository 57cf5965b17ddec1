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

_HIDDEN_AT_ZERO = frozenset({"pneumo_model_info", "pneumo_model_loaded_timestamp_seconds"})
"""Metrics whose series are hidden at 0: a series in a shared folder cannot be removed."""


class Exposition(Collector):
    """All metrics but those of unloaded models and the `_created` series, which double the size and which few read."""

    def __init__(self, folder: Path | None) -> None:
        """Expose the registry and metrics of the process; or, with a folder, the metrics that workers share in it."""
        self.registry = CollectorRegistry()
        self._source = self.registry
        if folder:
            self._source = CollectorRegistry()
            MultiProcessCollector(self._source, path=str(folder))  # type: ignore[no-untyped-call]
        else:
            for collector in (ProcessCollector, PlatformCollector, GCCollector):
                collector(registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics to show."""
        for metric in self._source.collect():
            metric.samples = [
                sample
                for sample in metric.samples
                if not sample.name.endswith("_created") and (sample.value or metric.name not in _HIDDEN_AT_ZERO)
            ]
            yield metric

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics and their media type, in the format that `Accept` prefers; takes milliseconds."""
        if prefers_openmetrics(accept):
            return openmetrics.generate_latest(self), openmetrics.CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]
        return generate_latest(self), CONTENT_TYPE_PLAIN_0_0_4


def prefers_openmetrics(accept: str) -> bool:
    """Return whether `Accept` rates OpenMetrics at least as high as plain text.

    Not `prometheus_client.exposition.choose_encoder`: it raises on versions that are not numbers, echoes those that
    are, and ignores `q`.
    """
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name in quality:
            given = next((part.removeprefix("q=") for part in parameters if part.startswith("q=")), "1")
            try:
                quality[name] = max(quality[name], float(given))
            except ValueError:
                continue
    return 0 < quality["application/openmetrics-text"] >= quality["text/plain"]
