from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.drift.check import check_drift
from pneumo.serving.drift.describe_files import describe_files
from pneumo.serving.drift.samples import LEAST, read_reference
from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.descriptors import compute_descriptors
from pneumo.serving.model.bundle import Bundle, seal_bundle
from pneumo.serving.model.predictor import Predictor
from tests.support import references
from tests.support.bundles import make_bundle
from tests.support.references import columns_of, write_images

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> Bundle:
    return references.make_judged(tmp_path_factory.mktemp("judged") / "bundle")


def resealed(bundle: Bundle, frame: pd.DataFrame) -> Bundle:
    frame.to_parquet(bundle.folder / "reference.parquet", index=False)
    (bundle.folder / "bundle.json").unlink()
    seal_bundle(bundle.folder, bundle.info)
    return Bundle.open(bundle.folder)


def test_images_like_the_reference_are_ok(judged):
    found = check_drift(judged, columns_of(judged, range(500, 580)), window="all of them", now=NOW).check
    assert (found.verdict, found.images, found.reference_images) == (Verdict.OK, 80, 150)
    assert (found.model, found.version, found.window, found.time) == ("tiny", "1", "all of them", NOW)
    assert (found.top, found.summary) == ([], "the 80 images look like the reference")


def test_darker_images_are_drift_and_said_to_be_darker(judged):
    found = check_drift(judged, columns_of(judged, range(500, 580), darker=30), window="w").check
    assert found.verdict is Verdict.DRIFT
    assert "mean" in found.top
    assert "images are darker" in found.summary
    assert len(found.top) <= 3


def test_a_check_knows_when_its_images_came_unless_they_were_never_served(judged):
    rows = columns_of(judged, range(500, 530))
    served = check_drift(judged, rows, window="w").check
    assert (served.first, served.last) == (rows[0]["time"], rows[-1]["time"])
    offline = check_drift(judged, rows, window="w", served=False).check
    assert (offline.first, offline.last) == (None, None)


@pytest.mark.parametrize("count", [0, 1, LEAST - 1])
def test_too_few_images_are_no_verdict(judged, count):
    found = check_drift(judged, columns_of(judged, range(count)), window="w").check
    assert (found.verdict, found.images, found.columns, found.top) == (Verdict.TOO_FEW, count, [], [])


def test_files_are_predicted_and_described_as_the_service_does(judged, tmp_path):
    folder = write_images(tmp_path / "images", range(500, 520))
    (folder / "0505.png").write_bytes(b"no image")
    predictor = Predictor(judged)
    told: list[int] = []
    rows, unreadable = describe_files(predictor, sorted(folder.iterdir()), progress=told.append)
    assert sum(told) == 20
    assert [path.name for path in unreadable] == ["0505.png"]
    paths = [path for path in sorted(folder.iterdir()) if path.name != "0505.png"]
    for path, row in zip(paths, rows, strict=True):
        expected = predictor.predict_bytes(path.read_bytes())
        assert row.probability == pytest.approx(expected.probability, abs=1e-6)
        assert (row.label, row.in_distribution) == (expected.label, expected.in_distribution)
        preparation = judged.info.preparation
        picture = read_stored(path.read_bytes(), preparation)
        assert row.descriptors == compute_descriptors(picture, picture.gray)


def test_the_reference_are_the_held_out_images_with_their_patients(tmp_path):
    bundle = references.make_judged(tmp_path / "bundle", images=60)
    frame = pd.read_parquet(bundle.folder / "reference.parquet")
    frame["patient_number"] = np.arange(60) // 3
    frame.loc[:29, "split"] = "train"
    reference = read_reference(resealed(bundle, frame))
    assert len(reference) == 30
    assert reference.groups.tolist() == (np.arange(30, 60) // 3).tolist()
    older = read_reference(resealed(bundle, frame.drop(columns="patient_number")))
    assert older.groups is None


def test_a_reference_of_too_few_images_is_refused_with_the_fix(tmp_path):
    bundle = references.make_judged(tmp_path / "bundle", images=LEAST - 1)
    with pytest.raises(InputError, match=r"19 validation images, 20 are needed; import the data set with more"):
        check_drift(bundle, [], window="w")


def test_a_bundle_without_a_reference_is_refused_with_the_fix(tmp_path):
    with pytest.raises(InputError, match=r"no reference.parquet in this bundle; export the model again"):
        check_drift(make_bundle(tmp_path / "bare"), [], window="w")
