"""The prediction log: rows, store, spool and writer, over SQLite."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.predictions.log_tables import predictions
from pneumo.serving.predictions.rows import LogRow, parse_row
from pneumo.serving.predictions.spool import Spool
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.writer import UNMADE, LogWriter
from tests.support.log_rows import NOW, count, row
from tests.support.paths import ROOT
from tests.support.waiting import until


def store_at(folder: Path) -> LogStore:
    return LogStore(f"sqlite:///{folder / 'log.sqlite3'}")


@given(
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.text(max_size=20),
    st.lists(st.floats(-10, 10, width=32), max_size=8),
)
def test_a_row_comes_back_from_a_line_as_it_was(value, label, embedding):
    given_row = row(outlier_score=value, label=label, embedding=np.array(embedding, dtype=np.float32))
    line = given_row.to_json()
    assert "\n" not in line
    assert parse_row(line) == given_row.values()


def test_a_spooled_row_keeps_its_site_and_one_of_an_older_version_has_none():
    line = row(site="ward-3").to_json()
    assert parse_row(line)["site"] == "ward-3"
    older = {name: value for name, value in json.loads(line).items() if name != "site"}
    assert parse_row(json.dumps(older)) == row(site=None, id=older["id"]).values()


def test_a_row_comes_back_from_the_database_as_it_was(tmp_path):
    store = store_at(tmp_path)
    store.prepare()
    given_row = row()
    store.add([given_row.values()])
    with store.engine.connect() as connection:
        found = connection.execute(sa.select(predictions)).mappings().one()
    assert dict(found) == given_row.values()
    assert np.frombuffer(found["embedding"], dtype="<f4").tolist() == [0, 1, 2, 3]


def test_a_row_that_is_written_twice_is_there_once(tmp_path):
    store = store_at(tmp_path)
    store.prepare()
    store.prepare()
    once = row()
    store.add([once.values()])
    store.add([once.values(), row(1).values()])
    assert count(store) == 2


def test_what_is_written_reaches_the_database_within_a_second(tmp_path):
    store = store_at(tmp_path)
    store.prepare()
    writer = LogWriter(store, Spool(tmp_path / "spool"))
    for number in range(1200):
        assert writer.put(row(number))
    until(lambda: count(store) == 1200)
    writer.put(row(5000))
    writer.close()
    assert count(store_at(tmp_path)) == 1201
    assert not (tmp_path / "spool").exists()


def test_a_row_is_made_in_the_writer_s_thread_and_one_that_cannot_be_costs_no_other(tmp_path, caplog):
    store = store_at(tmp_path)
    dropped: list[Any] = []
    makers: list[Any] = []
    writer = LogWriter(store, Spool(tmp_path / "spool"), dropped=dropped.append)

    def make(number: int):
        makers.append(threading.current_thread().name)
        if number == 2:
            raise ValueError("Jane Doe")
        return row(number)

    for number in range(5):
        assert writer.put(partial(make, number))
    writer.close()
    assert (count(store_at(tmp_path)), dropped) == (4, [1])
    assert set(makers) == {"log"}
    assert [record.getMessage() for record in caplog.records] == ["a row of the prediction log is lost: ValueError"]


def test_images_do_not_pile_up_while_the_database_does_not_answer(tmp_path, monkeypatch):
    store, goes_on, held = store_at(tmp_path), threading.Event(), threading.Event()

    def prepare() -> None:
        held.set()
        goes_on.wait(20)

    monkeypatch.setattr(store, "prepare", prepare)
    writer = LogWriter(store, Spool(tmp_path / "spool"))
    writer.put(row(0))
    assert held.wait(20)
    made = []

    def make(number: int) -> LogRow:
        made.append(number)
        return row(number)

    for number in range(1, UNMADE + 11):
        writer.put(partial(make, number))
    assert made == list(range(UNMADE + 1, UNMADE + 11))  # the rest at once, so that only rows wait
    goes_on.set()
    writer.close()


def test_while_the_database_is_away_rows_wait_on_disk_and_come_back(tmp_path, caplog):
    (tmp_path / "log.sqlite3").mkdir()  # no file can be there
    writer = LogWriter(store_at(tmp_path), Spool(tmp_path / "spool"))
    for number in range(300):
        writer.put(row(number))
    until(lambda: writer.is_away and not writer.waiting)
    writer.put(row(1000))
    until(lambda: sum(len(path.read_text().splitlines()) for path in (tmp_path / "spool").glob("*")) == 301)
    (tmp_path / "log.sqlite3").rmdir()
    until(lambda: not writer.is_away)
    writer.close()
    assert count(store_at(tmp_path)) == 301
    assert not list((tmp_path / "spool").glob("*"))
    said = [record.getMessage() for record in caplog.records if record.name == "pneumo.log"]
    assert len(said) == 2  # once away, once back


def test_the_next_process_brings_what_the_last_one_left_on_disk(tmp_path):
    spool = Spool(tmp_path / "spool")
    spool.add([row(number) for number in range(5)])
    file = next((tmp_path / "spool").glob("*"))
    with file.open("a") as end:
        end.write('{"time": "2026-11')  # cut off by a kill
    del spool
    other = Spool(tmp_path / "spool")
    other_process_ended(file)
    taken: list[dict] = []
    other.drain(taken.extend, 2)
    assert [each["request_id"] for each in taken] == [f"request-{number}" for number in range(5)]
    assert not other.has_rows()


def other_process_ended(file: Path) -> None:
    """The lock of a process goes with it; this one still lives, so a copy of the file stands for what it left."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)


