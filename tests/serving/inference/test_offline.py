import shutil
from pathlib import Path

import pytest

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.http.app import create_app
from pneumo.serving.inference.offline import find_images, predict_files
from pneumo.serving.model.predictor import BATCH, Predictor


@pytest.fixture
def images(tmp_path, pngs) -> Path:
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    for number, data in enumerate(pngs):
        (folder / ("deep" if number % 2 else ".") / f"{number:02}.png").write_bytes(data)
    return folder


def test_offline_and_service_give_the_same_probabilities(bundle, images, started):
    predictor = Predictor(bundle)
    results = list(predict_files(predictor, find_images([images])))
    assert len(results) == 12 > BATCH
    with started(create_app(bundle)) as client:
        for result in results:
            answer = client.post("/v1/predict", files={"file": result.path.read_bytes()}).json()["predictions"][0]
            assert result.prediction.probability == pytest.approx(answer["probability"], abs=1e-6)
            assert result.prediction.label == answer["label"]
            assert result.prediction.outlier_score == pytest.approx(answer["outlier_score"], abs=1e-4)


def test_a_file_that_cannot_be_read_has_an_error_and_the_others_a_prediction(bundle, images):
    (images / "05b.png").write_bytes(b"text")
    results = list(predict_files(Predictor(bundle), find_images([images])))
    failed = [result for result in results if result.error]
    assert [result.path.name for result in failed] == ["05b.png"]
    assert failed[0].prediction is None
    alone = Predictor(bundle)
    for result in results:
        if result.prediction:
            expected = alone.predict_bytes(result.path.read_bytes())
            assert result.prediction.probability == pytest.approx(expected.probability, abs=1e-6)
            assert result.prediction.filename == str(result.path)


def test_files_that_all_cannot_be_read_have_only_errors(bundle, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path in paths:
        path.write_bytes(b"")
    assert all(result.error for result in predict_files(Predictor(bundle), paths))


def test_a_file_that_goes_away_has_an_error(bundle, tmp_path):
    (result,) = predict_files(Predictor(bundle), [tmp_path / "gone.png"])
    assert "cannot be read" in result.error


def test_folders_give_images_sorted_and_without_hidden_or_other_files(images):
    (images / ".hidden.png").write_bytes(b"x")
    (images / ".cache").mkdir()
    (images / ".cache" / "a.png").write_bytes(b"x")
    (images / "manifest.csv").write_text("x")
    shutil.copy(images / "00.png", images / "upper.PNG")
    found = find_images([images])
    assert len(found) == 13
    assert found == sorted(found)
    assert images / "upper.PNG" in found


def test_a_file_that_is_named_is_taken_whatever_its_suffix(tmp_path):
    (tmp_path / "image").write_bytes(b"x")
    assert find_images([tmp_path / "image"]) == [tmp_path / "image"]


def test_a_file_that_is_named_twice_is_taken_once(images):
    assert find_images([images / "00.png", images / "00.png", images]).count(images / "00.png") == 1


def test_what_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        find_images([tmp_path / "nothing.png"])
    with pytest.raises(InputError, match="no images in this folder"):
        find_images([tmp_path])
