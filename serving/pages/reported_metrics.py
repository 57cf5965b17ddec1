"""Metrics that a bundle reports of its model, as far as the pages can read them: a bundle may hold any or none."""

from pydantic import BaseModel, ValidationError

from pneumo.serving.model.bundle import BundleInfo


class ReportedMetric(BaseModel):
    """A metric and its confidence interval."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Split(BaseModel):
    """Metrics of one split, by name, and its numbers of images and patients."""

    name: str = ""
    images: int | None = None
    patients: int | None = None
    metrics: dict[str, ReportedMetric] = {}


class _Bootstrap(BaseModel):
    level: float = 0.95


class Metrics(BaseModel):
    """Metrics by split, and the bootstrap of their intervals."""

    splits: dict[str, Split] = {}
    bootstrap: _Bootstrap = _Bootstrap()


def read_splits(info: BundleInfo) -> Metrics:
    """Return the metrics of each split; none if they cannot be read."""
    try:
        return Metrics.model_validate(info.metrics)
    except ValidationError:
        return Metrics()


def read_metrics(info: BundleInfo) -> tuple[Split, float]:
    """Return the metrics at the site of a recalibration, else on the test split, else on validation, else none.

    The second value is the level of their intervals.
    """
    metrics = read_splits(info)
    name = next((name for name in ("site", "test", "validation") if name in metrics.splits), None)
    return Split() if name is None else metrics.splits[name].model_copy(update={"name": name}), metrics.bootstrap.level
