"""What a process shares is as before, however the work ends."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from pneumo.serving.contracts.process_state import restore_signals, set_environment, set_handler, silence_loggers

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def read_handlers() -> list[Any]:
    return [signal.getsignal(number) for number in NUMBERS]


def test_handlers_are_as_before_whoever_replaced_them() -> None:
    before = read_handlers()
    called: list[int] = []
    with contextlib.suppress(KeyError), restore_signals(lambda number, _: called.append(number)):
        signal.raise_signal(signal.SIGTERM)
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)
        with restore_signals():
            set_handler(lambda number, _: called.append(-number), [signal.SIGINT])
            signal.raise_signal(signal.SIGINT)
        assert read_handlers() == [signal.SIG_IGN] * 4
        raise KeyError

    assert called == [signal.SIGTERM, -signal.SIGINT]
    assert read_handlers() == before


def test_a_handler_that_python_did_not_set_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    with restore_signals():
        pass


def test_another_thread_has_no_handlers_to_change() -> None:
    before = read_handlers()
    failures: list[Exception] = []

    def work() -> None:
        try:
            with restore_signals(signal.SIG_IGN):
                set_handler(signal.SIG_IGN)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert failures == []
    assert read_handlers() == before


@pytest.mark.parametrize(
    ("replace", "inside"), [(False, {"PNEUMO_A": "mine", "PNEUMO_B": "2"}), (True, {"PNEUMO_A": "1", "PNEUMO_B": "2"})]
)
def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch, replace: bool, inside: dict[str, str]) -> None:
    monkeypatch.setenv("PNEUMO_A", "mine")
    before = dict(os.environ)
    with contextlib.suppress(KeyError), set_environment({"PNEUMO_A": "1", "PNEUMO_B": "2"}, replace=replace):
        assert {name: os.environ[name] for name in inside} == inside
        del os.environ["PNEUMO_B"]
        raise KeyError
    assert dict(os.environ) == before


@pytest.mark.parametrize("silence", [lambda: silence_loggers("noisy"), lambda: silence_loggers("noisy", "noisy.part")])
def test_only_the_named_loggers_are_silent(
    silence: Callable[[], AbstractContextManager[None]], caplog: pytest.LogCaptureFixture
) -> None:
    noisy, other = logging.getLogger("noisy.part"), logging.getLogger("other")
    with contextlib.suppress(KeyError), silence():
        noisy.critical("silent")
        other.warning("heard")
        raise KeyError
    noisy.warning("heard again")
    assert caplog.messages == ["heard", "heard again"]