def test_a_file_that_another_process_still_writes_is_left_alone(tmp_path):
    spool, other = Spool(tmp_path / "spool"), Spool(tmp_path / "spool")
    spool.add([row(0)])
    taken: list[dict] = []
    other.drain(taken.extend, 10)
    assert taken == []
    spool.add([row(1)])
    spool.drain(taken.extend, 10)
    assert len(taken) == 2


def test_rows_that_fit_nowhere_are_counted(tmp_path):
    (tmp_path / "log.sqlite3").mkdir()
    (tmp_path / "spool").write_text("a file where the folder should be")
    lost: list[int] = []
    writer = LogWriter(store_at(tmp_path), Spool(tmp_path / "spool"), dropped=lost.append)
    for number in range(3):
        writer.put(row(number))
    until(lambda: sum(lost) == 3)
    writer.close()


def test_old_rows_go_by_age_and_by_number_with_their_feedback(tmp_path):
    store = store_at(tmp_path)
    store.prepare()
    store.add([row(number).values() for number in range(100)])
    store.add_feedback([(f"request-{number}", 0, "NORMAL") for number in range(100)], NOW)
    assert store.trim(before=NOW + timedelta(seconds=20)) == 20
    assert store.trim(most=50) == 30
    assert count(store) == 50
    with store.engine.connect() as connection:
        assert connection.execute(sa.text("select count(*), min(request_id) from feedback")).one() == (50, "request-50")


def test_a_later_word_on_an_image_replaces_an_earlier_one(tmp_path):
    store = store_at(tmp_path)
    store.prepare()
    store.add_feedback([("a", 0, "NORMAL"), ("a", 1, "NORMAL")], NOW)
    store.add_feedback([("a", 0, "PNEUMONIA")], NOW + timedelta(hours=1))
    with store.engine.connect() as connection:
        found = connection.execute(sa.text("select image_index, label from feedback order by 1")).all()
    assert found == [(0, "PNEUMONIA"), (1, "NORMAL")]


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_another_kind_of_address_is_refused_without_quoting_it(url):
    with pytest.raises(InputError, match="the log's address"):
        LogStore(url)


def test_a_password_is_never_shown():
    assert "secret" not in LogStore("postgresql://user:secret@127.0.0.1:1/db").shown


KILLED = """
import sys
import time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from pneumo.serving.predictions.spool import Spool
from pneumo.serving.predictions.writer import UNMADE, LogWriter
from pneumo.serving.predictions.store import LogStore
from tests.support.log_rows import row
folder = Path(sys.argv[2])
writer = LogWriter(LogStore(f"sqlite:///{folder / 'log.sqlite3'}"), Spool(folder / "spool"))
number = 0
while True:
    writer.put(row(number))
    number += 1
    if number == 2000:
        print("ready", flush=True)
    time.sleep(0.0002)
"""


def test_a_process_that_is_killed_loses_no_more_than_the_last_moment_and_leaves_a_whole_file(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(ROOT), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"

    def written() -> int:
        with contextlib.closing(sqlite3.connect(tmp_path / "log.sqlite3")) as connection:
            return connection.execute("select count(*) from predictions").fetchone()[0]

    until(lambda: written() >= 2000)  # while more rows come
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    connection = sqlite3.connect(tmp_path / "log.sqlite3")
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    assert written() >= 2000
