from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.inference.load_shedding import FIRST_GUESS_S, LoadShedding


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


def test_a_service_that_measured_nothing_yet_guesses():
    shed: list[str] = []
    made = shedding(Clock(), shed)
    few, many = int(1.9 / FIRST_GUESS_S), int(2.1 / FIRST_GUESS_S)
    with made.admit_images(few), made.admit_images(1):
        assert made.images == few + 1
    assert (made.images, shed) == (0, [])
    made = shedding(Clock(), shed)
    with made.admit_images(many), pytest.raises(ProblemError), made.admit_images(1):
        pass


def test_what_fails_at_once_makes_nothing_look_quick():
    clock = Clock()
    made = busy(clock, [], 0.01)
    for _ in range(20):
        with made.admit_images(1, 1000.0):
            clock.now += 0.001
    assert made.seconds_per_image == pytest.approx(0.01, rel=0.01)


def test_large_images_weigh_more_than_small_ones():
    clock = Clock()
    made = busy(clock, [], 0.01)
    with made.admit_images(1, 150.0):
        assert made.wait_s == pytest.approx(1.5, rel=0.02)
        with made.admit_images(1, 100.0):
            with pytest.raises(ProblemError) as caught, made.admit_images(1):
                pass
            assert caught.value.retry_after == 1
            clock.now += 1.5
            made.record_answers(150.0)
            clock.now += 1.0
            made.record_answers(100.0)
    assert made.seconds_per_image == pytest.approx(0.01, rel=0.02)
    assert (made.images, made.work) == (0, 0.0)


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
        with pytest.raises(ProblemError):
            made.check_wait()
    assert caught.value.kind == "over-capacity"
    assert caught.value.retry_after == 3  # 4.5 s in front of it, 2 s are accepted
    assert shed == ["wait", "wait"]
    with made.admit_images(1):
        made.check_wait()


def test_bodies_are_bounded_together_but_one_is_always_let_in():
    shed: list[str] = []
    made = shedding(Clock(), shed)
    with made.hold_body() as first, made.hold_body() as second:
        first(4000, 0)
        first(1000, 0)
        with pytest.raises(ProblemError):
            second(1, 0)
        assert (shed, made.body_bytes) == (["memory"], 5000)
    with made.hold_body() as first, made.hold_body() as second:
        first(600, 0)
        second(400, 0)
        with pytest.raises(ProblemError):
            second(1, 0)
    assert made.body_bytes == 0


def test_bytes_that_are_only_declared_take_nothing_from_others():
    made = shedding(Clock(), [])
    with made.hold_body() as slow, made.hold_body() as other:
        slow(0, 1000)
        other(0, 1000)
        other(999, 0)
        slow(1, 0)
        with pytest.raises(ProblemError):
            slow(0, 100)  # will not fit beside the bytes that came
    assert made.body_bytes == 0


@given(st.lists(st.integers(1, 40), max_size=30), st.floats(0.001, 1))
def test_nobody_is_let_in_to_wait_longer_than_the_limit(requests, seconds):
    made = busy(Clock(), [], seconds)
    stack = []
    for images in requests:
        room = made.admit_images(images)
        waits = made.wait_s
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
