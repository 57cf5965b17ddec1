"""What the service leaves in the prediction log."""

import contextlib
import re
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from pneumo.serving.access.api_keys import add_key
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.contracts.sites import SiteSource
from pneumo.serving.http.app import create_app
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.descriptors import compute_descriptors
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.predictor import Predictor
from tests.support.dicoms import make_dicom
from tests.support.metrics import read
from tests.support.waiting import until


@pytest.fixture
def rows(bundle, pngs, tmp_path, started):
    """Rows after two requests of three images, of which one cannot be read."""
    settings = Settings(log_url=f"sqlite:///{tmp_path / 'log.sqlite3'}", log_spool=tmp_path / "spool", threads=1)
    with started(create_app(bundle, settings)) as client:
        files = [("file", ("Jane Doe.png", pngs[0])), ("file", ("bad.png", b"text")), ("file", ("b.png", pngs[1]))]
        answer = client.post("/v1/predict?partial=true", files=files, headers={"x-request-id": "first"})
        assert len(answer.json()["predictions"]) == 2
        assert client.post("/v1/predict", content=pngs[2], headers={"content-type": "image/png"}).status_code == 200
        assert client.post("/v1/explain", content=pngs[3], headers={"content-type": "image/png"}).status_code == 200
    connection = sqlite3.connect(tmp_path / "log.sqlite3")
    connection.row_factory = sqlite3.Row
    return connection.execute("select * from predictions order by time, image_index").fetchall()


def test_every_image_that_was_answered_leaves_a_row_with_its_place(rows):
    assert [(row["request_id"] == "first", row["image_index"]) for row in rows] == [(True, 0), (True, 2), (False, 0)]
    assert {(row["model"], row["version"], row["lane"], row["format"]) for row in rows} == {
        ("tiny", "1", "champion", "PNG")
    }


