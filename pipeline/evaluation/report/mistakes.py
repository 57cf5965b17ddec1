"""The worst misclassified images of a split, with thumbnails if the data set is unchanged."""

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pneumo.pipeline.evaluation.cases import Cases, Ints
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.decode import read_gray
from pneumo.serving.images.preparation import encode_png, fit
from pneumo.serving.images.types import Fit

SHOWN = 12
_SIDE = 160


@dataclass(frozen=True)
class Mistake:
    """A misclassified image of the class `label` with the predicted class `answer`.

    The calibrated probability is of the positive class with two classes, of the predicted one with more.
    """

    image: str
    label: str
    answer: str
    probability: float


def order_by_mistake(cases: Cases) -> Ints:
    """Return positions [N]: misclassified images first, then in the order of the ground truth's probability."""
    return np.lexsort((cases.truth_probability(cases.probabilities), cases.correct))


def worst_mistakes(cases: Cases, classes: list[str]) -> tuple[list[Mistake], int]:
    """Find the misclassified images whose ground truth has the lowest probability.

    Returns:
        At most `SHOWN` mistakes, the worst first, and the number of all mistakes.
    """
    wrong = int((~cases.correct).sum())
    mistakes = []
    for index in order_by_mistake(cases)[: min(wrong, SHOWN)]:
        answer = int(cases.answer[index])
        column = answer if cases.positive is None else cases.positive
        mistakes.append(
            Mistake(
                image=cases.image[index],
                label=classes[int(cases.truth[index])],
                answer=classes[answer],
                probability=float(cases.probabilities[index, column]),
            )
        )
    return mistakes, wrong


def make_thumbnail(folder: Path, image: str) -> str | None:
    """Return an image of a data set as a small PNG in a data URI; None if it cannot be read, or lies outside."""
    path = folder / image
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return None
        png = encode_png(fit(read_gray(path.read_bytes()).gray, _SIDE, Fit.PAD))
    except (InputError, OSError):
        return None
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
