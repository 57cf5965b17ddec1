"""`/drift` and `/v1/drift`: what they show of a log, and what they say where there is nothing to show."""

import gzip
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from pneumo.serving.contracts.settings import Settings
from pneumo.serving.drift.check import check_drift
from pneumo.serving.drift.stored_checks import add_check
from pneumo.serving.drift.verdict import DriftCheck, Verdict
from pneumo.serving.http.app import create_app
from pneumo.serving.http.routes import drift
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.predictions.log_tables import feedback, has_feedback, predictions
from pneumo.serving.predictions.store import LogStore
from tests.support import prediction_logs as simulated
from tests.support.bundles import make_bundle
from tests.support.colours import contrast, palettes
from tests.support.html import Elements, text_of
from tests.support.paths import ROOT

WEB = ROOT / "serving" / "pages" / "web"
NOTICE = "Research software, not a medical device"
DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def plots_of(html: str) -> dict[str, dict]:
    """The plots' data by name."""
    (block,) = re.findall(r'<script type="application/json" id="plots">(.*?)</script>', html, re.DOTALL)
    return {plot["id"]: plot for plot in json.loads(block)}


def application(bundle: Bundle, folder: Path, **settings: object) -> FastAPI:
    given = {"threads": 1, "log_url": f"sqlite:///{folder / 'log.sqlite3'}", "log_spool": folder / "spool"}
    return create_app(bundle, Settings.model_validate(given | settings))


def store_of(client: TestClient) -> LogStore:
    app: Any = client.app
    store = app.state.service.store
    store.prepare()
    return store


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Bundle:
    """A bundle with a reference."""
    return simulated.with_reference(make_bundle(tmp_path_factory.mktemp("known") / "tiny"))


@pytest.fixture(scope="module")
def drifted(known) -> DriftCheck:
    """What a check says of a darker detector."""
    rows, _ = simulated.rows(100, NOW - DAY, NOW, darker=True, seed=5)
    return check_drift(known, rows, window="the last 100 images", now=NOW).check


@pytest.fixture(scope="module")
def client(known, drifted, started, tmp_path_factory):
    """A service with ten days of a stable detector and three of a darker one, checked twice."""
    folder = tmp_path_factory.mktemp("service")
    with started(application(known, folder)) as client:
        store = store_of(client)
        simulated.fill(store, 700, NOW - 13 * DAY, NOW - 3 * DAY, seed=1, labelled=0.5)
        simulated.fill(store, 200, NOW - 3 * DAY, NOW, seed=2, darker=True)
        calm = {"verdict": Verdict.OK, "columns": [], "top": [], "summary": "the 100 images look like the reference"}
        add_check(store, drifted.model_copy(update={**calm, "time": NOW - 5 * DAY}), b"<html><body>calm</body></html>")
        add_check(store, drifted, b"<html><body>dark</body></html>")
        yield client


@pytest.fixture
def empty(known, started, tmp_path):
    with started(application(known, tmp_path)) as client:
        yield client


def test_the_page_says_the_verdict_and_why(client, drifted):
    answer = client.get("/drift")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    text = text_of(answer.text)
    assert drifted.summary[1:] in text
    assert "the last 100 images of tiny:1 (100 images) against 400 reference images" in text
    assert "images are darker" in text
    assert f'<aside class="notice" aria-label="Notice">{NOTICE}</aside>' in answer.text


def test_the_page_counts_what_the_log_holds(client):
    html = client.get("/drift").text
    text = text_of(html)
    with store_of(client).engine.connect() as connection:
        images, uncertain, outliers = connection.execute(
            sa.text("select count(*), avg(certain = 0), avg(in_distribution = 0) from predictions")
        ).one()
        labels = connection.execute(sa.text("select count(*) from feedback")).scalar()
    assert images == 900
    assert f"Images 900 {NOW.date() - 13 * DAY} to " in text
    assert f"Uncertain {uncertain:.1%}" in text
    assert f"Out of distribution {outliers:.1%}" in text
    assert f"With ground truth {labels}" in text
    plots = plots_of(html)
    assert sum(plots["volume"]["series"][0]["y"]) == 900
    assert len(plots["volume"]["x"]) == 13


