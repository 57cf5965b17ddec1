"""Likely label errors, by confident learning from the predictions of images that a network was not trained on."""

from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from pneumo.pipeline.data.audit import Finding, Kind, Severity
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.evaluation.cases import Ints, take_images, to_scores
from pneumo.pipeline.runs.folders import RecordFolder
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.arrays import Float64, Mask
from pneumo.serving.contracts.csv_text import format_csv
from pneumo.serving.contracts.errors import InputError, first_line
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.quantities import format_count
from pneumo.serving.model.calibration import calibrate_logits


@dataclass(frozen=True)
class Suspect:
    """One image: path in the data set, name in its source, and the most probable class but its label as `suggested`.

    `probability` is that of `label`, the mean over repeats; `likely`: confident learning counts it as a label error.
    """

    image: str
    source: str
    split: str
    label: str
    suggested: str
    probability: float
    likely: bool


@dataclass(frozen=True)
class LabelErrors:
    """The images that a run or cross-validation judged, of so many, the likeliest error first; so many are likely."""

    predictions: str
    images: int
    likely: int
    ranking: list[Suspect]

    def describe(self) -> str:
        """Return how many labels are likely wrong, and how many images were judged."""
        judged = f"{len(self.ranking):,} of {format_count(self.images, 'image')}"
        return f"{format_count(self.likely, 'likely label error')} among {judged}, judged by {self.predictions}"

    def to_finding(self) -> Finding:
        """Return the likely label errors as a finding of an audit: a warning, since only a person can tell."""
        members = tuple((suspect.image,) for suspect in self.ranking[: self.likely])
        return Finding(Kind.LABEL_ERRORS, Severity.WARNING if members else Severity.INFO, self.describe(), members)

    def write_csv(self, path: Path) -> None:
        """Write the ranking as a table that `pneumo data import --relabel` reads once its labels are corrected."""
        rows = ([rank, *astuple(suspect)] for rank, suspect in enumerate(self.ranking, start=1))
        write_text(path, format_csv([["rank", *(field.name for field in fields(Suspect))], *rows]))


class _Record(BaseModel):
    """The part of `run.json` or `crossval.json` that is needed here."""

    classes: list[str]
    data_fingerprint: str


def rank_labels(labels: Ints, probabilities: Float64) -> tuple[Ints, Ints, Mask]:
    """Rank images by how likely their label is wrong.

    An image is a likely error if, of the classes whose probability reaches its mean over the images with this label,
    the one with the largest probability is not the label: an off-diagonal entry of the confident joint (Northcutt,
    Jiang and Chuang, Confident Learning, 2021, doi 10.1613/jair.1.12125). These come first. Then images are in the
    order of their margin: of probabilities less these means, that of the label less the largest other one. So images of
    a class of which the network is less sure do not lead only for that.

    Args:
        labels: Column of the given label, [N].
        probabilities: Out of sample, [N, K].

    Returns:
        Positions, the likeliest error first; by position the most probable other class and if it is likely.
    """
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    given = np.arange(len(counts)) == labels[:, None]
    means = np.where(given, probabilities, 0.0).sum(axis=0) / np.maximum(counts, 1)
    thresholds = np.where(counts > 0, means, np.inf)  # nobody knows how sure the network is of a class without images
    confident = np.where(probabilities >= thresholds - 1e-6, probabilities, -np.inf)
    likely = np.isfinite(confident).any(axis=1) & (confident.argmax(axis=1) != labels)
    excess = probabilities - thresholds
    margin = excess[given] - np.where(given, -np.inf, excess).max(axis=1)
    return np.lexsort((margin, ~likely)), np.where(given, -1.0, probabilities).argmax(axis=1), likely


def find_label_errors(folder: RecordFolder, dataset: Dataset) -> LabelErrors:
    """Rank the labels of a data set by the predictions of a run or a cross-validation that was trained on it.

    Of a run only validation and test images are judged: the others trained its network. All rows of a cross-validation
    are out of fold; probabilities are averaged over its repeats.

    Raises:
        InputError: The data set is another one, or there are no predictions of it.
    """
    import pandas as pd

    record, path = folder.read_record(_Record), folder.folder / Run.predictions
    if record.data_fingerprint != dataset.info.fingerprint:
        raise InputError(
            f"--label-errors {folder.name}: was not trained on {dataset.folder} as it is now; check the data set that "
            "it was trained on, or train again"
        )
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}); finish {folder.name} first") from None
    scores = to_scores(frame, record.classes, place=str(path))
    scores = take_images(scores, np.isin(scores.split, ["validation", "test"]))
    rows = {row.image: row for row in dataset.rows}
    names, number = np.unique(scores.image, return_inverse=True)
    if not len(names) or not set(names) <= set(rows):
        raise InputError(f"{path}: holds no validation or test images of {dataset.folder}; train again")
    sums = [np.bincount(number, column) for column in calibrate_logits(scores.logits, 1.0).T]
    probabilities = np.stack(sums, axis=1) / np.bincount(number)[:, None]
    labels = np.array([record.classes.index(rows[name].label) for name in names])
    order, suggested, likely = rank_labels(labels, probabilities)
    ranking = []
    for place in order.tolist():
        row, probability = rows[names[place]], round(float(probabilities[place, labels[place]]), 6)
        facts = (row.image, row.source, row.split.name.lower(), row.label)
        ranking.append(Suspect(*facts, record.classes[suggested[place]], probability, bool(likely[place])))
    return LabelErrors(folder.name, len(rows), int(likely.sum()), ranking)
