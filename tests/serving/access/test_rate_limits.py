from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.access.rate_limits import NANOSECONDS, RateLimiter
from pneumo.serving.contracts.setting_types import Rate

rates = st.builds(Rate, count=st.integers(1, 1000), seconds=st.sampled_from([1, 60, 3600]))


class Clock:
    def __init__(self) -> None:
        self.now = 5

    def __call__(self) -> int:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * NANOSECONDS)


def test_an_idle_client_may_send_its_whole_count_at_once_and_then_waits_for_one():
    clock = Clock()
    limiter = RateLimiter(Rate(3, 60), clock=clock)
    turns = [limiter.take("a") for _ in range(4)]
    assert [turn.allowed for turn in turns] == [True, True, True, False]
    assert [turn.remaining for turn in turns] == [2, 1, 0, 0]
    assert [turn.full_s for turn in turns] == [20, 40, 60, 60]
    assert turns[3].retry_s == 20
    clock.wait(19.999)
    assert not limiter.take("a").allowed
    clock.wait(0.001)
    assert limiter.take("a").allowed


def test_clients_do_not_pay_for_each_other():
    limiter = RateLimiter(Rate(1, 60), clock=Clock())
    assert limiter.take("a").allowed
    assert not limiter.take("a").allowed
    assert limiter.take("b").allowed


def test_a_look_is_not_counted():
    limiter = RateLimiter(Rate(1, 60), clock=Clock())
    assert all(limiter.peek("a").allowed for _ in range(5))
    assert limiter.take("a").allowed
    looked = limiter.peek("a")
    assert (looked.allowed, looked.retry_s) == (False, 60)


@given(rate=rates, pauses=st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_a_refused_client_that_waits_as_told_succeeds(rate, pauses):
    clock = Clock()
    limiter = RateLimiter(rate, clock=clock)
    for pause in pauses:
        clock.wait(pause / rate.count)
        turn = limiter.take("a")
        if not turn.allowed:
            clock.wait(turn.retry_s - 1)
            assert not limiter.peek("a").allowed
            clock.wait(1)
            assert limiter.take("a").allowed


@given(rate=rates, pauses=st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_no_span_of_time_holds_more_requests_than_count_and_rate_allow(rate, pauses):
    clock = Clock()
    limiter = RateLimiter(rate, clock=clock)
    allowed = []
    for pause in pauses:
        clock.wait(pause * rate.seconds / 100)
        if limiter.take("a").allowed:
            allowed.append(clock.now)
    for first, start in enumerate(allowed):
        for last in range(first, len(allowed)):
            span = (allowed[last] - start) / NANOSECONDS
            assert last - first + 1 <= rate.count + span * rate.count / rate.seconds + 1e-6


@given(rate=rates, pauses=st.lists(st.floats(0, 100), max_size=40))
def test_what_remains_can_be_sent_at_once_and_no_more(rate, pauses):
    clock = Clock()
    limiter = RateLimiter(rate, clock=clock)
    for pause in pauses:
        clock.wait(pause / rate.count)
        limiter.take("a")
    remaining = limiter.peek("a").remaining
    assert [limiter.take("a").allowed for _ in range(remaining + 1)] == [True] * remaining + [False]


@given(rate=rates, taken=st.integers(0, 50))
def test_the_whole_count_is_there_again_when_it_was_promised(rate, taken):
    clock = Clock()
    limiter = RateLimiter(rate, clock=clock)
    for _ in range(taken):
        limiter.take("a")
    clock.wait(limiter.peek("a").full_s)
    assert limiter.peek("a").remaining == rate.count


def test_many_clients_cost_no_memory_and_the_busy_one_stays_known():
    limiter = RateLimiter(Rate(1, 3600), clients=100, clock=Clock())
    assert limiter.take("busy").allowed
    for number in range(99):
        limiter.take(number)
    assert not limiter.take("busy").allowed
    for number in range(99, 198):
        limiter.take(number)
    assert not limiter.take("busy").allowed
    for number in range(198, 10_000):
        limiter.take(number)
    assert len(limiter._full_at) == 100
