"""Load shedding by predicted wait: refuse a request at once instead of queueing it for too long."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pneumo.serving.contracts.problems import ProblemError

_WEIGHT = 0.2
"""Weight of the newest measurement in the running mean of seconds per image."""


class LoadShedding:
    """Counts images and bytes in the service, and refuses requests whose predicted wait is too long.

    The predicted wait is the number of images in front times the measured seconds between two answers. Only times while
    another image waits are measured, so the prediction holds for any machine, network and images.

    Attributes:
        images: Images in the service.
        body_bytes: Bytes of request bodies in the service.
        seconds_per_image: The running mean; 0 before the first measurement.
    """

    def __init__(
        self,
        *,
        max_wait_s: float,
        max_body_bytes: int,
        shed: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty.

        Args:
            max_wait_s: Longest accepted wait for the network, in seconds.
            max_body_bytes: Most bytes of request bodies at a time; a single request is always admitted.
            shed: Called with the reason of each refusal: `wait` or `memory`.
            clock: Seconds that never decrease.
        """
        self.images = 0
        self.body_bytes = 0
        self.seconds_per_image = 0.0
        self._max_wait_s = max_wait_s
        self._max_body_bytes = max_body_bytes
        self._shed = shed
        self._clock = clock
        self._last_answer: float | None = None

    @property
    def wait_s(self) -> float:
        """The predicted wait of a new image, in seconds."""
        return self.images * self.seconds_per_image

    @contextmanager
    def admit_body(self, size: int) -> Iterator[None]:
        """Admit a request body of `size` bytes for the block, or raise a `ProblemError`."""
        if self.body_bytes and self.body_bytes + size > self._max_body_bytes:
            self._refuse("memory", self.wait_s)
        self.check_wait()
        self.body_bytes += size
        try:
            yield
        finally:
            self.body_bytes -= size

    @contextmanager
    def admit_images(self, images: int) -> Iterator[None]:
        """Admit images for the block, or raise a `ProblemError`."""
        self.check_wait()
        alone, began = not self.images, self._clock()
        self.images += images
        try:
            yield
        finally:
            self.images -= images
            if not self.images:
                self._last_answer = None
                if alone:  # an upper bound for an image; it corrects a measurement from a bad moment
                    self.seconds_per_image = min(self.seconds_per_image, (self._clock() - began) / images)

    def record_answers(self, images: int) -> None:
        """Record that images were answered."""
        now = self._clock()
        if self._last_answer is not None and images:
            measured = (now - self._last_answer) / images
            mean = self.seconds_per_image or measured
            self.seconds_per_image = mean + _WEIGHT * (measured - mean)
        # The time to the next answer measures the work only if other images wait.
        self._last_answer = now if self.images > images else None

    def check_wait(self) -> None:
        """Raise a `ProblemError` if the predicted wait is too long."""
        if self.wait_s > self._max_wait_s:
            self._refuse("wait", self.wait_s - self._max_wait_s)

    def _refuse(self, reason: str, seconds: float) -> None:
        self._shed(reason)
        after = max(1, math.ceil(seconds))
        raise ProblemError("over-capacity", f"the service is overloaded; try again in {after} s", retry_after=after)
