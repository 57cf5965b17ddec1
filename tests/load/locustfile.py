"""Load as a ward makes it: small X-rays, some as they come from the detector, and people who open the page.

    pip install '.[load]'
    pneumo serve --model real/bundle
    locust -f tests/load/locustfile.py --host http://127.0.0.1:8000 --headless -u 100 -r 20 -t 60s --only-summary

`-u` is how many users there are; each waits `PNEUMO_LOAD_WAIT` seconds between two requests (1 on average), so that 100
users ask about 100 times a second at most. Exit code 1 where a request failed. Without `--headless` there is a page at
http://127.0.0.1:8089. `PNEUMO_KEY` is the API key, where one is asked for. On one machine the load takes cores from the
service: `taskset -c 0 pneumo serve ...` and `taskset -c 1 locust ...` keep them apart.

A service that is asked for too much answers 429 or 503 and says when to come again. These answers stand in rows of
their own, marked `(shed)`: they are no failures, and a user waits as long as it was told.
"""

import functools
import io
import os
import random
from typing import Any

import gevent
import numpy as np
from locust import FastHttpUser, between, task
from PIL import Image

WAIT_S = float(os.environ.get("PNEUMO_LOAD_WAIT", "1"))
SMALL, LARGE = (224, 224), (1200, 1500)
"""Height and width: as prepared for a network, and as a detector gives them."""

POOL = 16
"""Different images of each size, so that nothing can answer from a cache."""


@functools.cache
def xray(size: tuple[int, int], seed: int) -> bytes:
    """A JPEG with two dark lungs in a bright chest, in grain."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    chest = 190 * (1 - np.clip(rows**2 + columns**2 - 0.6, 0, 1))
    for side in (-1, 1):
        centre, height, width = side * rng.uniform(0.35, 0.45), rng.uniform(0.6, 0.8), rng.uniform(0.2, 0.3)
        lung = ((columns - centre) / width) ** 2 + (rows / height) ** 2
        chest -= rng.uniform(90, 130) * np.exp(-(lung**2))
    grainy = chest + rng.normal(0, 6, size)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


class Ward(FastHttpUser):
    """Somebody who sends X-rays, one at a time."""

    wait_time = between(0.5 * WAIT_S, 1.5 * WAIT_S)

    def on_start(self) -> None:
        """Take the key."""
        key = os.environ.get("PNEUMO_KEY")
        self.key = {"Authorization": f"Bearer {key}"} if key else {}

    @task(16)
    def small(self) -> None:
        self.predict(SMALL, "/v1/predict 224 x 224")

    @task(3)
    def large(self) -> None:
        self.predict(LARGE, "/v1/predict 1500 x 1200")

    @task(1)
    def page(self) -> None:
        self.client.get("/", name="/")

    def predict(self, size: tuple[int, int], name: str) -> None:
        wait_s = 0.0
        image: Any = xray(size, random.randrange(POOL))  # locust declares str, and sends bytes too
        headers = {"Content-Type": "image/jpeg", **self.key}
        with self.client.post("/v1/predict", data=image, headers=headers, name=name, catch_response=True) as response:
            if response.status_code in (429, 503):
                response.request_meta["name"] = f"{name} (shed)"
                wait_s = float(response.headers.get("Retry-After", 1))
                response.success()
            elif response.status_code == 200 and len(response.json()["predictions"]) != 1:
                response.failure("not one prediction for one image")
        gevent.sleep(wait_s)
