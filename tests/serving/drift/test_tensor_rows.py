"""Images that came as tensors have no descriptors: they count for scores and embeddings alone."""

from datetime import UTC, datetime

import pytest

from pneumo.serving.drift.check import check_drift
from pneumo.serving.drift.verdict import Verdict
from pneumo.serving.predictions.rows import DESCRIPTORS
from pneumo.serving.predictions.store import LogStore
from pneumo.serving.predictions.windows import Window, read_window
from tests.support import prediction_logs as simulated
from tests.support.bundles import make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return simulated.with_reference(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


@pytest.fixture(scope="module")
def rows(bundle, tmp_path_factory):
    store = LogStore(f"sqlite:///{tmp_path_factory.mktemp('log') / 'log.sqlite3'}")
    simulated.simulate(store, bundle, end=datetime.now(UTC), stable=8, darker=0, checked=0)
    return read_window(store, Window(last=400))


@pytest.mark.parametrize(("tensors", "described"), [(0, True), (200, True), (390, False), (400, False)])
def test_missing_descriptors_are_no_drift(bundle, rows, tensors, described):
    unknown = [row | dict.fromkeys(DESCRIPTORS, 0.0) for row in rows[:tensors]]
    check = check_drift(bundle, [*unknown, *rows[tensors:]], window="the last 400 images").check
    names = {column.name for column in check.columns}
    assert check.verdict is Verdict.OK
    assert ({"mean", "sharpness"} <= names) is described
    assert {"probability", "outlier_score", "embedding"} <= names


def test_scores_of_tensors_drift_as_those_of_files(bundle, rows):
    changed = [row | dict.fromkeys(DESCRIPTORS, 0.0) | {"probability": 0.999, "label": "PNEUMONIA"} for row in rows]
    assert check_drift(bundle, changed, window="the last 400 images").check.verdict is Verdict.DRIFT
