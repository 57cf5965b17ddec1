"""Wait for a state instead of for a time."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], timeout: float = 300.0) -> None:
    """Return once a condition holds; fail after `timeout` seconds, which only something that hangs takes."""
    ends = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < ends, f"nothing came of it in {timeout:g} s"
        time.sleep(0.01)
