"""True labels over HTTP: JSON and CSV, what is refused, what is kept."""

import contextlib
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.drift import feedback as reading
from pneumo.serving.http.app import create_app
from pneumo.serving.predictions.log_tables import feedback as labels
from tests.support.bundles import make_bundle
from tests.support.waiting import until

CSV = {"content-type": "text/csv"}


def application(bundle, **settings: Any) -> FastAPI:
    return create_app(bundle, Settings(threads=1, **settings))


@pytest.fixture
def client(bundle, started, tmp_path):
    settings = {"log_url": f"sqlite:///{tmp_path / 'log.sqlite3'}", "log_spool": tmp_path / "spool"}
    with started(application(bundle, **settings)) as client:
        yield client


def predict(client, png, request_id: str, images: int = 1) -> None:
    files = [("file", (f"{number}.png", png)) for number in range(images)]
    assert client.post("/v1/predict", files=files, headers={"X-Request-ID": request_id}).status_code == 200
    wait_for_rows(client, request_id, images)


def wait_for_rows(client, request_id: str, images: int) -> None:
    store = client.app.state.service.store
    query = sa.text("select count(*) from predictions where request_id = :id")

    def written() -> bool:
        with contextlib.suppress(sa.exc.SQLAlchemyError), store.engine.connect() as connection:
            return connection.execute(query, {"id": request_id}).scalar() == images
        return False

    until(written)


def kept(client) -> dict[tuple[str, int], str]:
    with client.app.state.service.store.engine.connect() as connection:
        return {(row.request_id, row.image_index): row.label for row in connection.execute(sa.select(labels))}


def test_labels_in_json_are_kept_and_matched_with_their_images(client, png):
    predict(client, png, "two", images=2)
    answer = client.post(
        "/v1/feedback",
        json={
            "items": [
                {"request_id": "two", "index": 1, "label": "PNEUMONIA"},
                {"request_id": "two", "label": "NORMAL"},
                {"request_id": "elsewhere", "index": 3, "label": "NORMAL"},
            ]
        },
    )
    assert answer.status_code == 200
    told = answer.json()
    assert (told["taken"], told["matched"]) == (3, 2)
    assert told["unmatched"] == [{"request_id": "elsewhere", "index": 3}]
    assert told["notice"] == "research software, not a medical device"
    assert kept(client) == {("two", 0): "NORMAL", ("two", 1): "PNEUMONIA", ("elsewhere", 3): "NORMAL"}


def test_one_label_alone_needs_no_list_and_may_be_corrected(client):
    for label in ("NORMAL", "PNEUMONIA"):
        assert client.post("/v1/feedback", json={"request_id": "a", "label": label}).json()["taken"] == 1
    assert kept(client) == {("a", 0): "PNEUMONIA"}


@pytest.mark.parametrize(
    "table",
    [
        b"request_id,index,label\na,0,NORMAL\nb,1,PNEUMONIA\n",
        b"\xef\xbb\xbflabel,request_id,index\r\nNORMAL,a,0\r\n\r\nPNEUMONIA,b,1\r\n",
        b'request_id,index,label\n"a",0,"NORMAL"\na,0,NORMAL\nb,1,PNEUMONIA',
    ],
    ids=["plain", "from a spreadsheet", "quoted and twice"],
)
def test_a_table_is_taken_as_spreadsheets_write_it(client, table):
    answer = client.post("/v1/feedback", content=table, headers={"content-type": "text/csv; charset=utf-8"})
    assert answer.json()["taken"] == 2
    assert kept(client) == {("a", 0): "NORMAL", ("b", 1): "PNEUMONIA"}