def test_every_plot_has_a_place_and_a_table(client):
    html = client.get("/drift").text
    plots, elements = plots_of(html), Elements(html)
    places = [each["id"] for each in elements.of("div") if each.get("class") == "drawing"]
    assert places == list(plots)
    assert len(elements.of("details")) == len(plots)
    assert {"volume", "doubts", "verdicts", "column-mean", "metric-auroc", "calibration"} <= plots.keys()
    for plot in plots.values():
        assert all(len(series["y"]) == len(plot["x"]) for series in plot["series"])


def test_distributions_are_shares_of_reference_and_window(client):
    plots = plots_of(client.get("/drift").text)
    for name, plot in plots.items():
        if name.startswith("column-"):
            assert [series["name"] for series in plot["series"]] == ["Reference", "Selected images"]
            assert all(sum(series["y"]) == pytest.approx(1, abs=0.001) for series in plot["series"])


def test_performance_is_measured_where_labels_came_and_estimated_where_not(client):
    html = client.get("/drift").text
    accuracy = plots_of(html)["metric-accuracy"]
    estimated, measured = accuracy["series"]
    assert all(value is not None for value in estimated["y"])
    assert measured["y"][-3:] == [None] * 3  # no label came for the last days
    assert any(value is not None for value in measured["y"])
    text = text_of(html)
    assert "AUROC 0.9" in text or "AUROC 0.8" in text
    assert "0.900 0.800 to 0.950, test" in text  # as exported


def test_a_range_and_a_version_can_be_chosen(client):
    first, last = NOW.date() - 3 * DAY, NOW.date() - DAY
    html = client.get("/drift", params={"version": "tiny:1", "from": str(first), "to": str(last)}).text
    assert "Images 200" in text_of(html)
    inputs = {each.get("name"): each.get("value") for each in Elements(html).of("input")}
    assert inputs == {"from": str(first), "to": str(last)}
    assert sum(plots_of(html)["volume"]["series"][0]["y"]) == 200


def test_few_days_are_shown_by_the_hour(client):
    day = str(NOW.date() - DAY)
    plot = plots_of(client.get("/drift", params={"from": day, "to": day}).text)["volume"]
    assert plot["title"] == "Images per hour"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:00", moment) for moment in plot["x"])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"from": "yesterday"}, "“yesterday” is not a date such as 2026-11-24"),
        ({"to": "0001-01-01"}, "0001-01-01 is out of range"),
        ({"version": "<script>alert(1)</script>"}, "The log has no version “&lt;script&gt;alert(1)&lt;/script&gt;”"),
    ],
)
def test_what_is_not_understood_is_said_and_left_out(client, query, words):
    answer = client.get("/drift", params=query)
    assert answer.status_code == 200
    assert words in text_of(answer.text)
    assert "<script>alert" not in answer.text
    assert "Images 900" in text_of(answer.text)


def test_days_the_wrong_way_round_are_turned(client):
    html = client.get("/drift", params={"from": str(NOW.date()), "to": str(NOW.date() - 20 * DAY)}).text
    assert "Images 900" in text_of(html)


def test_days_without_images_say_so(client):
    html = client.get("/drift", params={"from": "2020-01-01", "to": "2020-02-01"}).text
    assert "No images of this version from 2020-01-01 to 2020-02-01." in text_of(html)


def test_stored_reports_are_listed_and_opened_in_place(client):
    elements = Elements(client.get("/drift").text)
    links = [each["href"] for each in elements.of("a") if "report=" in (each["href"] or "")]
    assert len(set(links)) == 2
    assert not elements.of("iframe")
    html = client.get(f"/{links[-1].partition('#')[0]}").text
    (frame,) = Elements(html).of("iframe")
    assert frame["sandbox"] == "allow-scripts"
    page = client.get(f"/{frame['src']}")
    assert page.status_code == 200
    assert page.text == "<html><body>calm</body></html>"


def test_a_report_is_locked_into_a_sandbox_and_may_be_framed_by_this_service_alone(client):
    (key,) = _keys(client, "dark")
    answer = client.get(f"/drift/reports/{key}")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline';")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy  # so that default-src holds
    assert "frame-ancestors 'self'" in policy
    assert answer.headers["cache-control"] == "no-store"


