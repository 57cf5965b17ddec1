"""Rate limits: a token bucket for each client, in exact arithmetic and bounded memory."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from pneumo.serving.contracts.setting_types import Rate

NANOSECONDS = 10**9


@dataclass(frozen=True)
class RateDecision:
    """Whether a client may send a request, and when it may send the next.

    Attributes:
        allowed: Whether it may go on.
        remaining: Requests that it may send at once after this one.
        retry_s: Whole seconds after which one more request is allowed if it sends none until then; 0 is now.
        full_s: Whole seconds until it has its whole count again.
    """

    allowed: bool
    remaining: int
    retry_s: int
    full_s: int


class RateLimiter:
    """A token bucket for each client.

    It is kept as the time at which the client's bucket is full again (the generic cell rate algorithm, ITU-T I.371):
    one number a client. Times are whole nanoseconds times `rate.count`, so that nothing is ever rounded and a client
    that waits as long as it was told always succeeds.

    Many clients cost no memory: beyond `clients`, who asked least recently is forgotten, and its bucket counts as full.
    """

    def __init__(self, rate: Rate, *, clients: int = 10_000, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Begin with every bucket full.

        Args:
            rate: Of each client.
            clients: Most clients that are remembered.
            clock: Nanoseconds that never run backwards.
        """
        self.rate = rate
        self._clients = clients
        self._clock = clock
        self._interval = rate.seconds * NANOSECONDS
        """Between two requests at the rate, in the unit of the buckets."""
        self._burst = rate.count * self._interval
        self._full_at: OrderedDict[Hashable, int] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many clients are remembered."""
        return len(self._full_at)

    def take(self, client: Hashable) -> RateDecision:
        """Count a request of a client, unless it has to wait."""
        now = self._clock() * self.rate.count
        full_at = max(self._full_at.get(client, now), now)
        allowed = full_at + self._interval <= now + self._burst
        if allowed:
            full_at += self._interval
        self._remember(client, full_at)
        return self._turn(full_at - now, allowed=allowed)

    def look(self, client: Hashable) -> RateDecision:
        """What `take` would say, without counting."""
        now = self._clock() * self.rate.count
        behind = max(self._full_at.get(client, now) - now, 0)
        return self._turn(behind, allowed=behind + self._interval <= self._burst)

    def _turn(self, behind: int, *, allowed: bool) -> RateDecision:
        short = behind + self._interval - self._burst
        return RateDecision(
            allowed=allowed,
            remaining=(self._burst - behind) // self._interval,
            retry_s=self._whole_seconds(max(short, 0)),
            full_s=self._whole_seconds(behind),
        )

    def _whole_seconds(self, time: int) -> int:
        return -(-time // (self.rate.count * NANOSECONDS))

    def _remember(self, client: Hashable, full_at: int) -> None:
        self._full_at[client] = full_at
        self._full_at.move_to_end(client)
        if len(self._full_at) > self._clients:
            self._full_at.popitem(last=False)
