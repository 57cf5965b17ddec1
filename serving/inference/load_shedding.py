"""Load shedding by predicted wait: refuse at once what would wait too long, instead of queueing for ever."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pneumo.serving.contracts.problems import ProblemError

_WEIGHT = 0.2
"""Of the newest measurement in the running mean of seconds an image."""


class LoadShedding:
    """Counts images and bytes in the service and refuses what would wait too long.

    How long it would wait is the number of images in front times the seconds between two answers, measured while
    there is always a next one waiting, so that it holds whatever the machine, the network and the images are.

    Attributes:
        images: Images in the service.
        body_bytes: Bytes of request bodies in the service.
        seconds_per_image: Measured, or 0 before there was anything to measure.
    """

    def __init__(
        self,
        *,
        max_wait_s: float,
        max_body_bytes: int,
        shed: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin empty.

        Args:
            max_wait_s: Longest wait for the network that is accepted, in seconds.
            max_body_bytes: Most bytes of request bodies at a time; one request is always let in.
            shed: Told why something was refused: `wait` or `memory`.
            clock: Seconds.
        """
        self.images = 0
        self.body_bytes = 0
        self.seconds_per_image = 0.0
        self._max_wait_s = max_wait_s
        self._max_body_bytes = max_body_bytes
        self._shed = shed
        self._clock = clock
        self._last: float | None = None

    @property
    def wait_s(self) -> float:
        """How long an image that came now would wait, in seconds."""
        return self.images * self.seconds_per_image

    @contextmanager
    def admit_body(self, size: int) -> Iterator[None]:
        """Let in a request body of `size` bytes.

        Raises:
            ProblemError: Over capacity.
        """
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
        """Let in images.

        Raises:
            ProblemError: Over capacity.
        """
        self.check_wait()
        alone, began = not self.images, self._clock()
        self.images += images
        try:
            yield
        finally:
            self.images -= images
            if not self.images:
                self._last = None
                if alone:  # no image takes longer than all of this: a measurement of a bad moment does not stay
                    self.seconds_per_image = min(self.seconds_per_image, (self._clock() - began) / images)

    def record_answers(self, images: int) -> None:
        """Tell that images were answered."""
        now = self._clock()
        if self._last is not None and images:
            measured = (now - self._last) / images
            known = self.seconds_per_image or measured
            self.seconds_per_image = known + _WEIGHT * (measured - known)
        # Only while others wait is the time to the next answer that of the work.
        self._last = now if self.images > images else None

    def check_wait(self) -> None:
        """Say now what `admit_body` and `admit_images` would.

        Raises:
            ProblemError: Over capacity.
        """
        if self.wait_s > self._max_wait_s:
            self._refuse("wait", self.wait_s - self._max_wait_s)

    def _refuse(self, reason: str, seconds: float) -> None:
        if self._shed:
            self._shed(reason)
        after = max(1, math.ceil(seconds))
        raise ProblemError(
            "over-capacity", f"more is asked than this service can do; try again in {after} s", retry_after=after
        )
