import gzip
from datetime import timedelta

import pytest
import sqlalchemy as sa

from pneumo.serving.drift import stored_checks
from pneumo.serving.drift.stored_checks import (
    add_check,
    count_verdicts_by_day,
    latest_check,
    list_checks,
    read_page,
)
from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.windows import Window
from tests.support.drift_checks import DAY, NOW, check


@pytest.fixture
def store(tmp_path):
    store = LogStore(f"sqlite:///{tmp_path / 'log.sqlite3'}")
    store.prepare()
    return store


def test_a_check_comes_back_as_it_was_with_its_page(store):
    made = check()
    key = add_check(store, made, b"<html>")
    found = latest_check(store)
    assert (found.id, found.check, found.has_page) == (key, made, True)
    assert gzip.decompress(read_page(store, key)) == b"<html>"


def test_a_check_without_a_page_has_none(store):
    key = add_check(store, check(), None)
    assert not latest_check(store).has_page
    assert (read_page(store, key), read_page(store, "other")) == (None, None)


def test_the_newest_comes_first_of_one_version_or_of_all(store):
    for hours, version in enumerate("1213"):
        add_check(store, check(hours, version=version), None)
    assert [each.check.version for each in list_checks(store)] == ["3", "1", "2", "1"]
    assert [each.check.time.hour for each in list_checks(store, Window("tiny", "1", lane=None))] == [14, 12]
    assert latest_check(store, "tiny", "2").check.time.hour == 13
    assert latest_check(store, "other", "1") is None
    between = list_checks(store, Window(lane=None, since=NOW + timedelta(hours=1), until=NOW + timedelta(hours=3)))
    assert [each.check.time.hour for each in between] == [14, 13]


def test_old_pages_go_and_their_verdicts_stay(store, monkeypatch):
    monkeypatch.setattr(stored_checks, "PAGES", 3)
    keys = [add_check(store, check(hours), b"page" if hours % 2 else None) for hours in range(10)]
    found = list_checks(store, most=100)
    assert len(found) == 10
    assert [each.id for each in found if each.has_page] == [keys[9], keys[7], keys[5]]
    assert read_page(store, keys[3]) is None


def test_very_old_verdicts_go_too(store, monkeypatch):
    monkeypatch.setattr(stored_checks, "CHECKS", 4)
    for hours in range(10):
        add_check(store, check(hours), None)
    assert [each.check.time.hour for each in list_checks(store)] == [21, 20, 19, 18]


def test_verdicts_are_counted_by_day(store):
    for hours, verdict in [(0, "ok"), (1, "ok"), (2, "drift"), (30, "warning"), (80, "ok")]:
        add_check(store, check(hours, verdict=verdict), None)
    add_check(store, check(1, version="2"), None)
    found = count_verdicts_by_day(store, Window("tiny", "1", lane=None, since=NOW - DAY, until=NOW + 3 * DAY))
    assert [(each.day.day, each.counts) for each in found] == [
        (24, {Verdict.OK: 2, Verdict.DRIFT: 1}),
        (25, {Verdict.WARNING: 1}),
    ]


def test_a_document_of_another_release_is_passed_over(store):
    add_check(store, check(), None)
    add_check(store, check(1), None)
    with store.engine.begin() as connection:
        connection.execute(sa.text("update checks set document = '{}' where time = (select max(time) from checks)"))
    assert len(list_checks(store)) == 1
