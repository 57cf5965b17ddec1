"""The predictions of one split as arrays: the input of metrics, intervals and plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.manifest import GROUP, Row, group_names
from pneumo.pipeline.decisions import Decisions
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.arrays import Float64, Mask
from pneumo.serving.contracts.errors import InputError, first_line
from pneumo.serving.model.calibration import build_prediction_sets, calibrate_logits, find_certain

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("image", "split", "patient", "label", "logits")
SPLITS = ("train", "validation", "test")

Ints = NDArray[np.int64]
Groups = Mapping[str, NDArray[np.str_]]
"""Value of each image, [N], by name of the group; empty if an image has none."""


@dataclass(frozen=True)
class Scores:
    """Logits [N, K] of a model beside the ground truth: its column [N], with split, patient and groups of each image.

    Names of images are relative to the data set.
    """

    image: list[str]
    split: NDArray[np.str_]
    patient: NDArray[np.str_]
    truth: Ints
    logits: Float64
    groups: Groups = field(default_factory=dict)

    @classmethod
    def from_rows(cls, rows: Sequence[Row], logits: NDArray[np.floating], classes: list[str]) -> "Scores":
        """Combine rows of a manifest with their logits [N, K], columns in the order of `classes`."""
        return cls(
            image=[row.image for row in rows],
            split=np.array([row.split.name.lower() for row in rows], dtype=np.str_),
            patient=np.array([row.patient for row in rows], dtype=np.str_),
            truth=np.array([classes.index(row.label) for row in rows], dtype=np.int64),
            logits=np.asarray(logits, dtype=np.float64),
            groups={
                name: np.array([row.groups.get(name, "") for row in rows], dtype=np.str_) for name in group_names(rows)
            },
        )

    def select(self, split: str) -> "Scores":
        """Return the images of one split."""
        return take_images(self, self.split == split)


@dataclass(frozen=True)
class Cases:
    """Scores with temperature, decision threshold and conformal limits applied.

    Attributes:
        image: Names relative to the data set, [N].
        patient: Number of the patient, 0 to `patients` - 1, [N].
        truth: Column of the ground truth, [N].
        probabilities: Calibrated, [N, K].
        uncalibrated: Softmax of the logits at temperature 1, [N, K].
        answer: Column of the predicted class, [N].
        sets: Prediction sets, [N, K].
        positive: Column of the positive class with two classes, None with more.
        flagged: Images called out-of-distribution, [N]; None if that was not measured.
    """

    image: list[str]
    patient: Ints
    patients: int
    truth: Ints
    probabilities: Float64
    uncalibrated: Float64
    answer: Ints
    sets: Mask
    positive: int | None
    groups: Groups = field(default_factory=dict)
    flagged: Mask | None = None

    @classmethod
    def make(cls, scores: Scores, decisions: Decisions, positive: int | None) -> "Cases":
        """Apply temperature, threshold and conformal limits."""
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

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.probabilities.shape[1])

    @property
    def certain(self) -> Mask:
        """Images whose prediction set is exactly the predicted class and that are not flagged, [N]."""
        certain = find_certain(self.sets, self.answer)
        return certain if self.flagged is None else certain & ~self.flagged

    @property
    def covered(self) -> Mask:
        """Images whose prediction set holds the ground truth, [N]."""
        return np.asarray(self.sets[np.arange(len(self)), self.truth])

    @property
    def correct(self) -> Mask:
        """Images whose predicted class is the ground truth, [N]."""
        return np.asarray(self.answer == self.truth)

    def against_rest(self, column: int) -> "Cases":
        """Return the same images with two classes: that of a column, which is the positive one, and all others."""

        def pair(values: Float64) -> Float64:
            return np.stack([1 - values[:, column], values[:, column]], axis=1)

        return replace(
            self,
            truth=(self.truth == column).astype(np.int64),
            probabilities=pair(self.probabilities),
            uncalibrated=pair(self.uncalibrated),
            answer=(self.answer == column).astype(np.int64),
            sets=np.stack([np.delete(self.sets, column, 1).any(axis=1), self.sets[:, column]], axis=1),
            positive=1,
        )

    def count_classes(self, classes: list[str]) -> dict[str, int]:
        """Return the number of images of each class."""
        return {name: int((self.truth == column).sum()) for column, name in enumerate(classes)}

    def count_patients(self, mask: Mask) -> int:
        """Return the number of patients of the images in a mask [N]."""
        return len(np.unique(self.patient[mask]))

    def truth_probability(self, probabilities: Float64) -> Float64:
        """Return the probability [N] of each image's ground truth, from probabilities [N, K]."""
        return np.asarray(probabilities[np.arange(len(self)), self.truth])

    def confidence(self, probabilities: Float64) -> tuple[Float64, Mask]:
        """Return the confidence [N] and the images [N] for which it was justified, to measure calibration.

        With two classes: the probability of the positive class, and positive images. With more: the largest one,
        and images whose ground truth has it.
        """
        if self.positive is not None:
            return probabilities[:, self.positive], self.truth == self.positive
        return probabilities.max(axis=1), probabilities.argmax(axis=1) == self.truth


