"""Drift checks as the prediction log stores them."""

from datetime import UTC, datetime, timedelta

from pneumo.serving.drift.verdict import DriftCheck

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


DAY = timedelta(days=1)


def check(hours: float = 0, **changes: object) -> DriftCheck:
    known: dict[str, object] = {
        "time": NOW + timedelta(hours=hours),
        "model": "tiny",
        "version": "1",
        "window": "the last 100 images",
        "first": NOW - DAY,
        "last": NOW,
        "images": 100,
        "reference_images": 400,
        "verdict": "ok",
        "top": [],
        "summary": "the 100 images look like the reference",
        "columns": [],
    }
    return DriftCheck.model_validate(known | changes)