def test_a_table_without_places_is_about_first_images(client):
    client.post("/v1/feedback", content=b"request_id,label\na,NORMAL\n", headers=CSV)
    assert kept(client) == {("a", 0): "NORMAL"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"items": [{"request_id": "a", "label": "NORMAL"}, {"request_id": "b", "label": "COLD"}]}, "items.1: 'COLD'"),
        ({"items": [{"request_id": "a", "label": "NORMAL"}, {"request_id": "b"}]}, "items.1.label: Field required"),
        ({"items": []}, "items: List should have at least 1 item"),
        ({"request_id": "a b", "label": "NORMAL"}, "request_id: String should match"),
        ({"request_id": "a", "index": -1, "label": "NORMAL"}, "index: Input should be greater than or equal to 0"),
        ({"request_id": "a", "label": "items"}, "the label: 'items' is no class"),
        ({"request_id": "a", "lable": "NORMAL"}, "label: Field required"),
    ],
)
def test_a_wrong_label_is_named_with_its_place_and_none_is_kept(client, body, words):
    answer = client.post("/v1/feedback", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["detail"]
    client.app.state.service.store.prepare()
    assert kept(client) == {}


@pytest.mark.parametrize(
    ("table", "status", "words"),
    [
        (b"request_id,index,label\na,0,NORMAL\nb,1,COLD\n", 422, "line 3: 'COLD' is no class of a model"),
        (b"request_id,index,label\na,x,NORMAL\n", 422, "line 2: index: Input should be a valid integer"),
        (b"request_id,index,label\na,0\n", 422, "line 2: as many values"),
        (b"request_id,index,label\na,0,NORMAL,1\n", 422, "line 2: as many values"),
        (b"a,0,NORMAL\n", 422, "line 1: the header"),
        (b"request_id,label,label\na,NORMAL,NORMAL\n", 422, "line 1: the header"),
        (b"request_id,index,label\n", 422, "no row"),
        (b"", 422, "line 1: the header"),
        (b'request_id,index,label\na,0,"NORMAL\n', 400, "not valid CSV"),
        (b"request_id,index,label\na,0,\xff\n", 400, "not UTF-8"),
    ],
)
def test_a_wrong_table_is_refused_by_line(client, table, status, words):
    answer = client.post("/v1/feedback", content=table, headers=CSV)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


def answered_by(client, version: str) -> None:
    """Let another version have answered what is in the log."""
    with client.app.state.service.store.engine.begin() as connection:
        connection.execute(sa.text("update predictions set version = :version"), {"version": version})


def test_a_label_is_held_against_the_model_that_answered_not_the_one_that_answers_now(bundle, png, started, tmp_path):
    old = make_bundle(
        tmp_path / "models" / "tiny" / "old", version="old", classes=["CLEAR", "COLD"], positive_class="COLD"
    )
    entry = {"name": "tiny", "version": "old", "bundle": "tiny/old", "digest": old.digest, "metrics": {}, "run": None}
    registry = {"versions": [entry | {"promoted_at": "2026-11-01T00:00:00Z"}]}
    (tmp_path / "models" / "registry.yaml").write_text(yaml.safe_dump(registry))
    settings = {"log_url": f"sqlite:///{tmp_path / 'log.sqlite3'}", "log_spool": tmp_path / "spool"}
    with started(application(bundle, models_dir=tmp_path / "models", reload_s=0, **settings)) as client:
        predict(client, png, "a")
        answered_by(client, "old")
        assert client.post("/v1/feedback", json={"request_id": "a", "label": "COLD"}).json()["matched"] == 1
        refused = client.post("/v1/feedback", json={"request_id": "a", "label": "PNEUMONIA"})
    assert refused.status_code == 422
    assert "'PNEUMONIA' is no class of tiny:old; classes: CLEAR, COLD" in refused.json()["detail"]


def test_a_label_for_a_model_that_is_gone_is_held_against_what_is_loaded(client, png):
    predict(client, png, "old")
    answered_by(client, "0")
    assert client.post("/v1/feedback", json={"request_id": "old", "label": "NORMAL"}).json()["matched"] == 1
    assert client.post("/v1/feedback", json={"request_id": "old", "label": "COLD"}).status_code == 422


def test_other_media_types_damaged_json_and_too_many_labels_are_refused(client):
    post = client.post
    assert post("/v1/feedback", content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    damaged = post("/v1/feedback", content=b'{"items": [', headers={"content-type": "application/json"})
    assert damaged.status_code == 400
    many = b"request_id,label\n" + b"a,NORMAL\n" * (reading.MAX_ITEMS + 1)
    assert post("/v1/feedback", content=many, headers=CSV).status_code == 413
    bomb = b"[" + b"[]," * 300_000 + b"[]]"
    assert post("/v1/feedback", content=bomb, headers={"content-type": "application/json"}).status_code == 413
    assert post("/v1/feedback", content=b"x" * (reading.MAX_BYTES + 1), headers=CSV).status_code == 413


def test_without_a_log_labels_have_no_place(bundle, started):
    with started(application(bundle)) as client:
        answer = client.post("/v1/feedback", json={"request_id": "a", "label": "NORMAL"})
    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:pneumo:problem:log-off"
    assert "--no-log" in answer.json()["detail"]


def test_while_the_database_is_away_labels_are_refused_and_may_be_sent_again(bundle, started, tmp_path):
    (tmp_path / "log.sqlite3").mkdir()
    settings = {"log_url": f"sqlite:///{tmp_path / 'log.sqlite3'}", "log_spool": tmp_path / "spool"}
    with started(application(bundle, **settings)) as client:
        answer = client.post("/v1/feedback", json={"request_id": "a", "label": "NORMAL"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert str(tmp_path) not in answer.text


@given(st.binary(max_size=300))
def test_no_bytes_break_the_readers(body):
    for read in (reading.read_json, reading.read_csv):
        with contextlib.suppress(ProblemError):
            assert len(read(body)) >= 1


def test_many_labels_are_taken_at_once(client):
    count = 5000
    table = "request_id,label\n" + "".join(f"r{number},NORMAL\n" for number in range(count))
    answer = client.post("/v1/feedback", content=table.encode(), headers=CSV).json()
    assert (answer["taken"], answer["matched"], len(answer["unmatched"])) == (count, 0, 1000)


def test_cells_that_the_page_escaped_for_spreadsheets_are_read_back():
    items = reading.read_csv(b"request_id,index,label\n'-a,0,'=1+1\n-b,1,-0.5\n")
    assert [(each.request_id, each.label) for each in items.values()] == [("-a", "=1+1"), ("-b", "-0.5")]
