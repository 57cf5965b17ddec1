"""Load shedding by predicted wait: refuse a request at once instead of queueing it for too long."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pneumo.serving.contracts.problems import ProblemError

FIRST_GUESS_S = 0.003
"""Seconds of work for a small image, until measured: a service that just started must not take in hours of work."""

_WEIGHT = 0.2
"""Weight of the newest measurement in the running mean of seconds per unit of work."""


class LoadShedding:
    """Counts work and bytes in the service, and refuses requests whose predicted wait is too long.

    The unit of work is a small image; a large one is as many as its pixels weigh (`Upload.work`). The predicted wait is
    the work in front times the measured seconds per unit. Only times while another image waits are measured, so the
    prediction holds for any machine, network and images.

    Attributes:
        images: Images in the service.
        work: Their work.
        body_bytes: Bytes of request bodies in the service.
        seconds_per_image: Running mean of the seconds per unit of work.
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
        self.work = 0.0
        self.body_bytes = 0
        self.seconds_per_image = FIRST_GUESS_S
        self._max_wait_s = max_wait_s
        self._max_body_bytes = max_body_bytes
        self._shed = shed
        self._clock = clock
        self._answered = 0.0
        self._last_answer: float | None = None

    @property
    def wait_s(self) -> float:
        """The predicted wait of a new image, in seconds."""
        return self.work * self.seconds_per_image

    @contextmanager
    def hold_body(self) -> Iterator[Callable[[int, int], None]]:
        """Yield `reserve(size, declared)`; what it reserved for one body is free again at the end of the block.

        It reserves `size` bytes that arrived, and raises a `ProblemError` if these, or `declared` bytes that may come,
        do not fit. Bytes that have not arrived take nothing from others; a single body always fits.
        """
        held = 0

        def reserve(size: int, declared: int) -> None:
            nonlocal held
            if self.body_bytes > held and self.body_bytes + max(size, declared) > self._max_body_bytes:
                self._refuse("memory", self.wait_s)
            held += size
            self.body_bytes += size

        try:
            yield reserve
        finally:
            self.body_bytes -= held

    @contextmanager
    def admit_images(self, images: int, work: float | None = None) -> Iterator[None]:
        """Admit images for the block, by default as small ones, or raise a `ProblemError`."""
        self.check_wait()
        work = images if work is None else work
        alone, began, answered = not self.images, self._clock(), self._answered
        self.images += images
        self.work += work
        try:
            yield
        finally:
            self.images -= images
            self.work = self.work - work if self.images else 0.0
            if not self.images:
                self._last_answer = None
                if alone and (done := self._answered - answered):  # an upper bound; it corrects a bad moment
                    self.seconds_per_image = min(self.seconds_per_image, (self._clock() - began) / done)

    def record_answers(self, work: float) -> None:
        """Record that images of some work were predicted; others, such as damaged ones, may have taken no time."""
        if not work:
            return
        now = self._clock()
        self._answered += work
        if self._last_answer is not None:
            measured = (now - self._last_answer) / work
            self.seconds_per_image += _WEIGHT * (measured - self.seconds_per_image)
        # The time to the next answer measures the work only if other images wait.
        self._last_answer = now if self.work > work else None

    def check_wait(self) -> None:
        """Raise a `ProblemError` if the predicted wait is too long."""
        if self.wait_s > self._max_wait_s:
            self._refuse("wait", self.wait_s - self._max_wait_s)

    def _refuse(self, reason: str, seconds: float) -> None:
        self._shed(reason)
        after = max(1, math.ceil(seconds))
        raise ProblemError("over-capacity", f"the service is overloaded; try again in {after} s", retry_after=after)
