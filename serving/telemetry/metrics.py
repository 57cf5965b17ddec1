"""Prometheus metrics of the service.

Names and units follow https://prometheus.io/docs/practices/naming. No label holds text that a client sent, but a
site, of which few are told apart: a series stays in memory here and in every database that scrapes it.

With several workers `PROMETHEUS_MULTIPROC_DIR` names an empty folder that they share. It must be set before this module
is imported, because `prometheus_client` reads it at import. Then any worker answers for all, and metrics of one process
(`process_*`, `python_*`) are left out.
"""

import os
import platform
import threading
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import mark_process_dead

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.schemas import ImagePrediction, SlotName
from pneumo.serving.contracts.sites import MOST_SITES, NO_SITE
from pneumo.serving.model.bundle import BundleInfo
from pneumo.serving.telemetry.exposition import Exposition
from pneumo.serving.telemetry.logs import normalize_method, on_dropped

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Variable that names the folder which workers share."""

MAX_SERIES = 500
"""Most series per metric; further label values are counted as `OTHER`, so that a bug elsewhere cannot fill memory."""

OTHER = "_OTHER"

REFUSALS = ("connections", "header-time", "headers", "malformed", "pipelined", "upgrade", "url")
"""Reasons for which a connection is refused before its request reaches the application."""

_Mode = Literal["livesum", "livemax", "livemostrecent"]
"""How the values of several workers become one."""

_VERDICTS = {"ok": 0, "warning": 1, "drift": 2, "too_few": -1}

_REQUEST_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STEP_S = (0.0005, 0.001, 0.002, 0.004, 0.006, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_IMAGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_PROBABILITY = tuple(step / 20 for step in range(1, 21))
_DIFFERENCE = (0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


def forget_worker(pid: int) -> None:
    """Remove the gauges of an ended worker from the shared folder; its counters stay."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]


