from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.windows import JUDGED, Window, count_rows, read_labelled, read_window
from tests.support.log_rows import row

NOW = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> LogStore:
    """Three versions and lanes, mixed; minutes apart."""
    store = LogStore(f"sqlite:///{tmp_path_factory.mktemp('log') / 'log.sqlite3'}")
    store.prepare()
    kinds = [("1", "champion"), ("2", "shadow"), ("2", "challenger")]
    rows = [
        row(number, time=NOW + timedelta(minutes=number), version=kinds[number % 3][0], lane=kinds[number % 3][1])
        for number in range(60)
    ]
    store.add([each.values() for each in rows][::-1])
    store.add_feedback([("request-3", 0, "NORMAL")], NOW)
    return store


def numbers(rows) -> list[int]:
    return [round((each["time"] - NOW) / timedelta(minutes=1)) for each in rows]


def test_a_window_holds_the_newest_of_the_champion_oldest_first(store):
    assert numbers(read_window(store, Window(last=3))) == [51, 54, 57]
    assert numbers(read_window(store, Window(version="1", last=3))) == [51, 54, 57]


@given(
    st.sampled_from([None, "1", "2"]),
    st.sampled_from([None, "champion", "shadow", "challenger"]),
    st.none() | st.integers(-5, 65),
    st.integers(1, 70),
)
def test_a_window_is_what_was_asked_for(store, version, lane, since, last):
    kinds = [("1", "champion"), ("2", "shadow"), ("2", "challenger")]
    expected = [
        number
        for number in range(60)
        if version in (None, kinds[number % 3][0]) and lane in (None, kinds[number % 3][1]) and number >= (since or -9)
    ]
    moment = None if since is None else NOW + timedelta(minutes=since)
    window = Window("tiny", version, lane, moment, last)
    assert numbers(read_window(store, window)) == expected[-last:]
    assert count_rows(store, window) == len(expected)


def test_only_the_columns_that_are_judged_are_read(store):
    (found,) = read_window(store, Window(last=1))
    assert tuple(found) == JUDGED
    assert np.frombuffer(found["embedding"], dtype="<f4").tolist() == [0, 1, 2, 3]


def test_the_log_of_another_model_is_empty(store):
    assert read_window(store, Window(model="other")) == []


def test_all_rows_come_with_the_true_label_that_is_known(store, monkeypatch):
    monkeypatch.setattr("pneumo.serving.predictions.windows.CHUNK", 25)
    chunks = list(read_labelled(store, Window(lane=None)))
    assert [len(chunk) for chunk in chunks] == [25, 25, 10]
    rows = [each for chunk in chunks for each in chunk]
    assert numbers(rows) == list(range(60))
    assert [each["true_label"] for each in rows] == [None, None, None, "NORMAL", *[None] * 56]
