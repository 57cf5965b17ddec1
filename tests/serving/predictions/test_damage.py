"""A prediction log whose database is damaged, moved away or of an older version."""

import contextlib
import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.predictions.log_tables import metadata
from pneumo.serving.predictions.spool import Spool
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.writer import LogWriter
from tests.support.log_rows import NOW, row
from tests.support.postgres import Postgres
from tests.support.waiting import until


def store_at(folder: Path) -> LogStore:
    return LogStore(f"sqlite:///{folder / 'log.sqlite3'}")


def count_stored(folder: Path) -> int:
    """Return the number of rows in the database; 0 as long as there is none."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{folder / 'log.sqlite3'}?mode=ro", uri=True)) as connection:
            return connection.execute("select count(*) from predictions").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def write_garbage(file: Path) -> None:
    """Overwrite the whole file in place, as a bad disk or a careless copy does."""
    size = file.stat().st_size
    with file.open("r+b") as content:
        content.write(os.urandom(size))


def spoil_pages(file: Path) -> None:
    """Overwrite all pages but the first one, which holds the header and the schema."""
    size = file.stat().st_size
    with file.open("r+b") as content:
        content.seek(4096)
        content.write(b"\xff" * (size - 4096))


def move_away(folder: Path) -> None:
    for name in ("log.sqlite3", "log.sqlite3-wal", "log.sqlite3-shm"):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("damage", [write_garbage, spoil_pages])
def test_rows_of_a_damaged_database_wait_on_disk_until_it_is_moved_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    states: list[bool] = []
    writer = LogWriter(store_at(tmp_path), Spool(tmp_path / "spool"), away=states.append)
    for number in range(1000):
        writer.put(row(number))
    until(lambda: not writer.waiting and count_stored(tmp_path) == 1000)
    with contextlib.closing(sqlite3.connect(tmp_path / "log.sqlite3")) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    damage(tmp_path / "log.sqlite3")

    for number in range(1000, 1010):
        writer.put(row(number))
    until(lambda: writer.is_away)
    writer.put(row(1010))
    until(lambda: sum(len(path.read_text().splitlines()) for path in (tmp_path / "spool").glob("*")) == 11)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "pneumo.log"]
    assert "log.sqlite3 is damaged (DatabaseError: " in line
    assert "Move it away, for SQLite with its -wal and -shm files" in line

    move_away(tmp_path)
    until(lambda: not writer.is_away)
    writer.close()
    assert count_stored(tmp_path) == 11
    assert not list((tmp_path / "spool").glob("*"))
    assert states == [False, True, False]


def test_a_backup_restored_in_place_of_a_damaged_database_is_written_on(tmp_path: Path) -> None:
    writer = LogWriter(store_at(tmp_path), Spool(tmp_path / "spool"))
    for number in range(300):
        writer.put(row(number))
    until(lambda: not writer.waiting and count_stored(tmp_path) == 300)
    with contextlib.closing(sqlite3.connect(tmp_path / "log.sqlite3")) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
        connection.execute(f"vacuum into '{tmp_path / 'backup'}'")
    write_garbage(tmp_path / "log.sqlite3")
    writer.put(row(300))
    until(lambda: writer.is_away)
    for name in ("log.sqlite3-wal", "log.sqlite3-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    shutil.copyfile(tmp_path / "backup", tmp_path / "log.sqlite3")  # the same file, with other content
    until(lambda: not writer.is_away)
    writer.close()
    assert count_stored(tmp_path) == 301


def test_rows_do_not_follow_a_healthy_database_that_was_moved_away(tmp_path: Path) -> None:
    writer = LogWriter(store_at(tmp_path), Spool(tmp_path / "spool"))
    writer.put(row(0))
    until(lambda: not writer.waiting and count_stored(tmp_path) == 1)
    move_away(tmp_path)
    writer.put(row(1))
    until(lambda: count_stored(tmp_path) == 1)
    writer.close()


def test_a_database_that_was_emptied_in_place_gets_its_tables_again(tmp_path: Path) -> None:
    writer = LogWriter(store_at(tmp_path), Spool(tmp_path / "spool"))
    writer.put(row(0))
    until(lambda: count_stored(tmp_path) == 1)
    with contextlib.closing(sqlite3.connect(tmp_path / "log.sqlite3")) as connection, connection:
        for name in metadata.tables:
            connection.execute(f"drop table {name}")
    writer.put(row(1))
    until(lambda: count_stored(tmp_path) == 1)
    writer.close()


def test_a_service_with_a_damaged_log_predicts_and_reports_it(
    bundle: Bundle, started: Callable, png: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(threads=1, log_url=f"sqlite:///{tmp_path / 'log.sqlite3'}", log_spool=tmp_path / "spool")

    def predict() -> None:
        answer = client.post("/v1/predict", content=png, headers={"Content-Type": "image/png"})
        assert answer.status_code == 200

    with started(create_app(bundle, settings)) as client:
        predict()
        until(lambda: count_stored(tmp_path) == 1)
        assert client.get("/healthz").json() == {"status": "ok"}
        assert "pneumo_log_away 0.0" in client.get("/metrics").text
        with contextlib.closing(sqlite3.connect(tmp_path / "log.sqlite3")) as connection:
            connection.execute("pragma wal_checkpoint(truncate)")
        write_garbage(tmp_path / "log.sqlite3")
        predict()
        until(lambda: client.get("/healthz").json() == {"status": "degraded"})
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        assert "pneumo_log_away 1.0" in client.get("/metrics").text
        (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        assert "is damaged" in line
        assert client.get("/drift").status_code == 503
        move_away(tmp_path)
        until(lambda: client.get("/healthz").json() == {"status": "ok"})
        assert count_stored(tmp_path) == 1


OLD = (
    "ALTER TABLE predictions DROP COLUMN site",
    "DROP INDEX predictions_by_version",
    "DROP INDEX checks_by_time",
    "DROP TABLE leases",
)
"""What the first versions lacked."""


def describe(engine: sa.Engine) -> str:
    found = sa.inspect(engine)
    tables = {
        name: (
            sorted((column["name"], str(column["type"])) for column in found.get_columns(name)),
            sorted((index["name"], index["column_names"]) for index in found.get_indexes(name)),
        )
        for name in metadata.tables
    }
    return json.dumps(tables, indent=1)


def check_migration(store: LogStore, again: LogStore) -> None:
    store.prepare()
    store.add([row(0).values()])
    store.add_feedback([("request-0", 0, "NORMAL")], NOW)
    new = describe(store.engine)
    with store.engine.begin() as connection:
        for statement in OLD:
            connection.execute(sa.text(statement))
    assert "site" not in describe_columns(store.engine)
    again.prepare()
    again.prepare()
    assert describe(again.engine) == new
    with again.engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from predictions")).scalar() == 1
        assert connection.execute(sa.text("select count(*) from feedback")).scalar() == 1


def describe_columns(engine: sa.Engine) -> set[str]:
    return {column["name"] for column in sa.inspect(engine).get_columns("predictions")}


def test_a_log_of_an_older_version_is_migrated(tmp_path: Path) -> None:
    check_migration(store_at(tmp_path), store_at(tmp_path))


def test_a_log_of_an_older_version_is_migrated_in_postgresql(postgres: Postgres) -> None:
    check_migration(LogStore(postgres.url), LogStore(postgres.url))
