"""Metrics of a busy service."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pneumo.serving.contracts.schemas import ImagePrediction
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.telemetry.metrics import Metrics


def prediction(probability: float = 0.3, **changes: object) -> ImagePrediction:
    known: dict[str, object] = {
        "filename": None,
        "label": "PNEUMONIA" if probability >= 0.4 else "NORMAL",
        "probability": probability,
        "probabilities": {"NORMAL": 1 - probability, "PNEUMONIA": probability},
        "threshold": 0.4,
        "certainty": "certain",
        "in_distribution": True,
        "outlier_score": 0.0,
        "elapsed_ms": 1.0,
    }
    return ImagePrediction.model_validate(known | changes)


def busy(bundle: Bundle) -> Metrics:
    """Metrics to which everything happened once."""
    metrics = Metrics()
    for lane in ("champion", "challenger", "shadow"):
        metrics.set_model(lane, bundle.info, bundle.digest)
        metrics.count_predictions(lane, [prediction(0.3, certainty="uncertain", in_distribution=False)])
        metrics.images.series(lane, "failed").inc()
    with metrics.in_progress.track_inprogress():
        metrics.queue.set(1)
        metrics.decoding.observe(0.004)
        metrics.waits.observe(0.001)
        metrics.observe_batch(3, 0.02)
    metrics.count_request("/v1/predict", "POST", 200, 0.03)
    metrics.shed.series("memory").inc()
    metrics.image_errors.series("unreadable").inc()
    metrics.compare_shadow(prediction(0.3), prediction(0.6))
    metrics.reloads.series("failed").inc()
    metrics.count_site("ward-3", uncertain=True)
    metrics.show_drift("ok", 0.0, {"mean": 0.5}, {"ward-3": "ok"})
    metrics.bundle_changed.labels("champion").set(True)
    return metrics


def series(metrics: Metrics, accept: str = "") -> dict[str, float]:
    """Value by series, written as Prometheus does."""
    return read(metrics.exposition(accept)[0].decode(), accept)


def read(text: str, accept: str = "") -> dict[str, float]:
    found = {}
    for family in (parse_openmetrics if accept else parse_text)(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found
