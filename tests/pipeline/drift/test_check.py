import sqlite3
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.pipeline.drift.check import open_log, parse_time
from pneumo.pipeline.drift.log_export import export_log
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.predictions.store import LogStore
from tests.support.log_rows import row

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@given(st.integers(1, 99_999), st.sampled_from("mhdw"))
def test_a_span_is_so_long_before_now(number, unit):
    hours = {"m": 1 / 60, "h": 1, "d": 24, "w": 168}[unit]
    assert (NOW - parse_time(f"{number}{unit}", NOW)) / timedelta(hours=1) == pytest.approx(number * hours)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T08:30", datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
        ("2026-11-20T08:30+02:00", datetime(2026, 11, 20, 6, 30, tzinfo=UTC)),
    ],
)
def test_a_date_is_utc_unless_it_says_otherwise(text, expected):
    assert parse_time(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "24", "h", "-3h", "0d", "24 h", "yesterday", "2026-13-01"])
def test_what_is_neither_is_refused_with_the_fix(text):
    with pytest.raises(InputError, match=r"--since .* must be a span such as 90m, 24h"):
        parse_time(text, NOW)


def test_the_log_is_what_is_asked_for_else_of_the_environment_else_the_file_that_serve_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("asked", "set", "predictions"):
        LogStore(f"sqlite:///{name}.sqlite3").prepare()
    monkeypatch.setenv("PNEUMO_LOG_URL", "sqlite:///set.sqlite3")
    assert open_log("sqlite:///asked.sqlite3").engine.url.database == "asked.sqlite3"
    assert open_log(None).engine.url.database == "set.sqlite3"
    monkeypatch.delenv("PNEUMO_LOG_URL")
    assert open_log(None).engine.url.database == "predictions.sqlite3"


def test_where_there_is_no_log_the_error_says_how_to_get_one_and_makes_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PNEUMO_LOG_URL", raising=False)
    with pytest.raises(InputError, match=r"`pneumo serve` writes one unless it is run with --no-log"):
        open_log(None)
    with pytest.raises(InputError, match=r"other.sqlite3: no such file"):
        open_log("sqlite:///other.sqlite3")
    assert not list(tmp_path.iterdir())


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "albums.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE albums (title TEXT)")
    connection.close()
    with pytest.raises(InputError, match="holds no prediction log"):
        open_log(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master")] == ["albums"]
    connection.close()


def test_a_parquet_file_holds_the_whole_log_with_the_labels_that_came(tmp_path):
    store = LogStore(f"sqlite:///{tmp_path / 'log.sqlite3'}")
    store.prepare()
    rows = [
        row(number, time=NOW + timedelta(hours=number), lane="shadow" if number == 2 else "champion")
        for number in range(5)
    ]
    store.add([each.values() for each in rows])
    store.add_feedback([("request-3", 0, "NORMAL")], NOW)
    out = tmp_path / "folder" / "log.parquet"
    assert export_log(store, out) == 5
    table = pq.read_table(out).to_pylist()
    assert [found["time"] for found in table] == [each.time for each in rows]
    assert [found["true_label"] for found in table] == [None, None, None, "NORMAL", None]
    for found, each in zip(table, rows, strict=True):
        expected = each.values() | {"embedding": each.embedding.tolist()}
        del found["true_label"]
        assert found == expected
    assert export_log(store, out, since=NOW + timedelta(hours=3)) == 2
    assert pq.read_table(out).num_rows == 2
    assert [path.name for path in out.parent.iterdir()] == ["log.parquet"]


def test_an_empty_log_gives_an_empty_table_with_all_columns(tmp_path):
    store = LogStore(f"sqlite:///{tmp_path / 'log.sqlite3'}")
    store.prepare()
    assert export_log(store, tmp_path / "log.parquet") == 0
    assert {"time", "embedding", "true_label"} <= set(pq.read_table(tmp_path / "log.parquet").column_names)


def test_an_export_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    store = LogStore(f"sqlite:///{tmp_path / 'log.sqlite3'}")
    store.prepare()
    store.add([row().values()])
    out = tmp_path / "log.parquet"
    export_log(store, out)
    before = out.read_bytes()
    monkeypatch.setattr(np, "frombuffer", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_log(store, out)
    assert out.read_bytes() == before
    assert not list(tmp_path.glob(".*"))
