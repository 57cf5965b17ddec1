"""Whether what is no upright chest X-ray is told from held-out ones, from the bytes of a file to the verdict."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pneumo.pipeline import config, training
from pneumo.pipeline.data import importer
from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.export import bundle_export
from pneumo.serving.contracts.schemas import ImagePrediction
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.preparation import encode_png
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.predictor import Predictor
from tests.support.foreign_images import make_foreign_images
from tests.support.paths import CONFIGS


def pixels(dataset: Dataset, rows: Sequence[Row]) -> list[np.ndarray]:
    return [read_gray(dataset.path(row).read_bytes()).gray for row in rows]


def judge(predictor: Predictor, images: Sequence[np.ndarray]) -> list[ImagePrediction]:
    return predictor.predict([predictor.prepare(encode_png(image)) for image in images])


def check(bundle: Bundle, dataset: Dataset, rows: Sequence[Row]) -> None:
    predictor = Predictor(bundle)
    known = pixels(dataset, rows)
    inside = [said.outlier_score for said in judge(predictor, known)]
    found, flagged = {}, {}
    for kind, images in make_foreign_images(known).items():
        said = judge(predictor, images)
        outside = [one.outlier_score for one in said]
        found[kind] = roc_auc_score([0] * len(inside) + [1] * len(outside), inside + outside)
        flagged[kind] = np.mean([not one.in_distribution for one in said])
    print("AUROC", {kind: round(float(value), 4) for kind, value in found.items()})
    print("flagged", {kind: round(float(value), 3) for kind, value in flagged.items()})
    assert {kind: value for kind, value in found.items() if value < 0.95} == {}
    assert {kind: value for kind, value in flagged.items() if value < 0.8} == {}


def test_strange_images_are_told_from_held_out_phantoms(exported: Path, dataset: Dataset) -> None:
    check(Bundle.open(exported), dataset, [*dataset.select(Split.VALIDATION), *dataset.select(Split.TEST)])


@pytest.mark.lengthy
@pytest.mark.real
def test_strange_images_are_told_from_held_out_x_rays(real_data: Path, tmp_path: Path) -> None:
    dataset = importer.import_dataset(
        real_data / "chest_xray_224_train.tar", tmp_path / "data", importer.ImportSettings(size=224)
    )
    small = config.load_config(CONFIGS / "smoke.yaml", ("trainer.epochs=1",))
    run = training.train(small, dataset, root=tmp_path / "runs", seed=1, command=["pneumo", "train"])
    bundle = Bundle.open(bundle_export.export_run(run))
    held_out = dataset.select(Split.TEST)

    check(bundle, dataset, held_out[::4])
    said = judge(Predictor(bundle), pixels(dataset, held_out))
    assert np.mean([not one.in_distribution for one in said]) <= 0.05