def take_images[T: (Scores, Cases)](table: T, mask: Mask) -> T:
    """Return the images in a mask [N]; numbers of patients stay, so that a draw of patients fits the result too."""
    columns = {each.name: getattr(table, each.name) for each in fields(table)}
    arrays: dict[str, Any] = {name: column[mask] for name, column in columns.items() if isinstance(column, np.ndarray)}
    image = [name for name, keep in zip(table.image, mask, strict=True) if keep]
    return replace(table, image=image, groups={name: values[mask] for name, values in table.groups.items()}, **arrays)


def positive_column(classes: list[str], positive: str | None) -> int | None:
    """Return the column of the positive class with two classes, None with more."""
    return classes.index(positive) if positive is not None and len(classes) == 2 else None


def read_predictions(run: Run) -> "pd.DataFrame":
    """Read `predictions.parquet` of a run; raise an `InputError` if it is missing or damaged."""
    import pandas as pd

    if not run.predictions.is_file():
        raise InputError(
            f"{run.predictions}: missing, since the run did not finish; run `pneumo train --resume {run.name}`"
        )
    try:
        return pd.read_parquet(run.predictions)
    except (OSError, ValueError) as error:
        raise InputError(f"{run.predictions}: damaged ({first_line(error)}); train again") from None


def to_scores(frame: "pd.DataFrame", classes: list[str], *, place: str) -> Scores:
    """Convert a frame of predictions, columns as in `predictions.parquet`, to arrays; `place` names it in errors.

    Raises:
        InputError: A column is missing, a label or split is unknown, or an image has not one finite logit per class.
    """
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise InputError(f"{place}: no column {missing[0]!r}; the columns are {', '.join(COLUMNS)}")
    for column, allowed in (("label", classes), ("split", SPLITS)):
        unknown = frame[~frame[column].isin(allowed)]
        if len(unknown):
            image, value = unknown["image"].iloc[0], unknown[column].iloc[0]
            allowed_values = ", ".join(allowed)
            raise InputError(f"{place}: {image}: {column} {value!r} is unknown to the run, which has {allowed_values}")
    logits = [np.asarray(row, dtype=np.float64).ravel() for row in frame["logits"]]
    for image, row in zip(frame["image"], logits, strict=True):
        if len(row) != len(classes) or not np.isfinite(row).all():
            raise InputError(f"{place}: {image}: logits must be {len(classes)} finite numbers, one per class")
    return Scores(
        image=[str(name) for name in frame["image"]],
        split=_strings(frame["split"]),
        patient=_strings(frame["patient"]),
        truth=np.array([classes.index(label) for label in frame["label"]], dtype=np.int64),
        logits=np.array(logits, dtype=np.float64).reshape(len(logits), len(classes)),
        groups={
            str(name).removeprefix(GROUP): _strings(frame[name].fillna(""))
            for name in frame.columns
            if str(name).startswith(GROUP)
        },
    )


def _strings(column: "pd.Series[str]") -> NDArray[np.str_]:
    return np.asarray(column.astype(str).to_list(), dtype=np.str_)
