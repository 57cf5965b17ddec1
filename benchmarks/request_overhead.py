"""Measure the processor time that metrics and request guards add to a request, in microseconds.

The least of several rounds. A slow hash of the key, or a look at the disk for each request, would show at once.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests.support

from pneumo.serving.access.api_keys import add_key
from pneumo.serving.access.security import build_middleware
from pneumo.serving.contracts.setting_types import Rate
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.telemetry.metrics import Metrics
from tests.support.metrics import prediction

ROUNDS, REQUESTS = 5, 2000


def least(ask: Callable[[], object]) -> float:
    """Microseconds of one of the requests that a call makes."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        ask()
        times.append(time.process_time() - began)
    return min(times) / REQUESTS * 1e6


def count(metrics: Metrics) -> None:
    """Count requests of one image each."""
    said = [prediction()]
    for _ in range(REQUESTS):
        with metrics.in_progress.track_inprogress():
            metrics.queue.set(1)
            metrics.decoding.observe(0.004)
            metrics.waits.observe(0.001)
            metrics.observe_batch(1, 0.01)
            metrics.count_predictions("champion", said)
        metrics.count_request("/v1/predict", "POST", 200, 0.02)


def guarded(keys: Path) -> Any:
    """An application that answers at once, behind keys and rate limits."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b""})

    made: Any = app
    settings = Settings(host="0.0.0.0", keys=keys, rate=Rate.parse("1000000/second"))
    for middleware in reversed(build_middleware(settings)):
        made = middleware.cls(made, *middleware.args, **middleware.kwargs)
    return made


async def ask(app: Any, key: str) -> None:
    """Send requests to it."""
    headers = [(b"host", b"x"), (b"user-agent", b"y" * 40), (b"accept", b"*/*"), (b"x-api-key", key.encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "scheme": "http", "headers": headers}
    scope |= {"query_string": b"", "client": ("203.0.113.5", 4711), "server": ("127.0.0.1", 8000)}

    async def nothing(*_: Any) -> None:
        return None

    for _ in range(REQUESTS):
        await app(dict(scope), nothing, nothing)


def main() -> None:
    metrics = Metrics()
    print(f"counting a request: {least(lambda: count(metrics)):.0f} us")
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        _, key = add_key(keys, "bench")
        app = guarded(keys)
        print(f"guarding a request: {least(lambda: anyio.run(ask, app, key)):.0f} us")


if __name__ == "__main__":
    main()
