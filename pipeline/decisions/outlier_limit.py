"""The outlier limit of a run, learned from its own images, the same for its stress test and its bundle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.runs.run import RunInfo
from pneumo.serving.contracts.arrays import Float32, Float64, Mask
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.images.thumbnails import make_thumbnails
from pneumo.serving.images.types import Gray
from pneumo.serving.model.outlier_score import ImageFeatures, OutlierScorer

REFERENCE_IMAGES = 2000
"""Most images of a split that the score and its limit are learned from."""


@dataclass(frozen=True)
class OutlierLimit:
    """An out-of-distribution score with its limit; an image above the limit is out-of-distribution."""

    outlier_scorer: OutlierScorer
    limit: float

    @classmethod
    def fit(cls, training: ImageFeatures, held_out: ImageFeatures, *, quantile: float) -> "OutlierLimit":
        """Learn the score from two or more training images, and the limit above a quantile of held-out images."""
        outlier_scorer = OutlierScorer.fit(training, held_out, quantile=quantile)
        scores = outlier_scorer.score(held_out.embeddings, held_out.thumbnails)
        return cls(outlier_scorer, max(1.0, float(np.quantile(scores, quantile))))  # below 1 if all are alike

    @classmethod
    def from_model(
        cls, embed: Callable[[Sequence[Gray]], Float32], info: RunInfo, dataset: Dataset, *, quantile: float
    ) -> "OutlierLimit":
        """Learn the limit from a run's data set, as an export would.

        `embed` returns embeddings [N, D] of model inputs, uint8 [H, W, C] each; `quantile` is the share of validation
        images below the limit. Raises an `InputError` if an image is missing, damaged or changed since the import.
        """
        from pneumo.pipeline.data.training_images import read_images

        features = []
        for split in (Split.TRAIN, Split.VALIDATION):
            rows = sample_rows(dataset.select(split))
            images = read_images(dataset, rows, Preparation.model_validate(info.preparation))
            features.append(ImageFeatures(embed(images), _thumbnails(images)))
        return cls.fit(*features, quantile=quantile)

    def find_above(self, embeddings: NDArray[np.floating], inputs: Sequence[Gray]) -> Mask:
        """Return the images above the limit, [N]; embeddings [N, D] and model inputs uint8 [H, W, C]."""
        return np.asarray(self.outlier_scorer.score(embeddings, _thumbnails(inputs)) > self.limit)


def sample_rows(rows: Sequence[Row], most: int = REFERENCE_IMAGES) -> tuple[Row, ...]:
    """Return at most so many rows, evenly over the manifest."""
    return tuple(rows[place] for place in np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))


def _thumbnails(inputs: Sequence[Gray]) -> Float64:
    """Return thumbnails [N, SIDE, SIDE] of model inputs, uint8 [H, W, C]."""
    pixels = (np.stack(inputs[start : start + 64]).transpose(0, 3, 1, 2) for start in range(0, len(inputs), 64))
    return np.concatenate([make_thumbnails(part.astype(np.float32) / np.float32(255)) for part in pixels])
