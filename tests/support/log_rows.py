"""Rows of the prediction log."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa

from pneumo.serving.images.descriptors import Descriptors
from pneumo.serving.predictions.log_tables import predictions
from pneumo.serving.predictions.rows import LogRow
from pneumo.serving.predictions.store import LogStore

NOW = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)


def row(number: int = 0, **changes: Any) -> LogRow:
    known: dict[str, Any] = {
        "time": NOW + timedelta(seconds=number),
        "request_id": f"request-{number}",
        "image_index": 0,
        "model": "tiny",
        "version": "1",
        "lane": "champion",
        "site": None,
        "format": "JPEG",
        "descriptors": Descriptors(*np.arange(10.0).tolist()),
        "embedding": np.arange(4, dtype=np.float32),
        "label": "PNEUMONIA",
        "probability": 0.75,
        "certain": True,
        "in_distribution": False,
        "outlier_score": 1.5,
        "latency_ms": 8.0,
    }
    return LogRow(**(known | changes))


def count(store: LogStore) -> int:
    with store.engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(predictions)).scalar()
