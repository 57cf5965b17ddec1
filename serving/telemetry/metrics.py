"""What Prometheus sees of the service.

Names and units follow https://prometheus.io/docs/practices/naming. No label holds what a client made up: a series stays
in memory here and in every database that scrapes it.

With several workers `PROMETHEUS_MULTIPROC_DIR` names an empty folder that they share. It must be set before this module
is imported, which is when `prometheus_client` looks. Then any worker answers for all, and what tells of one process
(`process_*`, `python_*`) is left out.
"""

import os
import platform
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import mark_process_dead

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.schemas import ImagePrediction, SlotName
from pneumo.serving.model.bundle import BundleInfo
from pneumo.serving.telemetry.exposition import Exposition
from pneumo.serving.telemetry.logs import normalize_method

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder which workers share."""

MAX_SERIES = 500
"""Of one metric with labels; what comes beyond is counted as `OTHER`, so that no mistake elsewhere fills memory."""

OTHER = "_OTHER"

_Mode = Literal["livesum", "livemax", "livemostrecent"]
"""What is shown of the values that several workers set."""

_VERDICTS = {"ok": 0, "warning": 1, "drift": 2, "too_few": -1}

_REQUEST_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STEP_S = (0.0005, 0.001, 0.002, 0.004, 0.006, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_IMAGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_PROBABILITY = tuple(step / 20 for step in range(1, 21))
_DIFFERENCE = (0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


def forget_worker(pid: int) -> None:
    """Take the gauges of a worker that ended out of the shared folder; what it counted stays counted."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one application; threads may share it. With a shared folder, one application a process."""

    def __init__(self) -> None:
        """Register everything.

        Raises:
            InputError: `PROMETHEUS_MULTIPROC_DIR` names no folder.
        """
        folder = _shared_folder()
        self._shared = folder is not None
        self._exposed = Exposition(folder)
        self._lock = threading.Lock()
        self._models: dict[SlotName, tuple[str, ...]] = {}
        self._of_requests()
        self._of_work()
        self._of_predictions()
        self._of_models()
        self._of_drift()

    def _of_requests(self) -> None:
        labels = ("route", "method", "status")
        self._requests = _Children(self._counter("http_requests", "Requests answered.", *labels))
        self._durations = _Children(
            self._histogram("http_request_duration_seconds", "Time to answer a request.", _REQUEST_S, "route")
        )
        self._in_progress = self._gauge("http_requests_in_progress", "Requests being answered.", "livesum")
        self._shed = _Children(self._counter("shed", "Requests turned away to protect others.", "reason"))

    def _of_work(self) -> None:
        self._decode = self._histogram("decode_seconds", "Time to decode and prepare an image.", _STEP_S)
        self._queue = self._gauge("queue_images", "Images taken in and not answered yet.", "livesum")
        self._wait = self._histogram("queue_wait_seconds", "Time that an image waited for the network.", _STEP_S)
        self._batch = self._histogram("batch_size", "Images in one run of the network.", _IMAGES)
        self._inference = self._histogram("inference_seconds", "Time of one run of the network.", _STEP_S)
        self._image_errors = _Children(self._counter("image_errors", "Images that were refused.", "reason"))

    def _of_predictions(self) -> None:
        self._images = _Children(self._counter("images", "Images given to a model.", "lane", "result"))
        self._labels = _Children(self._counter("predictions", "Images by the label said.", "lane", "label"))
        text = "Calibrated probability of the positive class; with more than two classes, of the label."
        self._probabilities = _Children(self._histogram("probability", text, _PROBABILITY, "lane"))
        self._uncertain = _Children(self._counter("uncertain", "Images whose label is uncertain.", "lane"))
        text = "Images unlike those that the model was trained on."
        self._strangers = _Children(self._counter("out_of_distribution", text, "lane"))
        text = "Images that the shadow labels differently from the model that answered."
        self._disagreements = self._counter("shadow_disagreements", text)
        text = "Largest difference of a class's probability between shadow and answer."
        self._differences = self._histogram("shadow_probability_difference", text, _DIFFERENCE)

    def _of_models(self) -> None:
        labels = ("lane", "name", "version", "digest")
        self._model = self._gauge("model_info", "Models that are loaded.", "livemax", *labels)
        self._loaded = self._gauge("model_loaded_timestamp_seconds", "When a model was loaded.", "livemax", "lane")
        text = "1 where the files of a loaded bundle are not those that were loaded."
        self._changed = self._gauge("bundle_changed", text, "livemax", "lane")
        self._reloads = _Children(self._counter("reloads", "Attempts to load another version.", "result"))
        for result in ("ok", "failed"):
            self._reloads.series(result)
        self._log_rows = _Children(self._counter("log_rows", "Rows of the prediction log.", "result"))
        for result in ("written", "lost"):
            self._log_rows.series(result)
        build = self._gauge("build_info", "What is installed.", "livemax", "version", "python", "onnxruntime")
        build.labels(_version("pneumo"), platform.python_version(), _version("onnxruntime")).set(1)

    def _of_drift(self) -> None:
        text = "Of the last drift check: 0 ok, 1 warning, 2 drift, -1 too few images or no check yet."
        self._verdict = self._gauge("drift_verdict", text, "livemostrecent")
        self._verdict.set(_VERDICTS["too_few"])
        text = "When the last drift check was made."
        self._checked = self._gauge("drift_last_check_timestamp_seconds", text, "livemostrecent")
        text = "Of the last drift check by column, adjusted for the number of columns; 1 where it is not tested."
        self._p_values = self._gauge("drift_p_value", text, "livemostrecent", "column")
        self._columns: set[str] = set()
        self._checks = _Children(self._counter("drift_checks", "Drift checks that this service made.", "result"))
        for result in (*_VERDICTS, "failed"):
            self._checks.series(result)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"pneumo_{name}_total", text, labels, registry=self._exposed.registry)

    def _gauge(self, name: str, text: str, mode: _Mode, *labels: str) -> Gauge:
        return Gauge(f"pneumo_{name}", text, labels, registry=self._exposed.registry, multiprocess_mode=mode)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"pneumo_{name}", text, labels, registry=self._exposed.registry, buckets=buckets)

    def track_request(self) -> AbstractContextManager[None]:
        """Around the answering of a request."""
        return self._in_progress.track_inprogress()

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered.

        Args:
            route: The route's template, such as `/v1/predict`, or `-` where none matched; never a path as sent.
            method: As sent.
            status: HTTP status.
            seconds: From its first byte to the last of the answer.
        """
        self._requests.series(route, normalize_method(method), str(status)).inc()
        self._durations.series(route).observe(seconds)

    def count_shed(self, reason: str) -> None:
        """Count a request turned away, by a fixed word of the code such as `memory`."""
        self._shed.series(reason).inc()

    def set_queue(self, images: int) -> None:
        """Set how many images are in the service."""
        self._queue.set(images)

    def observe_decoding(self, seconds: float) -> None:
        """Add the time that decoding an image took."""
        self._decode.observe(seconds)

    def count_refused_image(self, reason: str) -> None:
        """Count an image that cannot be used, by `ImageError.reason`."""
        self._image_errors.series(reason).inc()

    def observe_wait(self, seconds: float) -> None:
        """Add the time that an image waited for the network."""
        self._wait.observe(seconds)

    def observe_batch(self, size: int, seconds: float) -> None:
        """Add one run of the network: its images and its time."""
        self._batch.observe(size)
        self._inference.observe(seconds)

    def count_predictions(self, slot: SlotName, predictions: Sequence[ImagePrediction]) -> None:
        """Count what a model said."""
        if not predictions:
            return
        self._images.series(slot, "predicted").inc(len(predictions))
        probability = self._probabilities.series(slot)
        for prediction in predictions:
            self._labels.series(slot, prediction.label).inc()
            probability.observe(prediction.probability)
            if prediction.certainty == "uncertain":
                self._uncertain.series(slot).inc()
            if not prediction.in_distribution:
                self._strangers.series(slot).inc()

    def count_failures(self, slot: SlotName, images: int = 1) -> None:
        """Count images that a model gave no answer for, because it broke or was behind."""
        self._images.series(slot, "failed").inc(images)

    def compare_shadow(self, champion: ImagePrediction, shadow: ImagePrediction) -> None:
        """Count how the shadow's word on an image differs from the one that was given."""
        if champion.label != shadow.label:
            self._disagreements.inc()
        given, other = champion.probabilities, shadow.probabilities
        self._differences.observe(max(abs(given.get(name, 0) - other.get(name, 0)) for name in given | other))

    def set_model(self, slot: SlotName, info: BundleInfo, digest: str) -> None:
        """Set the model of a slot; the one before is no longer told of."""
        with self._lock:
            self._forget_model(slot)
            self._models[slot] = (slot, info.name, info.version, digest)
            self._model.labels(*self._models[slot]).set(1)
        self._loaded.labels(slot).set_to_current_time()
        self.set_bundle_changed(slot, changed=False)
        for result in ("predicted", "failed"):
            self._images.series(slot, result)
        for label in info.classes:  # a series that begins at its first event hides that event from rate()
            self._labels.series(slot, label)
        for metric in (self._probabilities, self._uncertain, self._strangers):
            metric.series(slot)

    def clear_model(self, slot: SlotName) -> None:
        """Say that a slot has no model any more."""
        with self._lock:
            self._forget_model(slot)
        self._loaded.labels(slot).set(0)
        self.set_bundle_changed(slot, changed=False)

    def _forget_model(self, slot: SlotName) -> None:
        labels = self._models.pop(slot, None)
        if labels is None:
            return
        self._model.labels(*labels).set(0)  # what a shared folder holds cannot be removed; 0 is not shown
        if not self._shared:
            self._model.remove(*labels)

    def count_written_rows(self, rows: int) -> None:
        """Count rows of the prediction log that its database took."""
        self._log_rows.series("written").inc(rows)

    def count_lost_rows(self, rows: int) -> None:
        """Count rows of the prediction log that were lost."""
        self._log_rows.series("lost").inc(rows)

    def show_drift(self, verdict: str, checked_at: float, p_values: Mapping[str, float]) -> None:
        """Set what the last drift check of the model that is served said.

        Args:
            verdict: Its verdict, such as `ok`; `too_few` if there is no check.
            checked_at: When it was made, in seconds since 1970; 0 if there is none.
            p_values: Adjusted p-value of each column.
        """
        self._verdict.set(_VERDICTS[verdict])
        self._checked.set(checked_at)
        self._columns |= p_values.keys()
        for name in self._columns:  # what a shared folder holds cannot be removed
            self._p_values.labels(name).set(p_values.get(name, 1.0))

    def count_drift_check(self, result: str) -> None:
        """Count a drift check, by its verdict or as `failed`."""
        self._checks.series(result).inc()

    def set_bundle_changed(self, slot: SlotName, changed: bool) -> None:
        """Set whether the files of a loaded bundle are other ones by now."""
        self._changed.labels(slot).set(changed)

    def count_reload(self, ok: bool) -> None:
        """Count an attempt to load another version."""
        self._reloads.series("ok" if ok else "failed").inc()

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics as text, and its media type; off the event loop, since it takes milliseconds.

        Args:
            accept: The request's `Accept`: OpenMetrics where that is preferred, else Prometheus' own format.
        """
        return self._exposed.text(accept)


class _Children[M: (Counter, Histogram)]:
    """The series of a metric, found by their label values in less time than its own `labels` takes."""

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}

    def series(self, *labels: str) -> M:
        child = self._children.get(labels)
        if child is None:
            known = labels if len(self._children) < MAX_SERIES else (OTHER,) * len(labels)
            child = self._metric.labels(*known)
            self._children[known] = child
        return child


def _shared_folder() -> Path | None:
    folder = os.environ.get(SHARED)
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise InputError(f"{SHARED}={folder}: no such folder; make it, empty, or unset the variable")
    if values.ValueClass is values.MutexValue:
        raise RuntimeError(f"{SHARED} was set after prometheus_client had been imported")
    return Path(folder)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout, or installed under another name
        return "unknown"
