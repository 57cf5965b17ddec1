"""The images of one split as arrays: what metrics, intervals and plots are computed from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.manifest import GROUP
from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.errors import InputError, first_line
from pneumo.serving.model.calibration import build_prediction_sets, calibrate_logits, find_certain

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("image", "split", "patient", "label", "logits")
SPLITS = ("train", "validation", "test")

Ints = NDArray[np.int64]
Groups = Mapping[str, NDArray[np.str_]]
"""Value of each image, [N], by name of the group; empty where it has none."""


@dataclass(frozen=True)
class Scores:
    """Predictions as they came out of the model.

    Attributes:
        image: Names relative to the data set, [N].
        split: Split names, [N].
        patient: Patients, [N].
        truth: Index of the true class, [N].
        logits: [N, K].
        groups: Subgroups of the images.
    """

    image: list[str]
    split: NDArray[np.str_]
    patient: NDArray[np.str_]
    truth: Ints
    logits: Float64
    groups: Groups = field(default_factory=dict)

    def select(self, split: str) -> "Scores":
        """The images of one split."""
        mask = self.split == split
        return Scores(
            image=[name for name, keep in zip(self.image, mask, strict=True) if keep],
            split=self.split[mask],
            patient=self.patient[mask],
            truth=self.truth[mask],
            logits=self.logits[mask],
            groups={name: values[mask] for name, values in self.groups.items()},
        )


@dataclass(frozen=True)
class Cases:
    """Scores with the decisions applied.

    Attributes:
        image: Names relative to the data set, [N].
        patient: Number of the patient, 0 to `patients` - 1, [N].
        patients: How many patients.
        truth: Index of the true class, [N].
        probabilities: Calibrated, [N, K].
        uncalibrated: Softmax of the logits as they are, [N, K].
        answer: Index of the class that is said, [N].
        sets: Conformal sets, [N, K].
        positive: Column of the positive class with two classes, None with more.
        groups: Subgroups of the images.
    """

    image: list[str]
    patient: Ints
    patients: int
    truth: Ints
    probabilities: Float64
    uncalibrated: Float64
    answer: Ints
    sets: NDArray[np.bool_]
    positive: int | None
    groups: Groups = field(default_factory=dict)

    @classmethod
    def make(cls, scores: Scores, decisions: Decisions, positive: int | None) -> "Cases":
        """Apply temperature, threshold and conformal limit."""
        names, patient = np.unique(scores.patient, return_inverse=True)
        probabilities = calibrate_logits(scores.logits, decisions.temperature)
        return cls(
            image=scores.image,
            patient=patient.astype(np.int64),
            patients=len(names),
            truth=scores.truth,
            probabilities=probabilities,
            uncalibrated=calibrate_logits(scores.logits, 1.0),
            answer=decisions.predict(probabilities, positive),
            sets=build_prediction_sets(probabilities, decisions.conformal_limit),
            positive=positive,
            groups=scores.groups,
        )

    def where(self, mask: NDArray[np.bool_]) -> "Cases":
        """Some of the images; patients keep their numbers, so that a draw of patients is one for these images too."""
        return replace(
            self,
            image=[name for name, keep in zip(self.image, mask, strict=True) if keep],
            patient=self.patient[mask],
            truth=self.truth[mask],
            probabilities=self.probabilities[mask],
            uncalibrated=self.uncalibrated[mask],
            answer=self.answer[mask],
            sets=self.sets[mask],
            groups={name: values[mask] for name, values in self.groups.items()},
        )

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def classes(self) -> int:
        """How many classes."""
        return int(self.probabilities.shape[1])

    @property
    def certain(self) -> NDArray[np.bool_]:
        """Whether the conformal set of an image is its answer alone, [N]."""
        return find_certain(self.sets, self.answer)

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Whether the conformal set of an image holds its true class, [N]."""
        return np.asarray(self.sets[np.arange(len(self)), self.truth])

    def own(self, probabilities: Float64) -> Float64:
        """Probability of each image's true class, [N]."""
        return np.asarray(probabilities[np.arange(len(self)), self.truth])

    def confidence(self, probabilities: Float64) -> tuple[Float64, NDArray[np.bool_]]:
        """Confidence [N] and whether it came true [N], for calibration.

        With two classes the probability of the positive class and whether the image is positive, with more the largest
        probability and whether that class is the true one.
        """
        if self.positive is not None:
            return probabilities[:, self.positive], self.truth == self.positive
        return probabilities.max(axis=1), probabilities.argmax(axis=1) == self.truth


def positive_column(classes: list[str], positive: str | None) -> int | None:
    """Column of the positive class with two classes, None with more."""
    return classes.index(positive) if positive is not None and len(classes) == 2 else None


def read_predictions(run: Run) -> "pd.DataFrame":
    """Read `predictions.parquet` of a run.

    Raises:
        InputError: It is missing or damaged.
    """
    import pandas as pd

    if not run.predictions.is_file():
        raise InputError(f"{run.predictions}: missing; the run did not finish: `pneumo train --resume {run.name}`")
    try:
        return pd.read_parquet(run.predictions)
    except (OSError, ValueError) as error:
        raise InputError(f"{run.predictions}: damaged ({first_line(error)}); train again") from None


def to_scores(frame: "pd.DataFrame", classes: list[str], *, place: str) -> Scores:
    """Turn a frame of predictions into arrays.

    Args:
        frame: Columns as in `predictions.parquet`.
        classes: Class names, in the order of `logits`.
        place: Where the frame came from, for messages.

    Raises:
        InputError: A column is missing, a label or split is unknown, or logits are not finite numbers, one a class.
    """
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise InputError(f"{place}: no column {missing[0]!r}; the columns are {', '.join(COLUMNS)}")
    index = {name: column for column, name in enumerate(classes)}
    for column, known in (("label", tuple(classes)), ("split", SPLITS)):
        odd = frame[~frame[column].isin(known)]
        if len(odd):
            first = odd.iloc[0]
            what = f"{first['image']}: {column} {first[column]!r}"
            raise InputError(f"{place}: {what} is unknown to the run, which has {', '.join(known)}")
    rows = [np.asarray(row, dtype=np.float64).ravel() for row in frame["logits"]]
    for image, row in zip(frame["image"], rows, strict=True):
        if len(row) != len(classes) or not np.isfinite(row).all():
            raise InputError(f"{place}: {image}: logits must be {len(classes)} finite numbers, one a class")
    return Scores(
        image=[str(name) for name in frame["image"]],
        split=np.asarray(frame["split"].astype(str).to_list(), dtype=np.str_),
        patient=np.asarray(frame["patient"].astype(str).to_list(), dtype=np.str_),
        truth=np.array([index[label] for label in frame["label"]], dtype=np.int64),
        logits=np.array(rows, dtype=np.float64).reshape(len(rows), len(classes)),
        groups={
            str(name).removeprefix(GROUP): np.asarray(frame[name].fillna("").astype(str).to_list(), dtype=np.str_)
            for name in frame.columns
            if str(name).startswith(GROUP)
        },
    )
