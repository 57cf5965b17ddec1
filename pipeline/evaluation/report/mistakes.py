"""The worst mistakes of a split, with thumbnails where the images are still there."""

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pneumo.pipeline.data import manifest
from pneumo.pipeline.evaluation.cases import Cases
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.preparation import encode_png, fit
from pneumo.serving.images.types import Fit

SHOWN = 12
_SIDE = 160


@dataclass(frozen=True)
class Mistake:
    """An image whose answer is wrong.

    Attributes:
        image: Its name, relative to the data set.
        label: The true class.
        answer: The class that was said.
        probability: Calibrated probability of the positive class with two classes, of the answer with more.
        thumbnail: PNG as a data URI, or None where the image could not be read.
    """

    image: str
    label: str
    answer: str
    probability: float
    thumbnail: str | None


def worst_mistakes(
    cases: Cases, classes: list[str], folder: Path, fingerprint: str
) -> tuple[list[Mistake], int, str | None]:
    """Find the mistakes in which the true class was given the least probability.

    Args:
        cases: The images of a split.
        classes: Class names, in column order.
        folder: Where the data set was.
        fingerprint: What its fingerprint must be for its images to be those that were predicted.

    Returns:
        At most `SHOWN` mistakes, the worst first; how many there are in all; why there are no thumbnails, or None.
    """
    wrong = np.flatnonzero(cases.answer != cases.truth)
    worst = wrong[np.argsort(cases.own(cases.probabilities)[wrong], kind="stable")][:SHOWN]
    missing = _why_no_images(folder, fingerprint)
    mistakes = []
    for index in worst:
        answer = int(cases.answer[index])
        column = answer if cases.positive is None else cases.positive
        mistakes.append(
            Mistake(
                image=cases.image[index],
                label=classes[int(cases.truth[index])],
                answer=classes[answer],
                probability=float(cases.probabilities[index, column]),
                thumbnail=None if missing else _thumbnail(folder, cases.image[index]),
            )
        )
    return mistakes, len(wrong), missing


def _why_no_images(folder: Path, fingerprint: str) -> str | None:
    try:
        found = manifest.read_dataset(folder).info.fingerprint
    except (InputError, OSError):
        return f"The data set {folder.name or folder} is not where it was when this report was made."
    if found != fingerprint:
        return f"The data set {folder.name or folder} has changed since these predictions were made."
    return None


def _thumbnail(folder: Path, image: str) -> str | None:
    path = folder / image
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return None
        png = encode_png(fit(read_gray(path.read_bytes()).gray, _SIDE, Fit.PAD))
    except (InputError, OSError):
        return None
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
