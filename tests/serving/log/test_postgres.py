"""The prediction log over a real PostgreSQL, which is killed in the middle of it."""

import os
import runpy
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from serving.log.reading import Window, count_rows, read_labelled, read_window
from serving.log.spool import Spool
from serving.log.store import LogStore
from serving.log.writer import LogWriter

known = runpy.run_path(str(Path(__file__).with_name("test_log.py")))
row, count, until, NOW = known["row"], known["count"], known["until"], known["NOW"]

pytestmark = pytest.mark.slow


class Postgres:
    """A PostgreSQL server of the test's own on 127.0.0.1."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", str(folder / "data"), "-U", "pneumo", "--auth=trust")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://pneumo@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-l", log, "-o", options, "-w", "start")

    def kill(self) -> None:
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        ends = time.monotonic() + 30
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < ends
            time.sleep(0.05)

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    pytest.importorskip("psycopg")
    folder = Path("/tmp") / f"pneumo-postgres-{os.getpid()}"  # where the user postgres may write
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    server = Postgres(folder, found[-1].parent)
    yield server
    server.stop()
    shutil.rmtree(folder)


def test_a_killed_database_costs_no_row(postgres, tmp_path):
    store = LogStore(postgres.url)
    lost: list[int] = []
    writer = LogWriter(store, Spool(tmp_path / "spool"), dropped=lost.append)
    for number in range(10_000):
        assert writer.put(row(number))
        time.sleep(0.0002)
        if number == 4000:
            postgres.kill()
        if number == 7000:
            assert writer.is_away
            assert list((tmp_path / "spool").glob("*"))
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
    monkeypatch.setattr("serving.log.reading.CHUNK", 4)
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
