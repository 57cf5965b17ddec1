"""What the service leaves in the prediction log."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.descriptors import compute_descriptors
from pneumo.serving.model.predictor import Predictor


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
