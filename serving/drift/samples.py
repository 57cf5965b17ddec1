"""Samples of images as drift compares them: the reference of a bundle, or a window of served images."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64, Mask
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.bundle import Bundle, BundleInfo
from pneumo.serving.model.calibration import build_prediction_sets, find_certain
from pneumo.serving.predictions.rows import DESCRIPTORS, Columns

REFERENCE = "reference.parquet"

NUMBERS = (*DESCRIPTORS, "probability", "outlier_score")
"""Columns that hold numbers."""
DECISION = "decision"
"""Column that is true if the positive class is predicted; with more than two classes `decision:NAME` for each."""

GROUP = "patient_number"
"""Column of the reference that numbers patients; bundles of an older pneumo have none."""

LEAST = 20
"""Minimum images of a reference and of a window."""


@dataclass(frozen=True)
class Sample:
    """Columns of N images.

    Attributes:
        numbers: Values [N] by name of `NUMBERS`; NaN for a descriptor that is not known.
        shares: Masks [N] by name: `uncertain`, `out_of_distribution`, and `DECISION`, or one for each class.
        embedding: Whitened coordinates along the principal axes of training embeddings, [N, P].
        groups: Number of the patient, [N]; None if patients are not known.
    """

    numbers: Mapping[str, Float64]
    shares: Mapping[str, Mask]
    embedding: Float64
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.embedding)

    def take(self, rows: NDArray[np.integer]) -> "Sample":
        """Return some of the images."""
        return Sample(
            {name: values[rows] for name, values in self.numbers.items()},
            {name: values[rows] for name, values in self.shares.items()},
            self.embedding[rows],
            None if self.groups is None else self.groups[rows],
        )

    def join(self, other: "Sample") -> "Sample":
        """Return the images of both samples, without their groups."""
        return Sample(
            {name: np.concatenate([values, other.numbers[name]]) for name, values in self.numbers.items()},
            {name: np.concatenate([values, other.shares[name]]) for name, values in self.shares.items()},
            np.concatenate([self.embedding, other.embedding]),
        )


def read_reference(bundle: Bundle) -> Sample:
    """Read the validation images of a bundle's reference: a network scores training images better than others.

    Raises:
        InputError: The bundle has no reference.
        BundleError: The reference is not the sealed one.
    """
    info = bundle.info
    if REFERENCE not in info.files:
        raise InputError(f"{bundle.folder}: no {REFERENCE} in this bundle; export the model again")
    import pandas as pd

    frame = pd.read_parquet(io.BytesIO(bundle.read(REFERENCE)))
    frame = frame[frame["split"] == "validation"]
    if len(frame) < LEAST:
        raise InputError(
            f"{bundle.folder / REFERENCE}: {len(frame)} validation images, {LEAST} are needed; import the data set "
            "with more of them, and train and export again"
        )
    probabilities = np.stack(frame["probabilities"].to_list()).astype(np.float64)
    predicted = _predict(probabilities, info)
    flagged = frame["outlier_score"].to_numpy() > info.outlier.limit
    certain = find_certain(build_prediction_sets(probabilities, info.conformal.limit), predicted)
    shares = {"out_of_distribution": flagged, "uncertain": flagged | ~certain}
    shares |= _find_decisions(np.array(info.classes)[predicted], info)
    return Sample(
        {name: frame[name].to_numpy(dtype=np.float64) for name in NUMBERS},
        shares,
        np.stack(frame["embedding"].to_list()).astype(np.float64),
        frame[GROUP].to_numpy(dtype=np.int64) if GROUP in frame else None,
    )


def build_window(rows: Sequence[Columns], info: BundleInfo) -> Sample:
    """Build a sample from rows of the prediction log.

    Raises:
        InputError: The rows are of models whose embeddings differ in length.
    """
    embeddings = [np.frombuffer(row["embedding"], dtype="<f4") for row in rows]
    if len({len(embedding) for embedding in embeddings}) > 1:
        raise InputError("the window holds rows of models with different embeddings; choose one version")
    shares = {
        "out_of_distribution": np.array([not row["in_distribution"] for row in rows], dtype=np.bool_),
        "uncertain": np.array([not row["certain"] for row in rows], dtype=np.bool_),
    }
    shares |= _find_decisions(np.array([row["label"] for row in rows], dtype=np.str_), info)
    return Sample(
        hide_unknown({name: np.array([row[name] for row in rows], dtype=np.float64) for name in NUMBERS}),
        shares,
        np.stack(embeddings).astype(np.float64) if embeddings else np.zeros((0, 1)),
    )


def name_class(column: str, positive_class: str | None) -> str | None:
    """Return the class whose predictions a column counts; None if it is another column."""
    kind, _, label = column.partition(":")
    return (label or positive_class) if kind == DECISION else None


def _find_decisions(predicted: NDArray[np.str_], info: BundleInfo) -> dict[str, Mask]:
    if info.positive_class is not None:
        return {DECISION: predicted == info.positive_class}
    return {f"{DECISION}:{name}": predicted == name for name in info.classes}


def hide_unknown(numbers: dict[str, Float64]) -> dict[str, Float64]:
    """Replace the descriptors of tensors, whose images have no width, by NaN."""
    tensors = numbers["width"] == 0
    return {name: np.where(tensors, np.nan, each) if name in DESCRIPTORS else each for name, each in numbers.items()}


def _predict(probabilities: Float64, info: BundleInfo) -> NDArray[np.int64]:
    if info.positive_class is None:
        return probabilities.argmax(axis=1)
    column = info.classes.index(info.positive_class)
    return np.where(probabilities[:, column] >= info.thresholds["default"], column, 1 - column)