def test_a_report_comes_packed_or_not_as_the_browser_likes(client):
    (key,) = _keys(client, "dark")
    for accepted, encoding in [("gzip, br", "gzip"), ("identity", None)]:
        answer = client.get(f"/drift/reports/{key}", headers={"accept-encoding": accepted})
        assert answer.headers.get("content-encoding") == encoding
        assert answer.text == "<html><body>dark</body></html>"


def _keys(client: TestClient, words: str) -> list[str]:
    with store_of(client).engine.connect() as connection:
        found = connection.execute(sa.text("select id, report from checks")).all()
    return [key for key, report in found if words.encode() in gzip.decompress(report)]


@pytest.mark.parametrize("key", ["nothing", "0" * 32, "..%2f..", "%00"])
def test_a_report_that_is_not_there_is_a_page_in_words(client, key):
    answer = client.get(f"/drift/reports/{key}")
    assert answer.status_code == 404
    if "/" not in key and "%2f" not in key:
        assert "its report was deleted" in answer.text


def test_the_latest_check_is_json(client, drifted):
    assert DriftCheck.model_validate(client.get("/v1/drift").json()) == drifted
    assert client.get("/v1/drift", params={"version": "tiny:1"}).json()["verdict"] == "drift"
    for other in ("tiny:2", "tiny", "tiny:1\0"):
        answer = client.get("/v1/drift", params={"version": other})
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:pneumo:problem:no-check")


def test_without_a_check_json_is_a_problem_that_says_how_to_make_one(empty):
    answer = empty.get("/v1/drift")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert "pneumo drift report" in answer.json()["detail"]


def test_an_empty_log_says_how_to_fill_it(empty):
    answer = empty.get("/drift")
    assert answer.status_code == 200
    assert "No images have been logged yet." in text_of(answer.text)
    assert "/v1/predict" in answer.text
    assert not Elements(answer.text).of("script")


def test_few_images_and_no_check_say_what_is_missing(empty):
    simulated.fill(store_of(empty), 7, NOW - DAY, NOW, seed=3)
    text = text_of(empty.get("/drift").text)
    assert "No drift check yet A check needs 20 images." in text
    assert "7 images selected. Fewer than 20 cannot show drift." in text
    assert "pneumo drift report" in text
    assert "No ground-truth labels yet." in text
    assert "Reference and selected" not in text


def test_a_single_image_is_a_page_too(empty):
    simulated.fill(store_of(empty), 1, NOW - DAY, NOW, seed=3, labelled=1)
    answer = empty.get("/drift")
    assert answer.status_code == 200
    assert "1 image selected." in text_of(answer.text)


def test_a_model_without_a_reference_says_so_and_shows_the_rest(bundle, started, tmp_path):
    with started(application(bundle, tmp_path)) as client:
        simulated.fill(store_of(client), 60, NOW - 4 * DAY, NOW, seed=3, labelled=1)
        html = client.get("/drift").text
    assert "the bundle holds no readable reference; export the model again" in text_of(html)
    assert {"volume", "metric-sensitivity"} <= plots_of(html).keys()


def test_a_version_whose_bundle_is_gone_shows_what_needs_no_bundle(empty):
    store = store_of(empty)
    simulated.fill(store, 60, NOW - 4 * DAY, NOW, seed=3, labelled=1, version="0")
    html = empty.get("/drift").text
    assert "the bundle of this version is neither loaded nor in the registry" in text_of(html)
    plots = plots_of(html)
    assert {"volume", "metric-accuracy"} <= plots.keys()
    assert "metric-sensitivity" not in plots  # of which class?
    assert [series["name"] for series in plots["metric-accuracy"]["series"]] == ["Measured with labels"]


