"""A number of images as drift looks at them: the reference of a bundle, or a window of what was served."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.serving.contracts.arrays import Float64, Mask
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.descriptors import Descriptors
from pneumo.serving.model.bundle import Bundle, BundleInfo
from pneumo.serving.model.calibration import build_prediction_sets, find_certain
from pneumo.serving.predictions.rows import LogRow

REFERENCE = "reference.parquet"

DESCRIPTORS = tuple(each.name for each in dataclasses.fields(Descriptors))
NUMBERS = (*DESCRIPTORS, "probability", "outlier_score")
"""Columns that hold numbers."""
SHARES = ("decision", "out_of_distribution", "uncertain")
"""Columns that are true or false for an image; `decision` is true where the positive class is said."""

GROUP = "patient_number"
"""Column of the reference that numbers patients; bundles of an older pneumo have none."""

LEAST = 20
"""Images of a reference, or of a window, without which nothing is said."""


@dataclass(frozen=True)
class Sample:
    """N images in numbers.

    Attributes:
        numbers: By name of `NUMBERS`, each [N].
        shares: By name of `SHARES`, each [N]; without `decision` where the model has more than two classes.
        embedding: Whitened coordinates along the widest directions of training embeddings, [N, P].
        groups: Images of one patient have the same number, [N]; None where patients are not known.
    """

    numbers: Mapping[str, Float64]
    shares: Mapping[str, Mask]
    embedding: Float64
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.embedding)

    def take(self, rows: NDArray[np.integer]) -> "Sample":
        """Some of the images."""
        return Sample(
            {name: values[rows] for name, values in self.numbers.items()},
            {name: values[rows] for name, values in self.shares.items()},
            self.embedding[rows],
            None if self.groups is None else self.groups[rows],
        )

    def join(self, other: "Sample") -> "Sample":
        """The images of both, without their groups."""
        return Sample(
            {name: np.concatenate([values, other.numbers[name]]) for name, values in self.numbers.items()},
            {name: np.concatenate([values, other.shares[name]]) for name, values in self.shares.items()},
            np.concatenate([self.embedding, other.embedding]),
        )


def read_reference(bundle: Bundle) -> Sample:
    """Read the held-out images of a bundle's reference: training images look better to a network than others do.

    Raises:
        InputError: The bundle has no reference.
        BundleError: It is not the one that was sealed.
    """
    if REFERENCE not in bundle.info.files:
        raise InputError(f"{bundle.folder}: no {REFERENCE} in this bundle; export the model again")
    import pandas as pd

    frame = pd.read_parquet(io.BytesIO(bundle.read(REFERENCE)))
    frame = frame[frame["split"] == "validation"]
    if len(frame) < LEAST:
        raise InputError(
            f"{bundle.folder / REFERENCE}: {len(frame)} validation images, {LEAST} are needed; import the data set "
            "with more of them, and train and export again"
        )
    info = bundle.info
    probabilities = np.stack(frame["probabilities"].to_list()).astype(np.float64)
    said = _said(probabilities, info)
    shares = {
        "out_of_distribution": frame["outlier_score"].to_numpy() > info.outlier.limit,
        "uncertain": ~find_certain(build_prediction_sets(probabilities, info.conformal.limit), said),
    }
    if info.positive_class is not None:
        shares["decision"] = said == info.classes.index(info.positive_class)
    numbers = {name: frame[name].to_numpy(dtype=np.float64) for name in NUMBERS}
    embedding = np.stack(frame["embedding"].to_list()).astype(np.float64)
    groups = frame[GROUP].to_numpy(dtype=np.int64) if GROUP in frame else None
    return Sample(numbers, shares, embedding, groups)


def build_window(rows: Sequence[LogRow] | Sequence[Mapping[str, Any]], info: BundleInfo) -> Sample:
    """Build a sample from rows of the prediction log, as they are or as columns of the database.

    Raises:
        InputError: Rows of another model, whose embeddings have another length.
    """
    known: list[Mapping[str, Any]] = [row.values() if isinstance(row, LogRow) else row for row in rows]
    embeddings = [np.frombuffer(row["embedding"], dtype="<f4") for row in known]
    if len({len(embedding) for embedding in embeddings}) > 1:
        raise InputError("the window holds rows of models with different embeddings; choose one version")
    numbers = {name: np.array([row[name] for row in known], dtype=np.float64) for name in NUMBERS}
    shares = {
        "out_of_distribution": np.array([not row["in_distribution"] for row in known], dtype=np.bool_),
        "uncertain": np.array([not row["certain"] for row in known], dtype=np.bool_),
    }
    if info.positive_class is not None:
        shares["decision"] = np.array([row["label"] == info.positive_class for row in known], dtype=np.bool_)
    embedding = np.stack(embeddings).astype(np.float64) if embeddings else np.zeros((0, 1))
    return Sample(numbers, shares, embedding)


def _said(probabilities: Float64, info: BundleInfo) -> NDArray[np.int64]:
    if info.positive_class is None:
        return probabilities.argmax(axis=1)
    column = info.classes.index(info.positive_class)
    return np.where(probabilities[:, column] >= info.thresholds["default"], column, 1 - column)
