"""Drift checks that the service makes by itself, with a stand-in for the job and once with the job itself."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.drift import job, schedule
from pneumo.serving.drift.schedule import Schedule, build_job_command
from pneumo.serving.drift.stored_checks import add_check
from pneumo.serving.drift.verdict import DriftCheck, Verdict
from pneumo.serving.http.app import create_app
from pneumo.serving.predictions.leases import Lease
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.telemetry.metrics import Metrics
from tests.support import webhooks
from tests.support.log_rows import row
from tests.support.metrics import series
from tests.support.waiting import until
from tests.support.webhooks import check

JOB = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
told = {name: value for name, value in os.environ.items() if name.startswith("PNEUMO_")}
with (folder / "calls").open("a") as file:
    file.write(json.dumps({"pid": os.getpid(), "told": told}) + "\\n")
time.sleep(float((folder / "seconds").read_text()) if (folder / "seconds").exists() else 0)
print((folder / "check.json").read_text())
print("pneumo: " + (folder / "says").read_text() if (folder / "says").exists() else "", file=sys.stderr)
sys.exit(int((folder / "code").read_text()) if (folder / "code").exists() else 0)
"""


class World:
    """A log, and a job that does what the files of a folder say."""

    def __init__(self, folder: Path, bundle) -> None:
        self.folder, self.bundle = folder, bundle
        self.url = f"sqlite:///{folder / 'log.sqlite3'}"
        self.store, self.metrics = LogStore(self.url), Metrics()
        self.store.prepare()
        self.running: list[Schedule] = []
        self.looks: list[int] = []
        (folder / "check.json").write_text(check(verdict=Verdict.OK).model_dump_json())

    def serve(self, count: int, **changes: object) -> None:
        now = datetime.now(UTC)
        self.store.add([row(number, **({"time": now} | changes)).values() for number in range(count)])

    def start(self, **changes: object) -> Schedule:
        settings = Settings.from_environment({"PNEUMO_LOG_URL": self.url}, **changes)
        number = len(self.looks)
        self.looks.append(0)

        def champion():
            self.looks[number] += 1
            return self.bundle

        started = Schedule(
            settings,
            LogStore(self.url),
            self.metrics,
            champion,
            command=lambda _: [sys.executable, "-c", JOB, str(self.folder)],
        )
        self.running.append(started)
        return started

    def look_again(self) -> None:
        """Wait until the schedule that was started last has looked at the log once more, from begin to end."""
        before = self.looks[-1]
        until(lambda: self.looks[-1] >= before + 2)

    @property
    def calls(self) -> list[dict]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def keep(self, made: DriftCheck) -> None:
        add_check(self.store, made, None)

    def seen(self, name: str) -> float:
        return series(self.metrics)[name]


@pytest.fixture
def world(tmp_path, bundle, monkeypatch):
    monkeypatch.setattr(schedule, "POLL_S", 0.05)
    monkeypatch.setattr(schedule, "LEASE", timedelta(seconds=3))
    made = World(tmp_path, bundle)
    yield made
    for each in made.running:
        each.close()


def test_a_check_is_made_once_so_many_images_came_in_another_process(world):
    world.serve(29)
    world.start(drift_rows=30)
    world.look_again()
    assert world.calls == []
    world.serve(1, lane="shadow")
    world.look_again()
    assert world.calls == []
    world.serve(1)
    until(lambda: world.seen("pneumo_drift_checks_total{result=ok}") >= 1)
    assert world.calls[0]["pid"] != os.getpid()


def test_a_check_is_made_by_time_only_where_images_came_since(world):
    world.serve(25)
    world.keep(check(time=datetime.now(UTC) - timedelta(hours=2), last=datetime.now(UTC)))
    world.start(drift_minutes=60)
    world.look_again()
    assert world.calls == []
    world.serve(1, time=datetime.now(UTC) + timedelta(seconds=1))
    until(lambda: len(world.calls) >= 1)


def test_a_check_that_is_young_is_not_made_again(world):
    world.serve(25)
    world.keep(check(time=datetime.now(UTC), last=datetime.now(UTC) - timedelta(hours=1)))
    world.start(drift_minutes=60)
    world.look_again()
    assert world.calls == []


def test_of_two_services_one_makes_checks_and_the_other_goes_on_when_it_is_gone(world):
    (world.folder / "seconds").write_text("60")
    world.serve(30)
    first = world.start(drift_rows=30)
    until(lambda: bool(world.calls))
    world.start(drift_rows=30)
    world.look_again()
    assert len(world.calls) == 1
    first.close()
    until(lambda: len(world.calls) >= 2)


