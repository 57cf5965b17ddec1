"""The prediction log over a real PostgreSQL, which is killed in the middle of it."""

import time
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from pneumo.serving.predictions.spool import Spool
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.windows import Window, count_rows, read_labelled, read_window
from pneumo.serving.predictions.writer import LogWriter
from tests.support.log_rows import NOW, count, row
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def test_a_killed_database_costs_no_row(postgres, tmp_path):
    store = LogStore(postgres.url)
    lost: list[int] = []
    writer = LogWriter(store, Spool(tmp_path / "spool"), dropped=lost.append)
    for number in range(10_000):
        assert writer.put(row(number))
        time.sleep(0.0002)  # the pace of a busy service
        if number == 4000:
            postgres.kill()
        if number == 7000:
            until(lambda: writer.is_away and any((tmp_path / "spool").glob("*")))
            postgres.start()
    until(lambda: not writer.is_away and not writer.waiting, 60)
    writer.close()
    assert lost == []
    assert count(store) == 10_000
    assert not list((tmp_path / "spool").glob("*"))
    with store.engine.connect() as connection:
        assert connection.execute(sa.text("select count(distinct request_id) from predictions")).scalar() == 10_000


def test_rows_feedback_and_retention_work_as_over_sqlite(postgres):
    store = LogStore(postgres.url)
    store.prepare()
    store.prepare()
    given = [row(number) for number in range(50)]
    for _ in range(2):
        store.add([each.values() for each in given])
    assert count(store) == 50
    with store.engine.connect() as connection:
        found = connection.execute(sa.text("select * from predictions order by time")).mappings().first()
    assert dict(found) | {"time": NOW} == given[0].values() | {"embedding": bytes(found["embedding"])}
    store.add_feedback([("request-1", 0, "NORMAL"), ("request-49", 0, "NORMAL")], datetime.now(UTC))
    store.add_feedback([("request-1", 0, "PNEUMONIA")], datetime.now(UTC))
    assert store.trim(before=NOW + timedelta(seconds=2)) == 2
    assert store.trim(most=10) == 38
    with store.engine.connect() as connection:
        assert connection.execute(sa.text("select request_id, label from feedback")).all() == [("request-49", "NORMAL")]
    store.engine.dispose()


def test_windows_and_labels_are_read_as_from_sqlite(postgres, monkeypatch):
    monkeypatch.setattr("pneumo.serving.predictions.windows.CHUNK", 4)
    store = LogStore(postgres.url)
    store.prepare()
    store.add([row(number, time=NOW + timedelta(minutes=number)).values() for number in range(10)])
    store.add_feedback([("request-3", 0, "NORMAL")], NOW)
    window = Window("tiny", "1", since=NOW + timedelta(minutes=2), last=3)
    assert [each["time"] for each in read_window(store, window)] == [NOW + timedelta(minutes=at) for at in (7, 8, 9)]
    assert count_rows(store, window) == 8
    chunks = list(read_labelled(store, window))
    assert [len(chunk) for chunk in chunks] == [4, 4]
    assert [each["true_label"] for each in chunks[0]] == [None, "NORMAL", None, None]
