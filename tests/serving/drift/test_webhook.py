"""Messages about a change of the verdict, to a server that may be busy, gone or hostile."""

import json
import socket
import urllib.error
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.drift import webhook
from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.drift.webhook import WebhookError, build_message, is_news, post_message
from tests.support.webhooks import SECRET, check, server


def test_a_message_arrives_through_a_server_that_fails_twice_with_pauses_that_grow():
    pauses: list[float] = []
    with server(503, 500, 200) as (url, came):
        post_message(url, {"text": "drift"}, pause=pauses.append, chance=lambda: 0.5)
    assert came == [{"text": "drift"}] * 3
    assert pauses == [1.0, 2.0]


def test_pauses_differ_by_chance():
    pauses: list[float] = []
    for chance in (0.0, 0.9):
        with server(503, 200) as (url, _):
            post_message(url, {}, pause=pauses.append, chance=partial(float, chance))
    assert pauses == [0.5, pytest.approx(1.4)]


def test_a_server_that_says_when_to_come_again_is_heeded_up_to_half_a_minute():
    for asked, paused in (("7", 7.0), ("9999", 30.0), ("Tue, 24 Nov 2026 12:00:00 GMT", 1.0), ("-5", 1.0)):
        pauses: list[float] = []
        with server(429, 200, headers={"Retry-After": asked}) as (url, _):
            post_message(url, {}, pause=pauses.append, chance=lambda: 0.5)
        assert pauses == [paused]


def test_after_three_attempts_it_is_an_error_without_the_address():
    with server(500, 500, 500) as (url, came), pytest.raises(WebhookError) as caught:
        post_message(url, {}, pause=lambda _: None)
    assert len(came) == 3
    assert str(caught.value) == "PNEUMO_DRIFT_WEBHOOK: the message did not arrive, tried 3 times (it answered 500)"


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_what_will_never_be_taken_is_not_sent_again(status):
    with (
        server(status) as (url, came),
        pytest.raises(WebhookError, match=f"tried once .it answered {status}.") as caught,
    ):
        post_message(url, {}, pause=lambda _: pytest.fail("it paused"))
    assert len(came) == 1
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_not_followed(status):
    with (
        server(200) as (other, elsewhere),
        server(status, headers={"Location": other}) as (url, came),
        pytest.raises(WebhookError, match=f"it answered {status}"),
    ):
        post_message(url, {}, pause=lambda _: None)
    assert (len(came), elsewhere) == (1, [])


def test_a_server_that_is_gone_is_asked_three_times():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/{SECRET}"
    pauses: list[float] = []
    with pytest.raises(WebhookError, match=r"tried 3 times .ConnectionRefusedError.") as caught:
        post_message(url, {}, pause=pauses.append)
    assert len(pauses) == 2
    assert SECRET not in str(caught.value)


def test_a_server_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(WebhookError, match="TimeoutError"):
        post_message(f"http://127.0.0.1:{silent.getsockname()[1]}/", {}, pause=lambda _: None)


@pytest.mark.parametrize(
    "url", [f"file:///{SECRET}", f"http://127.0.0.1:bad/{SECRET}", f"http://127.0.0.1/a b{SECRET}"]
)
def test_an_address_that_cannot_be_is_not_shown(url):
    with pytest.raises((WebhookError, urllib.error.URLError)) as caught:
        post_message(url, {}, pause=lambda _: None)
    assert SECRET not in str(caught.value)


def test_a_message_has_words_for_slack_and_a_link():
    found: Any = build_message(check(), Verdict.OK, "https://ward.example/drift")
    assert found["text"].startswith("*pneumo drift: drift, was ok*: images are darker")
    assert found.keys() == {"text"}
    assert "500 images of tiny:1, 2026-11-24 12:00 UTC; research software, not a medical device" in found["text"]
    assert found["text"].endswith("<https://ward.example/drift|Open the dashboard>")
    assert "dashboard" not in json.dumps(build_message(check(), None, None))


@given(st.text())
def test_no_name_of_a_class_becomes_a_mention_or_a_link(name):
    found: Any = build_message(check(summary=f"{name} is said more often <!channel>"), None, None)
    assert "<" not in json.dumps(found)
    assert len(found["text"]) <= 3000


def test_only_a_change_is_news():
    ok, warning, drift, few = Verdict.OK, Verdict.WARNING, Verdict.DRIFT, Verdict.TOO_FEW
    assert [is_news(new, old) for new, old in [(ok, None), (ok, ok), (drift, drift), (few, ok), (few, None)]] == [
        False
    ] * 5
    assert [is_news(new, old) for new, old in [(drift, None), (warning, ok), (drift, warning), (ok, drift)]] == [
        True
    ] * 4
