"""Metrics that choose an epoch, with a model that is a formula: brightness is the logit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pneumo.pipeline.data.manifest import Dataset, Split, read_dataset
from pneumo.pipeline.evaluation.stress.selection import CHANGED_IMAGES, IMAGES, EpochMetric
from pneumo.pipeline.evaluation.stress.shifts import Use, list_shifts
from pneumo.pipeline.evaluation.stress.stored_images import StoredImages
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError
from tests.pipeline.conftest import build_run


def brightness(images):
    return np.array([image.mean() for image in images], dtype=np.float64)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return build_run(tmp_path_factory.mktemp("selection"), images=700, splits=("train", "validation"), groups=True)


@pytest.fixture(scope="module")
def data(run: Run) -> Dataset:
    return read_dataset(Path(run.info().data))


def test_metrics_under_change_are_those_of_the_changes_for_selection(run: Run, data: Dataset) -> None:
    metric = EpochMetric.prepare("roc_auc + 3 stress.worst", data, run.info())
    measured = metric.measure({"roc_auc": 0.8, "loss": 1.0}, brightness)

    rows = list(data.select(Split.VALIDATION))
    counts = {name: sum(row.label == name for row in rows) for name in data.info.classes}
    assert min(counts.values()) >= IMAGES // 2
    assert sum(map(len, metric.changed)) == CHANGED_IMAGES == IMAGES * len(list_shifts(Use.SELECTION))
    assert sum(metric.positive) == IMAGES // 2
    truth = np.array(metric.positive)
    chosen = [
        place for name in data.info.classes for place in np.linspace(0, counts[name] - 1, IMAGES // 2).astype(int)
    ]
    by_class = {name: [row for row in rows if row.label == name] for name in data.info.classes}
    names = np.repeat(data.info.classes, IMAGES // 2)
    stored = StoredImages.read(
        data, [by_class[name][place] for name, place in zip(names, chosen, strict=True)], run.info()
    )
    expected = [roc_auc_score(truth, brightness(stored.change(shift))) for shift in list_shifts(Use.SELECTION)]
    assert measured["stress.auroc"] == pytest.approx(np.mean(expected))
    assert measured["stress.worst"] == pytest.approx(min(expected))
    assert measured["roc_auc + 3 stress.worst"] == pytest.approx((0.8 + 3 * min(expected)) / 4)
    assert "worst_group.auroc" not in measured


def test_no_change_of_the_report_is_among_those_for_selection() -> None:
    chosen = {shift.title for shift in list_shifts(Use.SELECTION)}
    assert len(chosen) >= 5
    assert not chosen & {shift.title for shift in list_shifts(Use.REPORT)}


def test_stored_images_may_come_from_memory(run: Run, data: Dataset) -> None:
    info = run.info()
    whole = StoredImages.read(data, data.rows, info)
    pixels = dict(zip([row.image for row in data.rows], whole.pixels, strict=True))
    gone = replace(data, folder=data.folder / "gone")
    metric = EpochMetric.prepare("stress.auroc", gone, info, lambda rows: [pixels[row.image] for row in rows])
    assert metric.measure({}, brightness) == EpochMetric.prepare("stress.auroc", data, info).measure({}, brightness)


def test_the_worst_group_is_that_of_the_subgroups_of_validation(run: Run, data: Dataset) -> None:
    metric = EpochMetric.prepare("worst_group.auroc", data, run.info())
    rows, images = metric.grouped
    assert metric.changed == []
    truth = np.array([row.label == "PNEUMONIA" for row in rows])
    logits = brightness(images)
    one = {name: np.array([row.groups.get("kind") == name for row in rows]) for name in ("bacteria", "virus")}
    other = {name: np.array([row.groups.get("source") == name for row in rows]) for name in ("IM", "NORMAL2-IM")}
    aurocs = [
        roc_auc_score(truth[mask], logits[mask]) for a in one.values() for b in other.values() for mask in [a | b]
    ]
    assert metric.measure({}, brightness)["worst_group.auroc"] == pytest.approx(min(aurocs))


def test_a_data_set_without_subgroups_is_refused_before_the_first_epoch(tmp_path: Path) -> None:
    plain = build_run(tmp_path, images=120, splits=("train", "validation"))
    with pytest.raises(InputError, match=r"worst_group\.auroc needs subgroups.*pneumo data import --groups"):
        EpochMetric.prepare("worst_group.auroc", read_dataset(Path(plain.info().data)), plain.info())
