from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.inference.load_shedding import LoadShedding


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shedding(clock: Clock, shed: list[str], **changes: Any) -> LoadShedding:
    given: dict[str, Any] = {"max_wait_s": 2.0, "max_body_bytes": 1000, "shed": shed.append, "clock": clock}
    return LoadShedding(**(given | changes))


def busy(clock: Clock, shed: list[str], seconds_per_image: float) -> LoadShedding:
    """One that has measured how long an image takes."""
    made = shedding(clock, shed)
    with made.admit_images(40):
        for _ in range(30):
            clock.now += 4 * seconds_per_image
            made.record_answers(4)
    return made


def test_a_service_that_measured_nothing_yet_lets_everybody_in():
    shed: list[str] = []
    made = shedding(Clock(), shed)
    with made.admit_images(10_000), made.admit_images(1):
        assert made.images == 10_001
    assert made.images == 0
    assert not shed


@pytest.mark.parametrize("seconds", [0.01, 0.1])
def test_the_time_of_an_image_is_measured_while_others_wait(seconds):
    assert busy(Clock(), [], seconds).seconds_per_image == pytest.approx(seconds, rel=0.01)


def test_a_quiet_hour_is_not_taken_for_slow_work():
    clock = Clock()
    made = busy(clock, [], 0.01)
    for _ in range(3):
        clock.now += 3600
        with made.admit_images(2):
            clock.now += 0.02
            made.record_answers(2)
    assert made.seconds_per_image == pytest.approx(0.01, rel=0.01)


def test_a_bad_moment_is_forgotten_once_an_image_goes_through_alone():
    clock = Clock()
    made = busy(clock, [], 100.0)
    with made.admit_images(1):
        with pytest.raises(ProblemError), made.admit_images(1):
            pass
        clock.now += 0.02
        made.record_answers(1)
    assert made.seconds_per_image == pytest.approx(0.02)


def test_what_would_wait_too_long_is_refused_with_the_time_to_come_back():
    clock = Clock()
    shed: list[str] = []
    made = busy(clock, shed, 0.1)
    with made.admit_images(45):
        with pytest.raises(ProblemError) as caught, made.admit_images(1):
            pass
        with pytest.raises(ProblemError), made.admit_body(10):
            pass
    assert caught.value.kind == "over-capacity"
    assert caught.value.retry_after == 3  # 4.5 s in front of it, 2 s are accepted
    assert shed == ["wait", "wait"]
    with made.admit_images(1), made.admit_body(10):
        pass


def test_bodies_are_bounded_together_but_one_is_always_let_in():
    shed: list[str] = []
    made = shedding(Clock(), shed)
    with made.admit_body(5000):
        with pytest.raises(ProblemError), made.admit_body(1):
            pass
        assert shed == ["memory"]
    with made.admit_body(600), made.admit_body(400), pytest.raises(ProblemError), made.admit_body(1):
        pass
    assert made.body_bytes == 0


@given(st.lists(st.integers(1, 40), max_size=30), st.floats(0.001, 1))
def test_nobody_is_let_in_to_wait_longer_than_the_limit(requests, seconds):
    made = busy(Clock(), [], seconds)
    stack = []
    for images in requests:
        room = made.admit_images(images)
        waits = made.images * made.seconds_per_image
        try:
            room.__enter__()
        except ProblemError:
            assert waits > 2
        else:
            assert waits <= 2
            stack.append(room)
    for room in stack:
        room.__exit__(None, None, None)
    assert made.images == 0