def test_the_version_that_answers_now_is_shown_first_and_others_can_be_chosen(empty):
    store = store_of(empty)
    simulated.fill(store, 30, NOW - 9 * DAY, NOW - 5 * DAY, seed=3)
    simulated.fill(store, 40, NOW - 2 * DAY, NOW, seed=4, version="challenger")
    html = empty.get("/drift").text
    options = Elements(html).of("option")
    assert [each["value"] for each in options] == ["tiny:challenger", "tiny:1"]
    assert [each["value"] for each in options if "selected" in each] == ["tiny:1"]
    assert "Images 30" in text_of(html)
    assert f"tiny:challenger: 40 images, {NOW.date() - 2 * DAY} to {NOW.date() - DAY}" in text_of(html)
    assert "Images 40" in text_of(empty.get("/drift", params={"version": "tiny:challenger"}).text)


def test_a_model_of_several_classes_has_figures_of_each(started, tmp_path):
    classes = ["NORMAL", "PNEUMONIA", "VIRUS"]
    made = make_bundle(tmp_path / "three", classes=classes, positive_class=None, thresholds={})
    with started(application(made, tmp_path)) as client:
        simulated.fill(store_of(client), 200, NOW - 4 * DAY, NOW, seed=3, labelled=1)
        with store_of(client).engine.connect() as connection:
            joined = predictions.join(feedback, has_feedback)
            pairs = connection.execute(sa.select(feedback.c.label, predictions.c.label).select_from(joined)).all()
        html = client.get("/drift").text
    plots = plots_of(html)
    assert {"metric-accuracy", "calibration"} <= plots.keys()
    assert "metric-sensitivity" not in plots
    words = text_of(html)
    for name in classes[:2]:
        of_class = [called for truth, called in pairs if truth == name]
        share = sum(called == name for called in of_class) / len(of_class)
        figures = rf"{share:.3f} [01]\.\d{{3}} to [01]\.\d{{3}}, {len(of_class)} images"
        assert re.search(f"Sensitivity of {name} {figures}", words)
    assert "Sensitivity of VIRUS" not in words


def test_sites_have_their_volume_uncertain_share_and_verdict(known, started, tmp_path):
    with started(application(known, tmp_path)) as client:
        store = store_of(client)
        for number, site in enumerate(["ward-1", "<b>ward-2</b>", None]):
            simulated.fill(store, 60, NOW - 2 * DAY, NOW, seed=number, site=site, darker=number == 1)
        with store.engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(sa.select(predictions)).mappings()]
        found = check_drift(known, rows, window="the last 180 images", now=NOW).check
        add_check(store, found, None)
        html = client.get("/drift").text
    (table,) = re.findall(r'id="sites-title">.*?<tbody>(.*?)</tbody>', html, re.DOTALL)
    cells = [text_of(row) for row in table.split("</tr>") if row.strip()]
    assert len(cells) == 3
    names = {"<b>ward-2</b>": "", None: "images without a site", "ward-1": "ward-1"}
    for row, (site, name) in zip(cells, names.items(), strict=True):
        uncertain = np.mean([not each["certain"] for each in rows if each["site"] == site])
        assert f"60 33% of all {uncertain:.1%}" in row
        assert name in row
    assert "&lt;b&gt;ward-2&lt;/b&gt;" in table
    assert "Drift" in cells[0]
    assert "darker" in cells[0]
    assert "No drift" in cells[2]
    assert re.search(r"Predicted, reference to window: PNEUMONIA \d+% to \d+%", text_of(html))


def test_a_log_without_sites_has_no_section_of_them(client):
    assert "sites-title" not in client.get("/drift").text


def test_without_a_log_the_page_says_how_to_keep_one(known, started, tmp_path):
    with started(application(known, tmp_path, log_url=None)) as client:
        answer = client.get("/drift")
        assert client.get("/v1/drift").status_code == 409
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "run `pneumo serve` without --no-log" in text_of(answer.text)
    assert NOTICE in answer.text


