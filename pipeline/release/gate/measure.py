"""Two bundles on the same images, each run as the service would run it, from file bytes on."""

from collections.abc import Callable, Sequence

import numpy as np

from pneumo.pipeline.data.manifest import Dataset, Row
from pneumo.pipeline.evaluation.cases import Cases, positive_column
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.model.bundle import Bundle, BundleInfo
from pneumo.serving.model.calibration import build_prediction_sets, calibrate_logits
from pneumo.serving.model.predictor import BATCH, Predictor

Progress = Callable[[int], None]
"""Called with the number of images done so far."""


def explain_mismatch(champion: BundleInfo, challenger: BundleInfo, dataset: Dataset) -> str | None:
    """Why two bundles cannot be compared on a data set; None where they can."""
    if sorted(champion.classes) != sorted(challenger.classes):
        theirs, ours = ", ".join(champion.classes), ", ".join(challenger.classes)
        return f"{champion.id} tells {theirs}, {challenger.id} tells {ours}"
    if champion.positive_class != challenger.positive_class:
        return f"positive is {champion.positive_class} to {champion.id}, {challenger.positive_class} to {challenger.id}"
    made = dataset.info
    for info in (champion, challenger):
        wanted = info.preparation
        if made.fit is not wanted.fit or made.size < wanted.size:
            return (
                f"{dataset.folder} is prepared at {made.size} pixels, {made.fit.value}; {info.id} was trained on "
                f"images of {wanted.size} pixels, {wanted.fit.value}"
            )
    return None


def measure_bundles(
    bundles: Sequence[Bundle], dataset: Dataset, rows: Sequence[Row], progress: Progress | None = None
) -> list[Cases]:
    """What each bundle says about some images, with its own temperature, threshold and conformal limit.

    Args:
        bundles: What to run; `explain_mismatch` found nothing.
        dataset: Where the images lie; each is checked against its digest.
        rows: The images, at least one.
        progress: Told how many images are done.

    Returns:
        One for each bundle, columns in the order of the first one's classes.

    Raises:
        InputError: An image is missing or not the one imported.
        BundleError: A bundle does not run.
    """
    predictors = [Predictor(bundle) for bundle in bundles]
    logits: list[list[Float64]] = [[] for _ in bundles]
    for start in range(0, len(rows), BATCH):
        contents = []
        for row in rows[start : start + BATCH]:
            content = dataset.path(row).read_bytes()
            dataset.check(row, content)
            contents.append(content)
        for predictor, found in zip(predictors, logits, strict=True):
            outputs = predictor.run(np.stack([predictor.prepare(content) for content in contents]))
            found.append(outputs.logits.astype(np.float64))
        if progress is not None:
            progress(min(start + BATCH, len(rows)))
    classes = bundles[0].info.classes
    return [
        _cases(bundle.info, np.concatenate(found), rows, classes) for bundle, found in zip(bundles, logits, strict=True)
    ]


def _cases(info: BundleInfo, logits: Float64, rows: Sequence[Row], classes: list[str]) -> Cases:
    logits = logits[:, [info.classes.index(name) for name in classes]]
    positive = positive_column(classes, info.positive_class)
    probabilities = calibrate_logits(logits, info.temperature)
    answer = probabilities.argmax(axis=1)
    if positive is not None:
        answer = np.where(probabilities[:, positive] >= info.thresholds["default"], positive, 1 - positive)
    names, patient = np.unique([row.patient for row in rows], return_inverse=True)
    return Cases(
        image=[row.sha256 for row in rows],
        patient=patient.astype(np.int64),
        patients=len(names),
        truth=np.array([classes.index(row.label) for row in rows], dtype=np.int64),
        probabilities=probabilities,
        uncalibrated=calibrate_logits(logits, 1.0),
        answer=answer.astype(np.int64),
        sets=build_prediction_sets(probabilities, info.conformal.limit),
        positive=positive,
    )
