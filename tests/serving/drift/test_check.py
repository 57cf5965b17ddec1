from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.sites import MOST_SITES, NO_SITE, OTHER_SITES
from pneumo.serving.drift.check import check_drift
from pneumo.serving.drift.describe_files import describe_files
from pneumo.serving.drift.samples import LEAST, read_reference
from pneumo.serving.drift.verdict import DriftCheck, Verdict
from pneumo.serving.drift.wording import describe_classes
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


@pytest.fixture(scope="module")
def by_site(judged) -> DriftCheck:
    """A check of five sites of 40 images, of which one has darker images, and of ten images without a site."""
    rows = [
        row | {"site": f"ward-{site}"}
        for site in range(5)
        for row in columns_of(judged, range(500 + 40 * site, 540 + 40 * site), darker=30 if site == 3 else 0)
    ]
    return check_drift(judged, rows + columns_of(judged, range(900, 910)), window="w").check


def test_the_site_that_changed_is_named_and_the_others_are_not(by_site):
    verdicts = {each.site: (each.verdict, each.images) for each in by_site.sites}
    assert verdicts.pop("ward-3") == (Verdict.DRIFT, 40)
    assert verdicts.pop(NO_SITE) == (Verdict.TOO_FEW, 10)
    assert verdicts == {f"ward-{site}": (Verdict.OK, 40) for site in (0, 1, 2, 4)}
    assert by_site.verdict is Verdict.DRIFT
    assert "; ward-3: images are darker" in by_site.summary
    (changed,) = [each for each in by_site.sites if each.site == "ward-3"]
    assert "mean" in {column.name for column in changed.columns}
    assert 0 <= changed.uncertain <= 1


def test_p_values_of_sites_are_adjusted_together_with_those_of_all_images(judged, by_site):
    rows = columns_of(judged, range(620, 660), darker=30)
    alone = {column.name: column for column in check_drift(judged, rows, window="w").check.columns}
    (changed,) = [each for each in by_site.sites if each.site == "ward-3"]
    for column in changed.columns:
        assert column.p_value == pytest.approx(alone[column.name].p_value)
        assert column.adjusted >= alone[column.name].adjusted


def test_a_log_without_sites_has_none_and_one_site_is_all_images(judged):
    rows = columns_of(judged, range(500, 540), darker=30)
    plain = check_drift(judged, rows, window="w", now=NOW).check
    assert plain.sites == []
    (only,) = check_drift(judged, [row | {"site": "a"} for row in rows], window="w", now=NOW).check.sites
    assert (only.site, only.images, only.verdict, only.summary) == ("a", 40, plain.verdict, plain.summary)


def test_of_many_sites_the_largest_are_told_apart(judged):
    rows = columns_of(judged, range(500, 500 + 4 * (MOST_SITES + 6)))
    for number, row in enumerate(rows):
        row["site"] = f"site {number // 4}" if number < 4 * MOST_SITES else f"small {number % 6}-{number % 4}"
    found = check_drift(judged, rows, window="w").check.sites
    assert len(found) == MOST_SITES + 1
    assert (found[0].site, found[0].images) == (OTHER_SITES, 24)


def test_a_change_of_class_shares_is_told_in_numbers_even_without_an_alarm(judged):
    rows = columns_of(judged, range(500, 530))
    for number, row in enumerate(rows):
        row["label"] = "PNEUMONIA" if number < 15 else "NORMAL"
    found = check_drift(judged, rows, window="w").check
    before = read_reference(judged).shares["decision"].mean()
    assert describe_classes(found.columns) == f"PNEUMONIA {before:.0%} to 50%"


def test_each_of_several_classes_has_a_share(tmp_path):
    bundle = references.make_judged(tmp_path / "three", classes=["A", "B", "C"], positive_class=None, thresholds={})
    rows = [row | {"label": "ABC"[number % 2]} for number, row in enumerate(columns_of(bundle, range(500, 560)))]
    found = check_drift(bundle, rows, window="w").check
    shares = {column.label: column.window.median for column in found.columns if column.label}
    assert shares["A"] == shares["B"] == 0.5
    assert any(f"{label} is predicted" in found.summary for label in "ABC")