def test_a_lease_of_one_that_died_is_taken_over_by_time(world):
    assert Lease(world.store, "drift", "dead", lasts=timedelta(hours=1)).take()
    world.serve(30)
    world.start(drift_rows=30)
    world.look_again()
    assert world.calls == []
    assert Lease(world.store, "drift", "dead", lasts=timedelta(milliseconds=1)).take()  # its last, which ends at once
    until(lambda: bool(world.calls))


def test_prometheus_is_told_of_the_last_check_also_of_another_service(world):
    assert world.seen("pneumo_drift_verdict") == -1
    columns = [
        {
            "name": name,
            "test": "mmd",
            "statistic": 0.5,
            "distance": 0.5,
            "p_value": 0.001,
            "adjusted": adjusted,
            "verdict": "ok",
        }
        | {"reference": None, "window": None, "words": None}
        for name, adjusted in (("mean", 0.003), ("noise", 1.0))
    ]
    site = {"site": "ward-3", "images": 30, "uncertain": 0.1, "verdict": "drift", "summary": "darker", "columns": []}
    made = check(time=datetime.now(UTC), columns=columns, sites=[site])
    world.keep(made)
    world.start(drift_minutes=60)
    until(lambda: world.seen("pneumo_drift_verdict") == 2)
    assert world.seen("pneumo_drift_p_value{column=mean}") == 0.003
    assert world.seen("pneumo_drift_site_verdict{site=ward-3}") == 2
    assert world.seen("pneumo_drift_last_check_timestamp_seconds") == pytest.approx(made.time.timestamp())


def test_a_job_that_fails_is_counted_and_logged_once_with_its_reason(world, caplog):
    (world.folder / "code").write_text("3")
    (world.folder / "says").write_text("evidently is not installed")
    world.serve(30)
    world.start(drift_minutes=0.002)
    until(lambda: world.seen("pneumo_drift_checks_total{result=failed}") >= 2)
    said = [record.getMessage() for record in caplog.records if record.name == "pneumo.drift"]
    assert said == ["a drift check failed: evidently is not installed"]
    (world.folder / "code").write_text("0")
    until(lambda: "drift checks work again" in caplog.text)


def test_a_traceback_of_the_job_is_not_logged(world, caplog):
    (world.folder / "check.json").unlink()
    world.serve(30)
    world.start(drift_rows=30)
    until(lambda: world.seen("pneumo_drift_checks_total{result=failed}") >= 1)
    until(lambda: "a drift check failed: exit 1" in caplog.text)
    assert "FileNotFound" not in caplog.text


def test_a_message_that_did_not_arrive_is_sent_with_the_next_check(world, caplog):
    (world.folder / "code").write_text("4")
    (world.folder / "says").write_text("PNEUMO_DRIFT_WEBHOOK: the message did not arrive")
    world.serve(30)
    world.start(drift_rows=30, drift_webhook="https://hooks.example/secret", public_url="https://ward.example")
    until(lambda: len(world.calls) >= 2)
    assert "PNEUMO_DRIFT_UNTOLD" not in world.calls[0]["told"]
    told = world.calls[1]["told"]
    assert (told["PNEUMO_DRIFT_UNTOLD"], told["PNEUMO_PUBLIC_URL"]) == ("1", "https://ward.example")
    assert "did not arrive" in caplog.text
    assert "secret" not in caplog.text


def test_the_end_of_the_service_ends_the_job(world):
    (world.folder / "seconds").write_text("60")
    world.serve(30)
    running = world.start(drift_rows=30)
    until(lambda: bool(world.calls))
    running.close()
    assert world.seen("pneumo_drift_checks_total{result=ok}") == 0  # it was not waited for
    assert not Path(f"/proc/{world.calls[0]['pid']}").exists()


def test_a_job_that_hangs_is_killed(world, monkeypatch):
    monkeypatch.setattr(schedule, "LIMIT_S", 0.5)
    (world.folder / "seconds").write_text("60")
    world.serve(30)
    world.start(drift_rows=30)
    until(lambda: world.seen("pneumo_drift_checks_total{result=failed}") >= 1)
    assert not Path(f"/proc/{world.calls[0]['pid']}").exists()


def test_without_a_log_there_is_nothing_to_judge(bundle):
    with pytest.raises(InputError, match="PNEUMO_DRIFT_ROWS: drift checks need the prediction log"):
        create_app(bundle, Settings(drift_rows=30))