def test_while_the_database_is_away_the_page_says_so(known, started, tmp_path):
    (tmp_path / "log.sqlite3").mkdir()
    with started(application(known, tmp_path)) as client:
        for path in ("/drift", "/drift/reports/0"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
            assert "The prediction log cannot be reached." in text_of(answer.text)
            assert str(tmp_path) not in answer.text


def test_without_plotly_there_are_tables_and_the_fix(client, monkeypatch):
    monkeypatch.setattr(drift, "_plotly", lambda: None)
    html = client.get("/drift").text
    elements = Elements(html)
    assert not elements.of("script")
    assert "pip install '.[drift]'" in html.replace("&#x27;", "'")
    assert elements.of("details")
    assert all("open" in each for each in elements.of("details"))
    assert client.get(drift.PLOTLY).status_code == 404


def test_plotly_comes_from_this_service_packed_and_once(client):
    first = client.get(drift.PLOTLY, headers={"accept-encoding": "gzip"})
    assert first.headers["content-encoding"] == "gzip"
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    assert int(first.headers["content-length"]) < 2_000_000
    assert "plotly.js v" in first.text[:200]
    again = client.get(drift.PLOTLY, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_page_is_safe_under_its_strict_policy(client):
    answer = client.get("/drift")
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'self';")
    elements = Elements(answer.text)
    assert "style" not in [tag for tag, _ in elements.found]
    assert not [name for _, attributes in elements.found for name in attributes if name == "style" or name[:2] == "on"]
    scripts = elements.of("script")
    assert [each.get("src") for each in scripts] == [None, "static/vendor/plotly.min.js", "static/drift.js"]
    assert scripts[0]["type"] == "application/json"  # which no browser runs


def test_nothing_is_loaded_from_elsewhere(client):
    elements = Elements(client.get("/drift").text)
    links = [link for link in elements.values("src", "href", "action") if not link.startswith("#")]
    assert links
    for link in {link.partition("#")[0] for link in links}:
        assert not re.match(r"\w+:|/", link), link
        assert client.get(f"/{link}").status_code == 200, link


def test_ids_are_unique_and_what_refers_to_one_finds_it(client):
    elements = Elements(client.get("/drift").text)
    ids = elements.values("id")
    assert len(ids) == len(set(ids))
    assert set(elements.values("aria-labelledby")) <= set(ids)


def test_names_in_the_log_are_text_and_never_markup(empty):
    hostile = '</script><script>alert("x")</script><!--'
    store = store_of(empty)
    simulated.fill(store, 30, NOW - 2 * DAY, NOW, seed=3, version=hostile[:90], model="<b>")
    html = empty.get("/drift").text
    assert "alert(" not in re.sub(r"&lt;/?script&gt;alert\(&quot;x&quot;\)|%3Cscript%3Ealert%28%22x%22%29", "", html)
    assert len(Elements(html).of("script")) == 3


def test_data_for_the_script_cannot_end_its_element(known, started, tmp_path):
    hostile = "</script><script>alert(1)</script>"
    made = make_bundle(tmp_path / "hostile", classes=["NORMAL", hostile], positive_class=hostile)
    simulated.with_reference(made)
    with started(application(Bundle.open(made.folder), tmp_path)) as client:
        simulated.fill(store_of(client), 60, NOW - 2 * DAY, NOW, seed=3)
        html = client.get("/drift").text
    assert len(Elements(html).of("script")) == 3
    assert plots_of(html)["column-probability"]["title"] == f"Probability of {hostile}"


def test_head_requests_are_answered_too(client):
    for path in ("/drift", drift.PLOTLY, f"/drift/reports/{_keys(client, 'dark')[0]}"):
        assert client.head(path).status_code == 200


def test_pages_are_not_part_of_the_api_and_its_json_is(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert "/v1/drift" in paths
    assert not [path for path in paths if path.startswith(("/drift", "/static"))]


def test_colours_can_be_read_in_both_schemes():
    for colours in palettes().values():
        texts = [("ok-ink", "ok-paper"), ("ink", "ok-paper"), ("ink", "warn-paper"), ("ink", "error-paper")]
        texts += [("accent", "ok-paper"), ("accent", "warn-paper"), ("accent", "error-paper"), ("accent", "panel")]
        parts = [("ok-edge", "paper"), ("plot-ok", "panel"), ("plot-warning", "panel"), ("plot-drift", "panel")]
        parts += [("accent", "panel"), ("positive", "panel"), ("edge", "panel"), ("accent", "track")]
        for pairs, least in ((texts, 4.5), (parts, 3.0)):
            poor = {pair: contrast(*(colours[name] for name in pair)) for pair in pairs}
            assert not {pair: round(ratio, 2) for pair, ratio in poor.items() if ratio < least}
