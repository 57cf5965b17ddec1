"""Predictions of two bundles on the same images, from file bytes on, as the service would compute them."""

from collections.abc import Sequence
from itertools import batched

import numpy as np

from pneumo.pipeline.data.manifest import Dataset, Row
from pneumo.pipeline.evaluation.cases import Cases, Scores, positive_column
from pneumo.pipeline.release.recalibration.site import explain_storage, read_decisions
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.model.bundle import Bundle, BundleInfo
from pneumo.serving.model.predictor import BATCH, Predictor


def explain_mismatch(champion: BundleInfo, challenger: BundleInfo, dataset: Dataset) -> str | None:
    """Return why two bundles cannot be compared on a data set; None if they can."""
    if sorted(champion.classes) != sorted(challenger.classes):
        return "; ".join(f"the classes of {info.id} are {', '.join(info.classes)}" for info in (champion, challenger))
    if champion.positive_class != challenger.positive_class:
        return "; ".join(f"the positive class of {info.id} is {info.positive_class}" for info in (champion, challenger))
    return next((problem for info in (champion, challenger) if (problem := explain_storage(info, dataset))), None)


def measure_bundles(bundles: Sequence[Bundle], dataset: Dataset, rows: Sequence[Row]) -> list[Cases]:
    """Return each bundle's predictions of some images, with its own temperature, threshold and conformal limit.

    Columns are in the order of the first bundle's classes. Raises `InputError` if an image is not the imported one.
    """
    predictors = [Predictor(bundle) for bundle in bundles]
    logits: list[list[Float64]] = [[] for _ in bundles]
    for batch in batched(rows, BATCH):
        contents = [dataset.path(row).read_bytes() for row in batch]
        for row, content in zip(batch, contents, strict=True):
            dataset.check(row, content)
        for predictor, outputs in zip(predictors, logits, strict=True):
            images = np.stack([predictor.prepare(content) for content in contents])
            outputs.append(predictor.run(images).logits.astype(np.float64))
    classes = bundles[0].info.classes
    return [
        _build_cases(bundle.info, np.concatenate(outputs), rows, classes)
        for bundle, outputs in zip(bundles, logits, strict=True)
    ]


def _build_cases(info: BundleInfo, logits: Float64, rows: Sequence[Row], classes: list[str]) -> Cases:
    positive = positive_column(classes, info.positive_class)
    columns = [info.classes.index(name) for name in classes]
    return Cases.make(Scores.from_rows(rows, logits[:, columns], classes), read_decisions(info), positive)