def test_a_service_starts_and_ends_its_schedule_and_answers_meanwhile(bundle, png, started, tmp_path, monkeypatch):
    (tmp_path / "seconds").write_text("60")
    monkeypatch.setattr(schedule, "POLL_S", 0.05)
    command = {"command": lambda _: [sys.executable, "-c", JOB, str(tmp_path)]}
    monkeypatch.setattr(Schedule.__init__, "__kwdefaults__", command)
    settings = Settings(log_url=f"sqlite:///{tmp_path / 'log.sqlite3'}", log_spool=tmp_path / "spool", drift_rows=5)
    app = create_app(bundle, settings)
    with started(app) as client:
        for _ in range(5):
            assert client.post("/v1/predict", files={"file": png}).status_code == 200
        until(lambda: (tmp_path / "calls").exists())
        for _ in range(20):
            assert client.post("/v1/predict", files={"file": png}).status_code == 200
        pid = json.loads((tmp_path / "calls").read_text().splitlines()[0])["pid"]
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


@pytest.fixture
def hook():
    return webhooks.server


def run_job(monkeypatch, world, verdict: Verdict, url: str, **variables: str) -> int:
    def make(store, bundle, settings):
        assert (settings.drift_window, bundle.info.id) == (500, "tiny:1")
        made = check(verdict=verdict, time=datetime.now(UTC))
        add_check(store, made, None)
        return made

    monkeypatch.setattr(job, "_lower_priority", lambda: None)
    monkeypatch.setattr(job, "_check", make)
    monkeypatch.setenv("PNEUMO_LOG_URL", world.url)
    monkeypatch.setenv("PNEUMO_DRIFT_WEBHOOK", url)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return job.main(world.bundle.folder)


def test_the_job_posts_a_change_of_the_verdict_and_only_a_change(monkeypatch, world, hook, capsys):
    ok, warning, drift, few = Verdict.OK, Verdict.WARNING, Verdict.DRIFT, Verdict.TOO_FEW
    with hook(*[200] * 4) as (url, came):
        for verdict in (ok, few, ok, warning, few, warning, drift, drift, ok):
            assert run_job(monkeypatch, world, verdict, url, PNEUMO_PUBLIC_URL="https://ward.example") == 0
    titles = [document["text"].split(": images")[0].strip("*") for document in came]
    assert titles == [
        "pneumo drift: warning, was ok",
        "pneumo drift: drift, was warning",
        "pneumo drift: ok, was drift",
    ]
    assert "https://ward.example/drift" in json.dumps(came[0])
    printed = [DriftCheck.model_validate_json(line) for line in capsys.readouterr().out.splitlines()]
    assert [made.verdict for made in printed] == [ok, few, ok, warning, few, warning, drift, drift, ok]


def test_the_job_keeps_a_check_whose_message_did_not_arrive_and_sends_it_when_asked_again(
    monkeypatch, world, hook, capsys
):
    with hook(404, 200) as (url, came):
        assert run_job(monkeypatch, world, Verdict.DRIFT, url) == job.NOT_POSTED
        assert run_job(monkeypatch, world, Verdict.DRIFT, url, PNEUMO_DRIFT_UNTOLD="1") == 0
    assert len(came) == 2
    assert "secret" not in capsys.readouterr().err


def test_a_job_that_breaks_says_so_in_one_line_without_values(monkeypatch, world, capsys):
    monkeypatch.setattr(job, "_lower_priority", lambda: None)
    nobody: dict[str, int] = {}
    monkeypatch.setattr(job, "_main", lambda _: nobody["Jane Doe"])
    assert job.main(world.bundle.folder) == 1
    assert capsys.readouterr().err == "pneumo: KeyError during the check\n"


def test_a_job_lets_others_go_first(tmp_path):
    shown = "os.nice(0), open('/proc/self/oom_score_adj').read()"
    program = f"from pneumo.serving.drift.job import _lower_priority; import os; _lower_priority(); print({shown})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(os.nice(0) + 10), "1000"]


def test_the_job_takes_no_module_from_the_working_directory(bundle, tmp_path):
    for name in ("pneumo", "serving", "config", "sqlalchemy"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not this one')")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PNEUMO_")}
    done = subprocess.run(
        build_job_command(bundle), cwd=tmp_path, env=kept, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pneumo: PNEUMO_LOG_URL is not set; it names the prediction log\n"
