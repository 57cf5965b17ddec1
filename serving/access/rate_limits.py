"""Rate limits: one token bucket per client, in exact arithmetic and bounded memory."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from pneumo.serving.contracts.setting_types import Rate

NANOSECONDS = 10**9


@dataclass(frozen=True)
class RateDecision:
    """The decision of a rate limit about one request.

    Attributes:
        allowed: The client may send the request.
        remaining: Requests that the client may send at once after this one.
        retry_s: Whole seconds until the next request is allowed, if none is sent meanwhile; 0 is now.
        full_s: Whole seconds until the bucket is full again.
    """

    allowed: bool
    remaining: int
    retry_s: int
    full_s: int


class RateLimiter:
    """A token bucket per client.

    A bucket is stored as the time at which it is full again: one number per client (the generic cell rate algorithm,
    ITU-T I.371). Times are whole nanoseconds times `rate.count`. So nothing is rounded, and a client that waits for
    `retry_s` always succeeds. Beyond `clients` the client seen least recently is forgotten; its bucket counts as full.
    """

    def __init__(self, rate: Rate, *, clients: int = 10_000, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Start with full buckets; `clock` returns nanoseconds that never decrease."""
        self.rate = rate
        self._clients = clients
        self._clock = clock
        self._interval = rate.seconds * NANOSECONDS
        """Time between two requests at the rate, in the unit of the buckets."""
        self._burst = rate.count * self._interval
        self._full_at: OrderedDict[Hashable, int] = OrderedDict()

    def take(self, client: Hashable) -> RateDecision:
        """Decide about a request, and count it if it is allowed."""
        now = self._clock() * self.rate.count
        behind = max(self._full_at.get(client, now) - now, 0)
        allowed = behind + self._interval <= self._burst
        if allowed:
            behind += self._interval
        self._full_at[client] = now + behind
        self._full_at.move_to_end(client)
        if len(self._full_at) > self._clients:
            self._full_at.popitem(last=False)
        return self._decide(behind, allowed=allowed)

    def peek(self, client: Hashable) -> RateDecision:
        """Decide about a request without counting it."""
        now = self._clock() * self.rate.count
        behind = max(self._full_at.get(client, now) - now, 0)
        return self._decide(behind, allowed=behind + self._interval <= self._burst)

    def _decide(self, behind: int, *, allowed: bool) -> RateDecision:
        missing = max(behind + self._interval - self._burst, 0)
        retry_s, full_s = (-(-time // (self.rate.count * NANOSECONDS)) for time in (missing, behind))
        return RateDecision(allowed, (self._burst - behind) // self._interval, retry_s, full_s)
