"""Time the drift page and its queries with 100,000 logged images, and the description of one image.

Medians of five. The aim for either of the first two is well under a second; descriptors should stay below 1.5 ms.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.support

from pneumo.serving.contracts.settings import Settings
from pneumo.serving.drift.log_queries import (
    count_over_time,
    list_versions,
    read_labelled_answers,
    read_sample,
)
from pneumo.serving.http.app import create_app
from pneumo.serving.images.descriptors import compute_descriptors
from pneumo.serving.images.types import Picture
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.windows import Window
from tests.support import prediction_logs
from tests.support.bundles import make_bundle

ROWS = 100_000
DAY = timedelta(days=1)
END = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
SELECTED = Window("tiny", "1", lane=None, since=END - 30 * DAY, until=END)


def median(ask: Callable[[], object]) -> float:
    """Seconds of a call: the median of five after one that is not counted."""
    ask()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def query(store: LogStore) -> None:
    """Ask what the drift page asks."""
    list_versions(store)
    images = sum(span.images for span in count_over_time(store, SELECTED, DAY, "PNEUMONIA"))
    read_sample(store, SELECTED, images)
    read_labelled_answers(store, SELECTED, images, ["NORMAL", "PNEUMONIA"])


def main() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (224, 224)).astype(np.uint8)
    picture = Picture(gray=gray, format="PNG", mode="L", width=224, height=224)
    print(f"descriptors of an image: {median(lambda: compute_descriptors(picture, gray)) * 1000:.2f} ms")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = prediction_logs.with_reference(make_bundle(folder / "tiny"))
        url = f"sqlite:///{folder / 'log.sqlite3'}"
        store = LogStore(url)
        prediction_logs.fill(store, ROWS, END - 30 * DAY, END, labelled=0.33)
        print(f"queries over {ROWS:,} images: {median(lambda: query(store)):.2f} s")
        with TestClient(create_app(bundle, Settings(threads=1, log_url=url, log_spool=folder / "spool"))) as client:
            print(f"drift page of {ROWS:,} images: {median(lambda: client.get('/drift').raise_for_status()):.2f} s")


if __name__ == "__main__":
    main()
