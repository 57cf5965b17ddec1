import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from pneumo.pipeline.cli import app
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.model.predictor import Predictor
from tests.support.bundles import make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("predict") / "bundle")


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.effect_noise((40, 50), 20 * (number + 1)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def predict(bundle, *arguments: str):
    return CliRunner().invoke(app, ["predict", *arguments, "--model", str(bundle.folder)])


def test_json_holds_one_prediction_an_image_as_the_predictor_says(bundle, images):
    found = predict(bundle, "images", "--json")
    assert found.exit_code == 0
    document = json.loads(found.stdout)
    assert document["model"] == {"name": "tiny", "version": "1"}
    notice = "research software, not a medical device; trained on images of a population that is not stated"
    assert document["notice"] == notice
    assert document["errors"] == []
    assert [row["filename"] for row in document["predictions"]] == ["images/0.png", "images/1.png", "images/2.png"]
    for row in document["predictions"]:
        expected = Predictor(bundle).predict_bytes(Path(row["filename"]).read_bytes())
        assert row["probability"] == pytest.approx(expected.probability, abs=1e-6)


def test_csv_holds_a_row_an_image_and_a_column_a_class(bundle, images):
    done = predict(bundle, "images", "--format", "csv")
    assert "not a medical device; trained on images of a population that is not stated" in done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["file"] for row in rows] == ["images/0.png", "images/1.png", "images/2.png"]
    for row in rows:
        assert float(row["probability_NORMAL"]) + float(row["probability_PNEUMONIA"]) == pytest.approx(1)
        assert row["probability"] == row["probability_PNEUMONIA"]
        assert row["error"] == ""


def test_the_table_names_images_and_says_it_is_no_medical_device(bundle, images):
    shown = predict(bundle, "images").stdout
    assert "images/0.png" in shown
    assert "not a medical device" in shown


@pytest.mark.parametrize(
    ("name", "start"), [("out.csv", "file,label"), ("out.json", "{"), ("out.txt", "tiny:1, research")]
)
def test_the_name_of_the_output_file_chooses_the_format(bundle, images, name, start):
    found = predict(bundle, "images", "--out", name)
    assert found.exit_code == 0
    assert found.stdout == ""
    assert Path(name).read_text().startswith(start)


@pytest.mark.parametrize("output", ["json", "csv", "table"])
def test_unreadable_images_are_reported_and_exit_1_after_the_others(bundle, images, output):
    (images / "1.png").write_bytes(b"text")
    found = predict(bundle, "images", "--format", output)
    assert isinstance(found.exception, CheckFailedError)
    assert found.exception.exit_code == 1
    assert str(found.exception).startswith("1 of 3 images")
    assert "not an image" in found.stdout
    assert "images/2.png" in found.stdout
    if output == "json":
        document = json.loads(found.stdout)
        assert len(document["predictions"]) == 2
        assert document["errors"][0]["filename"] == "images/1.png"


def test_contradicting_formats_are_refused(bundle, images):
    assert isinstance(predict(bundle, "images", "--json", "--format", "csv").exception, InputError)


def test_a_path_that_is_not_there_is_refused(bundle, images):
    assert isinstance(predict(bundle, "nothing").exception, InputError)


def test_an_output_folder_that_is_not_there_is_refused(bundle, images):
    found = predict(bundle, "images", "--out", "nowhere/out.csv")
    assert isinstance(found.exception, InputError)
    assert "--out" in str(found.exception)
