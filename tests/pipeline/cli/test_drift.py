"""`pneumo drift`, from a log to files and exit codes."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pneumo.serving.drift.stored_checks import latest_check
from pneumo.serving.predictions.store import LogStore
from tests.support import references

SAID = "research software, not a medical device"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return references.make_judged(tmp_path_factory.mktemp("drift") / "bundle")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PNEUMO_LOG_URL", raising=False)
    return tmp_path


@pytest.fixture
def log(bundle, here):
    """Write rows of some seeds into the log of `pneumo serve`; the last half a minute ago, each a minute apart."""

    def write(seeds: range, **changes: Any) -> LogStore:
        rows = references.rows_of(bundle, seeds, darker=changes.pop("darker", 0))
        store = LogStore("sqlite:///predictions.sqlite3")
        store.prepare()
        now = datetime.now(UTC) - timedelta(seconds=30) - changes.pop("before", timedelta())
        values = [
            row.values() | {"lane": "champion", "time": now - timedelta(minutes=len(rows) - 1 - number)} | changes
            for number, row in enumerate(rows)
        ]
        store.add(values)
        return store

    return write


def drift(pneumo, bundle, command: str, *arguments: str):
    return pneumo("drift", command, "--model", f"{bundle.folder}", *arguments)


def test_served_images_like_the_reference_are_ok(pneumo, bundle, log):
    log(range(500, 580))
    found = drift(pneumo, bundle, "check")
    assert found.code == 0
    assert found.out.startswith("ok: the 80 images look like the reference")
    assert SAID in found.out


def test_darker_images_are_drift_with_what_it_means(pneumo, bundle, log):
    log(range(500, 580), darker=30)
    found = drift(pneumo, bundle, "check")
    assert found.code == 1
    assert "images are darker" in found.out
    assert found.err.startswith("pneumo: drift: images are darker")


def test_too_few_images_are_neither_ok_nor_drift(pneumo, bundle, log):
    log(range(500, 510), darker=30)
    found = drift(pneumo, bundle, "check")
    assert found.code == 4
    assert "10 images: too few to say anything" in found.err


@pytest.mark.parametrize(("fail_on", "code"), [("drift", 0), ("warning", 1)])
def test_a_warning_fails_where_it_is_asked_for(pneumo, bundle, log, fail_on, code):
    log(range(500, 580), width=640.0)
    found = drift(pneumo, bundle, "check", "--fail-on", fail_on)
    assert (found.code, found.out.partition(":")[0]) == (code, "warning")


def test_a_report_is_kept_in_the_log_where_that_is_asked_for(pneumo, bundle, log):
    store = log(range(500, 580), darker=30)
    assert drift(pneumo, bundle, "report").code == 0
    assert latest_check(store) is None
    found = drift(pneumo, bundle, "report", "--store")
    assert found.code == 0
    assert "stored; the service shows it at /drift" in found.err
    kept = latest_check(store)
    assert (kept.check.verdict, kept.check.images, kept.has_page) == ("drift", 80, True)


def test_images_that_are_none_of_the_log_are_not_kept_in_it(pneumo, bundle, here):
    found = drift(pneumo, bundle, "report", "--store", "--data", str(here))
    assert found.code == 2
    assert "--store keeps checks of the whole log" in found.err


def test_a_report_is_evidentlys_page_and_the_check_as_json(pneumo, bundle, log, here):
    log(range(500, 580), darker=30)
    found = drift(pneumo, bundle, "report", "--json")
    assert found.code == 0
    document = json.loads(found.out)
    assert document == json.loads((here / "drift-report" / "report.json").read_text())
    assert (document["verdict"], document["images"], document["window"]) == ("drift", 80, "the last 500 images")
    assert len(document["top"]) == 3
    assert document["notice"] == SAID
    page = (here / "drift-report" / "report.html").read_text()
    assert document["summary"] in page
    assert "Data Drift Summary" in page


def test_a_report_of_too_few_images_takes_the_page_of_another_one_away(pneumo, bundle, log, here):
    (here / "out").mkdir()
    (here / "out" / "report.html").write_text("old")
    log(range(500, 505))
    assert drift(pneumo, bundle, "report", "--out", "out").code == 0
    assert [path.name for path in (here / "out").iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("options", "images", "verdict"),
    [
        ((), 120, "drift"),
        (("--last", "60"), 60, "ok"),
        (("--since", "60m"), 60, "ok"),
        (("--since", "60m", "--last", "30"), 30, "ok"),
        (("--since", "1d"), 120, "drift"),
    ],
)
def test_the_window_is_what_was_asked_for(pneumo, bundle, log, options, images, verdict):
    log(range(500, 560), darker=60, before=timedelta(minutes=60))
    log(range(600, 660))
    document = json.loads(drift(pneumo, bundle, "check", "--json", *options).out)
    assert (document["images"], document["verdict"]) == (images, verdict)


def test_rows_of_other_versions_and_lanes_do_not_count_and_are_told_of(pneumo, bundle, log):
    log(range(500, 540), version="2")
    log(range(540, 580), lane="shadow")
    found = drift(pneumo, bundle, "check")
    assert found.code == 4
    assert "the log holds 80 of other models" in found.err


def test_files_are_checked_as_served_images_are(pneumo, bundle, log, here):
    references.write_images(here / "images", range(500, 580), darker=30)
    (here / "images" / "broken.png").write_bytes(b"no image")
    log(range(500, 580), darker=30)
    of_files = drift(pneumo, bundle, "check", "--data", "images", "--json")
    of_log = json.loads(drift(pneumo, bundle, "check", "--json").out)
    assert of_files.code == 1
    assert "broken.png: not an image" in of_files.err
    assert json.loads(of_files.out)["columns"] == of_log["columns"]
    assert json.loads(of_files.out)["window"] == "images of images"


def test_files_and_the_log_at_once_are_refused(pneumo, bundle, here):
    references.write_images(here / "images", range(2))
    found = drift(pneumo, bundle, "check", "--data", "images", "--last", "3")
    assert (found.code, "give one of them" in found.err) == (2, True)


def test_without_a_log_the_error_names_the_fix(pneumo, bundle):
    found = drift(pneumo, bundle, "report")
    assert found.code == 2
    assert "`pneumo serve` writes one unless it is run with --no-log" in found.err


def test_a_database_that_is_away_is_the_machines_fault(pneumo, bundle):
    found = drift(pneumo, bundle, "check", "--log", "postgresql://nobody:secret@127.0.0.1:1/none")
    assert found.code == 3
    assert "secret" not in found.err


def test_the_log_is_exported(pneumo, log, here):
    log(range(500, 530))
    found = pneumo("drift", "export", "--out", "log.parquet", "--since", "10m")
    assert (found.code, "wrote 10 rows to log.parquet" in found.err) == (0, True)
    assert (here / "log.parquet").is_file()


@pytest.mark.lengthy
@pytest.mark.slow
def test_a_simulation_of_a_tiny_model_sees_when_alarms_come(pneumo, exported, dataset, here):
    """Phantoms, six windows: what is told is right, not what would be told of more."""
    found = pneumo(
        "drift",
        "simulate",
        "--model",
        f"{exported}",
        "--data",
        f"{dataset.folder}",
        *("--split", "test", "--windows", "6", "--size", "24", "--json"),
    )
    assert found.code == 0, found.err
    document = json.loads(found.out)
    assert document == json.loads((here / "drift-simulation" / "simulation.json").read_text())
    assert (here / "drift-simulation" / "simulation.png").read_bytes().startswith(b"\x89PNG")
    assert document["unchanged"]["alarms"] <= 0.5
    alarms = {(point["kind"], point["label"]): point["alarms"] for point in document["points"]}
    assert alarms["darker", "-70 levels"] == alarms["blur", "sigma 3 px"] == alarms["inverted", "100% of images"] == 1
    assert alarms["darker", "-70 levels"] >= alarms["darker", "-5 levels"]
    assert "no radiographs" in {kind for kind, _ in alarms}


def test_an_impossible_simulation_is_refused_with_the_fix(pneumo, exported, dataset):
    options = ("--model", f"{exported}", "--data", f"{dataset.folder}")
    found = pneumo("drift", "simulate", *options, "--size", "1000")
    assert (found.code, "fewer than a window of 1000" in found.err) == (2, True)
    found = pneumo("drift", "simulate", *options, "--size", "5")
    assert (found.code, "needs at least 20 images" in found.err) == (2, True)


def test_sites_are_checked_apart_and_one_alone_where_it_is_asked_for(pneumo, bundle, log):
    log(range(500, 560), site="ward-1")
    log(range(600, 660), site="ward-2", darker=30)
    both = drift(pneumo, bundle, "check")
    assert both.code == 1
    lines = [line for line in both.out.splitlines() if "ward-" in line and " 60 " in line]
    assert [("ok" in line, "drift" in line) for line in lines] == [(True, False), (False, True)]
    document = json.loads(drift(pneumo, bundle, "check", "--json", "--site", "ward-1").out)
    assert (document["images"], document["verdict"], document["window"]) == (
        60,
        "ok",
        "the last 500 images of site ward-1",
    )
    unknown = drift(pneumo, bundle, "check", "--site", "ward-9")
    assert unknown.code == 2
    assert "--site ward-9: no image of it among the last 500 images" in unknown.err
    assert "sites there: ward-1, ward-2" in unknown.err


def test_a_report_has_the_sites_as_json_and_on_evidentlys_page(pneumo, bundle, log, here):
    log(range(500, 560), site="ward-1")
    log(range(600, 660), site="ward-2", darker=30)
    document = json.loads(drift(pneumo, bundle, "report", "--json").out)
    assert {each["site"]: each["verdict"] for each in document["sites"]} == {"ward-1": "ok", "ward-2": "drift"}
    page = (here / "drift-report" / "report.html").read_text()
    assert "<td>ward-2</td><td>60</td>" in page
    assert drift(pneumo, bundle, "report", "--store", "--site", "ward-1").code == 2


@pytest.mark.parametrize("command", [("check", "--json"), ("export", "--out", "log.parquet")])
def test_a_log_of_a_version_without_sites_is_read(pneumo, bundle, log, command):
    store = log(range(500, 560))
    with store.engine.begin() as connection:
        connection.execute(sa.text("alter table predictions drop column site"))
    arguments = command if command[0] == "export" else (*command, "--model", f"{bundle.folder}")
    found = pneumo("drift", *arguments)
    assert found.code == 0, found.err