def test_a_row_holds_what_was_said_and_what_the_image_was_like(rows, bundle, pngs):
    predictor = Predictor(bundle, threads=1)
    expected = predictor.predict_bytes(pngs[0])
    row = rows[0]
    assert row["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert (row["label"], bool(row["certain"])) == (expected.label, expected.certainty == "certain")
    preparation = bundle.info.preparation
    picture = read_stored(pngs[0], preparation)
    descriptors = compute_descriptors(picture, picture.gray)
    assert row["mean"] == pytest.approx(descriptors.mean)
    assert (row["width"], row["height"], row["aspect"]) == (40, 50, 0.8)
    embedding = predictor.run(predictor.prepare(pngs[0])[None]).embedding[0]
    assert np.frombuffer(row["embedding"], "<f4") == pytest.approx(predictor.project(embedding), abs=1e-3)


def test_no_row_holds_a_file_name_or_pixels(rows, pngs):
    for row in rows:
        values = [value for value in dict(row).values() if isinstance(value, str | bytes)]
        assert not any("Jane" in value for value in values if isinstance(value, str))
        assert sum(len(value) for value in values) < 400


def test_without_an_address_nothing_is_kept(bundle, png, started, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with started(create_app(bundle, Settings(threads=1))) as client:
        assert client.post("/v1/predict", files={"file": png}).status_code == 200
    assert list(Path(tmp_path).iterdir()) == []


def test_a_log_that_cannot_be_written_fails_no_request(bundle, png, started, tmp_path):
    (tmp_path / "log").mkdir()
    settings = Settings(log_url=f"sqlite:///{tmp_path / 'log'}", log_spool=tmp_path / "spool", threads=1)
    with started(create_app(bundle, settings)) as client:
        for _ in range(5):
            assert client.post("/v1/predict", files={"file": png}).status_code == 200
    (spooled,) = (tmp_path / "spool").glob("*")
    assert len(spooled.read_text().splitlines()) == 5


def predict_with_site(
    bundle: Bundle, folder: Path, started: Any, source: str | None, requests: list[dict[str, Any]], **settings: Any
) -> tuple[list[str | None], list[httpx.Response], dict[str, float]]:
    """Return the sites in the log after requests, their answers, and the metrics."""
    environment = {} if source is None else {"PNEUMO_LOG_SITE": source}
    given = {"log_url": f"sqlite:///{folder / 'log.sqlite3'}", "log_spool": folder / "spool", "threads": 1} | settings
    with started(create_app(bundle, Settings.from_environment(environment, **given))) as client:
        kinds = {"content-type": "application/octet-stream"}
        answers = [
            client.post(**request | ({"headers": kinds | request.get("headers", {})} if "content" in request else {}))
            for request in requests
        ]
        client.app.state.service.store.prepare()

        def measure() -> dict[str, float]:
            return read(client.get("/metrics", headers=requests[0].get("headers")).text)

        answered = measure()["pneumo_images_total{lane=champion,result=predicted}"]
        until(lambda: measure()["pneumo_log_rows_total{result=written}"] == answered)
        metrics = measure()
    with contextlib.closing(sqlite3.connect(folder / "log.sqlite3")) as connection:
        rows = connection.execute("select site from predictions order by time, image_index").fetchall()
    return [site for (site,) in rows], answers, metrics


def test_no_site_is_kept_unless_a_setting_says_so(bundle, pngs, started, tmp_path):
    film = make_dicom(np.zeros((40, 40), np.uint16), Manufacturer="FUJIFILM")
    requests = [{"url": "/v1/predict", "content": each, "headers": {"x-site": "ward-3"}} for each in (film, pngs[0])]
    sites, _, metrics = predict_with_site(bundle, tmp_path, started, None, requests)
    assert sites == [None, None]
    assert not [name for name in metrics if "site" in name]


def test_a_header_names_the_site_of_every_image_of_a_request_on_both_interfaces(bundle, pngs, started, tmp_path):
    tensor = np.zeros((2, 1, 28, 28), np.float32)
    asked = {"name": "image", "shape": tensor.shape, "datatype": "FP32", "data": tensor.ravel().tolist()}
    files = [("file", (f"{number}.png", pngs[number])) for number in range(3)]
    requests: list[dict[str, Any]] = [
        {"url": "/v1/predict", "files": files, "headers": {"x-site": "ward-3"}},
        {"url": "/v2/models/tiny/infer", "json": {"inputs": [asked]}, "headers": {"X-Site": "North (A) / 2"}},
        {"url": "/v1/predict", "content": pngs[4]},
    ]
    sites, answers, metrics = predict_with_site(bundle, tmp_path, started, "header:X-Site", requests)
    assert [answer.status_code for answer in answers] == [200] * 3
    assert sites == ["ward-3"] * 3 + ["North (A) / 2"] * 2 + [None]
    counted = [metrics[f"pneumo_site_images_total{{site={site}}}"] for site in ("ward-3", "North (A) / 2", "_NONE")]
    assert counted == [3, 2, 1]


@pytest.mark.parametrize("site", ["'; drop table predictions; --", "<b>", "=1+1", "_OTHER", "x" * 101, "K\xf6ln"])
def test_a_header_that_is_no_name_of_a_site_is_refused_with_the_fix(bundle, pngs, started, tmp_path, site):
    headers = {"x-site": site.encode("latin-1")}
    requests = [
        {"url": "/v1/predict", "content": pngs[0], "headers": headers},
        {"url": "/v2/models/tiny/infer", "json": {"inputs": []}, "headers": headers},
    ]
    sites, (answer, protocol), _ = predict_with_site(bundle, tmp_path, started, "header:X-Site", requests)
    assert (answer.status_code, protocol.status_code, sites) == (422, 422, [])
    assert answer.json()["type"] == "urn:pneumo:problem:wrong-fields"
    assert "header X-Site: must be one name of a site" in answer.json()["detail"]
    assert site not in answer.text


def test_a_dicom_file_names_its_device_where_that_is_asked_for(bundle, pngs, started, tmp_path):
    def film(**attributes: Any) -> dict[str, Any]:
        return {"url": "/v1/predict", "content": make_dicom(np.zeros((40, 40), np.uint16), **attributes)}

    device = {"Manufacturer": "FUJIFILM", "ManufacturerModelName": "DX 2", "ViewPosition": "PA"}
    requests = [film(**device, PatientName="Doe^Jane"), film(Manufacturer="<b>\u2603"), film(), film()]
    requests[-1]["content"] = pngs[0]
    sites, answers, _ = predict_with_site(bundle, tmp_path, started, "dicom:Manufacturer,ViewPosition", requests)
    assert [answer.status_code for answer in answers] == [200] * 4
    assert sites[0] == "FUJIFILM / PA"
    assert re.fullmatch(r"b_[_?]* / unknown", sites[1])
    assert sites[2:] == [None, None]


def test_a_key_names_the_site(bundle, pngs, started, tmp_path):
    _, key = add_key(tmp_path / "keys.yaml", "ward-3")
    requests = [{"url": "/v1/predict", "content": pngs[0], "headers": {"x-api-key": key}}]
    sites, _, _ = predict_with_site(bundle, tmp_path, started, "key", requests, auth="on", keys=tmp_path / "keys.yaml")
    assert sites == ["ward-3"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"log_url": None}, "a site needs the prediction log"), ({}, "requests need no key here; set PNEUMO_AUTH=on")],
)
def test_a_site_that_could_never_be_kept_is_refused_at_the_start(bundle, tmp_path, changes, words):
    settings = {"log_url": f"sqlite:///{tmp_path / 'log.sqlite3'}", "log_site": SiteSource("key")} | changes
    with pytest.raises(InputError, match=f"PNEUMO_LOG_SITE.*{words}"):
        create_app(bundle, Settings(**settings))