class Metrics:
    """Metrics of one application; threads may share it. A shared folder allows one application per process."""

    def __init__(self) -> None:
        """Register all metrics; raise an `InputError` if `PROMETHEUS_MULTIPROC_DIR` names no folder."""
        folder = _find_shared_folder()
        self._shared = folder is not None
        self._exposed = Exposition(folder)
        self._lock = threading.Lock()
        self._models: dict[SlotName, tuple[str, ...]] = {}
        self._columns: set[str] = set()
        self._register_requests()
        self._register_models()
        self._register_states()

    def _register_requests(self) -> None:
        self._requests = self._counters("http_requests", "Requests answered.", "route", "method", "status")
        self._durations = self._histograms("http_request_duration_seconds", "Time to answer.", _REQUEST_S, "route")
        self.in_progress = self._gauge("http_requests_in_progress", "Requests being answered.", "livesum")
        self.shed = self._counters("shed", "Requests refused by load shedding or a limit.", "reason")
        text = "Connections refused, or closed to make room, by a limit."
        self.refused_connections = self._counters("refused_connections", text, "reason")
        self.decoding = self._histogram("decode_seconds", "Time to decode and prepare an image.", _STEP_S)
        self.queue = self._gauge("queue_images", "Images received and not answered yet.", "livesum")
        self.waits = self._histogram("queue_wait_seconds", "Time that an image waited for the network.", _STEP_S)
        self._batch = self._histogram("batch_size", "Images per run of the network.", _IMAGES)
        self._inference = self._histogram("inference_seconds", "Time per run of the network.", _STEP_S)
        self.image_errors = self._counters("image_errors", "Images that were refused.", "reason")

    def _register_models(self) -> None:
        self.images = self._counters("images", "Images given to a model.", "lane", "result")
        self._labels = self._counters("predictions", "Images by predicted class.", "lane", "label")
        text = "Calibrated probability of the positive class; with more than two classes, of the label."
        self._probabilities = self._histograms("probability", text, _PROBABILITY, "lane")
        self._uncertain = self._counters("uncertain", "Images whose label is uncertain.", "lane")
        self._outliers = self._counters("out_of_distribution", "Images that are out of distribution.", "lane")
        most = MOST_SITES + 1  # and `NO_SITE`
        self._site_images = self._counters("site_images", "Images logged, by site.", "site", most=most)
        self._site_uncertain = self._counters("site_uncertain", "Uncertain images logged, by site.", "site", most=most)
        text = "Verdict on each site in the last drift check, as `pneumo_drift_verdict`; -1 if it is not in it."
        self._site_verdicts = _Labelled(self._gauge("drift_site_verdict", text, "livemostrecent", "site"), most)
        text = "Images for which shadow and answering model predict different classes."
        self._disagreements = self._counter("shadow_disagreements", text)
        text = "Largest difference of a class's probability between shadow and answer."
        self._differences = self._histogram("shadow_probability_difference", text, _DIFFERENCE)

    def _register_states(self) -> None:
        labels = ("lane", "name", "version", "digest")
        self._model = self._gauge("model_info", "Models that are loaded.", "livemax", *labels)
        self._loaded = self._gauge("model_loaded_timestamp_seconds", "Time a model was loaded.", "livemax", "lane")
        self.bundle_changed = self._gauge("bundle_changed", "1 if a loaded bundle's files changed.", "livemax", "lane")
        self.reloads = self._counters("reloads", "Attempts to load another version.", "result")
        self.log_rows = self._counters("log_rows", "Rows of the prediction log.", "result")
        self.log_away = self._gauge("log_away", "1 if the prediction log's database cannot be written.", "livemax")
        dropped = self._counter("dropped_log_lines", "Log lines that were dropped, since nobody read them.")
        on_dropped.add(dropped.inc)
        build = self._gauge("build_info", "Installed versions.", "livemax", "version", "python", "onnxruntime")
        build.labels(_find_version("pneumo"), platform.python_version(), _find_version("onnxruntime")).set(1)
        text = "Last drift check: 0 ok, 1 warning, 2 drift, -1 too few images or no check yet."
        self._verdict = self._gauge("drift_verdict", text, "livemostrecent")
        self._verdict.set(_VERDICTS["too_few"])
        text = "Time of the last drift check."
        self._checked = self._gauge("drift_last_check_timestamp_seconds", text, "livemostrecent")
        text = "P-value per column of the last drift check, adjusted for the number of columns; 1 if not tested."
        self._p_values = self._gauge("drift_p_value", text, "livemostrecent", "column")
        self.drift_checks = self._counters("drift_checks", "Drift checks that this service made.", "result")
        # A series that begins at its first event hides that event from rate().
        for series, results in (
            (self.shed, ("wait", "memory", "timeout")),
            (self.refused_connections, REFUSALS),
            (self.image_errors, ("not-an-image", "unreadable", "too-large")),
            (self.reloads, ("ok", "failed")),
            (self.log_rows, ("written", "lost")),
            (self.drift_checks, (*_VERDICTS, "failed")),
        ):
            for result in results:
                series.series(result)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"pneumo_{name}_total", text, labels, registry=self._exposed.registry)

    def _gauge(self, name: str, text: str, mode: _Mode, *labels: str) -> Gauge:
        return Gauge(f"pneumo_{name}", text, labels, registry=self._exposed.registry, multiprocess_mode=mode)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"pneumo_{name}", text, labels, registry=self._exposed.registry, buckets=buckets)

    def _counters(self, name: str, text: str, *labels: str, most: int = MAX_SERIES) -> "_Labelled[Counter]":
        return _Labelled(self._counter(name, text, *labels), most)

    def _histograms(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> "_Labelled[Histogram]":
        return _Labelled(self._histogram(name, text, buckets, *labels))

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered in `seconds`, from its first byte to the last byte of the answer.

        The route is its template, such as `/v1/predict`, or `-` if no route matched; never a path as sent.
        """
        self._requests.series(route, normalize_method(method), str(status)).inc()
        self._durations.series(route).observe(seconds)

    def observe_batch(self, size: int, seconds: float) -> None:
        """Add one run of the network: its images and its time."""
        self._batch.observe(size)
        self._inference.observe(seconds)

    def count_predictions(self, slot: SlotName, predictions: Sequence[ImagePrediction]) -> None:
        """Count the predictions of a model."""
        if not predictions:
            return
        self.images.series(slot, "predicted").inc(len(predictions))
        probability = self._probabilities.series(slot)
        for prediction in predictions:
            self._labels.series(slot, prediction.label).inc()
            probability.observe(prediction.probability)
            if prediction.certainty == "uncertain":
                self._uncertain.series(slot).inc()
            if not prediction.in_distribution:
                self._outliers.series(slot).inc()

    def count_site(self, site: str | None, *, uncertain: bool) -> None:
        """Count a logged image by its site; the first `MOST_SITES` are told apart."""
        self._site_images.series(site or NO_SITE).inc()
        self._site_uncertain.series(site or NO_SITE).inc(uncertain)

    def compare_shadow(self, champion: ImagePrediction, shadow: ImagePrediction) -> None:
        """Count the differences between the shadow's prediction and the answer."""
        if champion.label != shadow.label:
            self._disagreements.inc()
        given, other = champion.probabilities, shadow.probabilities
        self._differences.observe(max(abs(given.get(name, 0) - other.get(name, 0)) for name in given | other))

    def set_model(self, slot: SlotName, info: BundleInfo, digest: str) -> None:
        """Set the model of a slot in place of the previous one."""
        with self._lock:
            self._remove_model(slot)
            self._models[slot] = (slot, info.name, info.version, digest)
            self._model.labels(*self._models[slot]).set(1)
        self._loaded.labels(slot).set_to_current_time()
        self.bundle_changed.labels(slot).set(False)
        for result in ("predicted", "failed"):
            self.images.series(slot, result)
        for label in info.classes:
            self._labels.series(slot, label)
        for metric in (self._probabilities, self._uncertain, self._outliers):
            metric.series(slot)

    def clear_model(self, slot: SlotName) -> None:
        """Mark a slot as empty."""
        with self._lock:
            self._remove_model(slot)
        self._loaded.labels(slot).set(0)
        self.bundle_changed.labels(slot).set(False)

    def _remove_model(self, slot: SlotName) -> None:
        labels = self._models.pop(slot, None)
        if labels is None:
            return
        self._model.labels(*labels).set(0)  # a series in a shared folder cannot be removed; 0 is hidden
        if not self._shared:
            self._model.remove(*labels)

    def show_drift(
        self, verdict: str, checked_at: float, p_values: Mapping[str, float], sites: Mapping[str, str] | None = None
    ) -> None:
        """Set the verdict, time (seconds since 1970), adjusted p-values and verdicts by site of the last drift check.

        Without a check the verdict is `too_few` and the time 0.
        """
        self._verdict.set(_VERDICTS[verdict])
        self._checked.set(checked_at)
        self._columns |= p_values.keys()
        for name in self._columns:  # a series in a shared folder cannot be removed
            self._p_values.labels(name).set(p_values.get(name, 1.0))
        worst = dict.fromkeys(self._site_verdicts.known.values(), -1)
        for site, own in (sites or {}).items():
            series = self._site_verdicts.series(site)
            worst[series] = max(worst.get(series, -1), _VERDICTS[own])
        for series, value in worst.items():
            series.set(value)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics as text and the media type, see `Exposition.text`; call it off the event loop."""
        return self._exposed.text(accept)


class _Labelled[M: (Counter, Gauge, Histogram)]:
    """A metric with labels that finds its series faster than `prometheus_client` does, and limits their number."""

    def __init__(self, metric: M, most: int = MAX_SERIES) -> None:
        self._metric: M = metric
        self._most = most
        self.known: dict[tuple[str, ...], M] = {}

    def series(self, *labels: str) -> M:
        series = self.known.get(labels)
        if series is None:
            kept = labels if len(self.known) < self._most else (OTHER,) * len(labels)
            series = self.known[kept] = self._metric.labels(*kept)
        return series


def _find_shared_folder() -> Path | None:
    folder = os.environ.get(SHARED)
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise InputError(f"{SHARED}={folder}: no such folder; make an empty one, or unset the variable")
    if values.ValueClass is values.MutexValue:
        raise RuntimeError(f"{SHARED} was set after prometheus_client had been imported")
    return Path(folder)


def _find_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout, or installed under another name
        return "unknown"
