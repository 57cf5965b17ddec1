"""A prediction log as weeks of service leave it: a stable detector, then a darker one."""

import io
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from pneumo.serving.drift.check import check_drift
from pneumo.serving.drift.evidently_page import compose_page
from pneumo.serving.drift.samples import NUMBERS
from pneumo.serving.drift.stored_checks import add_check
from pneumo.serving.model.bundle import Bundle, BundleInfo, seal_bundle
from pneumo.serving.predictions.log_tables import predictions
from pneumo.serving.predictions.rows import DESCRIPTORS
from pneumo.serving.predictions.store import LogStore

POSITIVE, OTHER = "PNEUMONIA", "NORMAL"
THRESHOLD = 0.4
OUTLIER_LIMIT = 0.9
DIMENSIONS = 8


def columns(count: int, rng: np.random.Generator, *, darker: bool = False) -> dict[str, np.ndarray]:
    """Numbers of images, by name of column, with the truth of each.

    Probabilities are calibrated, but of a darker detector: its images look ill.
    """
    spread = {
        "mean": (118, 14),
        "contrast": (52, 6),
        "entropy": (7.3, 0.2),
        "sharpness": (210, 60),
        "noise": (2.1, 0.4),
    }
    found: dict[str, np.ndarray] = {name: rng.normal(middle, width, count) for name, (middle, width) in spread.items()}
    found["black"] = rng.beta(2, 30, count)
    found["white"] = rng.beta(1.5, 80, count)
    found["width"] = rng.integers(1100, 1900, count).astype(float)
    found["height"] = rng.integers(900, 1600, count).astype(float)
    found["aspect"] = found["width"] / found["height"]
    found["probability"] = rng.beta(0.35, 0.55, count)
    found["outlier_score"] = rng.gamma(4, 0.11, count)
    found["embedding"] = rng.normal(size=(count, DIMENSIONS))
    found["truth"] = rng.uniform(size=count) < found["probability"]
    if darker:
        found["mean"] -= 24
        found["contrast"] -= 6
        found["black"] += 0.08
        found["outlier_score"] += 0.25
        found["embedding"][:, 0] += 0.8
        odds = np.log(found["probability"] / (1 - found["probability"]))
        found["probability"] = 1 / (1 + np.exp(-(odds + 1.2)))
    return found


def rows(
    count: int,
    first: datetime,
    until: datetime,
    *,
    seed: int = 0,
    darker: bool = False,
    model: str = "tiny",
    version: str = "1",
    labelled: float = 0.0,
    site: str | None = None,
) -> tuple[list[dict[str, Any]], list[tuple[str, int, str]]]:
    """Rows of the log, with the ground truth of a share of them."""
    rng = np.random.default_rng(seed)
    found = columns(count, rng, darker=darker)
    said = np.where(found["probability"] >= THRESHOLD, POSITIVE, OTHER).tolist()
    seconds = np.sort(rng.uniform(0, (until - first).total_seconds(), count))
    uncertain = np.abs(found["probability"] - 0.5) < 0.1
    names = [*DESCRIPTORS, "probability", "outlier_score"]
    values = zip(*(found[name].tolist() for name in names), strict=True)
    ids = [uuid.UUID(bytes=rng.bytes(16), version=4).hex for _ in range(2 * count)]
    made = [
        {
            "id": ids[number],
            "time": first + timedelta(seconds=float(seconds[number])),
            "request_id": ids[count + number],
            "image_index": 0,
            "model": model,
            "version": version,
            "lane": "champion",
            "format": "JPEG",
            "embedding": found["embedding"][number].astype("<f4").tobytes(),
            "label": said[number],
            "certain": not uncertain[number],
            "in_distribution": bool(found["outlier_score"][number] <= OUTLIER_LIMIT),
            "latency_ms": 8.0,
            "site": site,
            **dict(zip(names, numbers, strict=True)),
        }
        for number, numbers in enumerate(values)
    ]
    has_label = rng.uniform(size=count) < labelled
    labels = [
        (made[number]["request_id"], 0, POSITIVE if found["truth"][number] else OTHER)
        for number in np.flatnonzero(has_label)
    ]
    return made, labels


def fill(store: LogStore, count: int, first: datetime, until: datetime, **how: Any) -> None:
    """Write `rows` into a log."""
    store.prepare()
    made, labels = rows(count, first, until, **how)
    store.add(made)
    store.add_feedback(labels, until)


def with_reference(bundle: Bundle, *, images: int = 400) -> Bundle:
    """Give a bundle a reference as its export would, of images of the stable detector; the bundle is sealed again."""
    found = columns(images, np.random.default_rng(99))
    frame = pd.DataFrame({name: found[name] for name in NUMBERS})
    frame["split"] = "validation"
    frame["embedding"] = list(found["embedding"].astype(np.float32))
    frame["probabilities"] = [[1 - each, each] for each in found["probability"]]
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    (bundle.folder / "reference.parquet").write_bytes(buffer.getvalue())
    limits = {"outlier": {"limit": OUTLIER_LIMIT, "quantile": 0.99}, "thresholds": {"default": THRESHOLD}}
    seal_bundle(bundle.folder, BundleInfo.model_validate(bundle.info.model_dump() | limits | {"files": {}}))
    return Bundle.open(Path(bundle.folder))


def simulate(
    store: LogStore,
    bundle: Bundle,
    *,
    end: datetime,
    stable: int = 14,
    darker: int = 5,
    daily: int = 90,
    checked: int = 99,
) -> None:
    """Days of a stable detector, then of a darker one; the last ones are checked every evening, old ones labelled."""
    store.prepare()
    for number in range(stable + darker):
        first = end - timedelta(days=stable + darker - number)
        labelled = 0.5 if number < stable + darker - 7 else 0.0
        count = daily if first.weekday() < 5 else daily // 3
        fill(
            store,
            count,
            first + timedelta(hours=7),
            first + timedelta(hours=19),
            seed=1000 + number,
            darker=number >= stable,
            model=bundle.info.name,
            version=bundle.info.version,
            labelled=labelled,
        )
        if number < stable + darker - checked:
            continue
        evening = first + timedelta(hours=20)
        query = (
            sa.select(predictions)
            .where(predictions.c.model == bundle.info.name, predictions.c.time < evening)
            .order_by(predictions.c.time.desc())
            .limit(200)
        )
        with store.engine.connect() as connection:
            window = [dict(row) for row in connection.execute(query).mappings()]
        found = check_drift(bundle, window, window="the last 200 images", now=evening)
        drawn = compose_page(found.check, found.reference, found.window) if number >= stable + darker - 2 else None
        add_check(store, found.check, drawn)
