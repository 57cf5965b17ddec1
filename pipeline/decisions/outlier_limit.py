"""What a run calls out of distribution: learned from its own images, the same for its stress test and its bundle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.images.thumbnails import make_thumbnails
from pneumo.serving.images.types import Gray
from pneumo.serving.model.bundle import EMBEDDING_SPACE, Bundle
from pneumo.serving.model.outlier_score import ImageFeatures, OutlierScorer

REFERENCE_IMAGES = 2000
"""Most images of a split that the score and its limit are learned from."""


@dataclass(frozen=True)
class OutlierLimit:
    """An out-of-distribution score with its limit.

    Attributes:
        outlier_scorer: The score.
        limit: What lies above it is not in distribution.
    """

    outlier_scorer: OutlierScorer
    limit: float

    @classmethod
    def fit(cls, training: ImageFeatures, held_out: ImageFeatures, *, quantile: float) -> "OutlierLimit":
        """Learn the score from training images, and the limit that a quantile of held-out images, in (0, 1), passes.

        Raises:
            InputError: Fewer than two training images, or embeddings that are not finite.
        """
        outlier_scorer = OutlierScorer.fit(training, held_out, quantile=quantile)
        strangeness = outlier_scorer.score(held_out.embeddings, held_out.thumbnails)
        return cls(outlier_scorer, max(1.0, float(np.quantile(strangeness, quantile))))  # below 1 if all are alike

    @classmethod
    def of_bundle(cls, run: Run, *, quantile: float) -> "OutlierLimit | None":
        """That of the bundle in a run's folder; None where there is none, or it is damaged or has another quantile."""
        try:
            bundle = Bundle.open(run.folder / "bundle")
            outlier_scorer = OutlierScorer.from_bytes(bundle.read(EMBEDDING_SPACE))
        except InputError:
            return None
        fits = bundle.info.provenance.get("run") == run.name and bundle.info.outlier.quantile == quantile
        if bundle.info.quantization:  # its embeddings are a little different from the network's own
            return None
        return cls(outlier_scorer, bundle.info.outlier.limit) if fits and outlier_scorer.thumbnail is not None else None

    @classmethod
    def of_model(
        cls, embed: Callable[[Sequence[Gray]], NDArray[np.float32]], info: RunInfo, dataset: Dataset, *, quantile: float
    ) -> "OutlierLimit":
        """Learn it from a run's data set, as an export would.

        Args:
            embed: Embeddings [N, D] of model inputs, uint8 [H, W, C] each.
            info: The run.
            dataset: What it was trained on.
            quantile: Share of validation images that shall pass.

        Raises:
            InputError: An image is missing, damaged or changed since the import.
        """
        from pneumo.pipeline.data.training_images import read_images

        known = []
        for split in (Split.TRAIN, Split.VALIDATION):
            images = read_images(dataset, spread(dataset.select(split)), Preparation.model_validate(info.preparation))
            known.append(ImageFeatures(embed(images), small(images)))
        return cls.fit(*known, quantile=quantile)

    def flagged(self, embeddings: NDArray[Any], inputs: Sequence[Gray]) -> float:
        """Share of images above the limit; embeddings [N, D] and model inputs uint8 [H, W, C]."""
        return float((self.outlier_scorer.score(embeddings, small(inputs)) > self.limit).mean())


def spread(rows: Sequence[Row]) -> tuple[Row, ...]:
    """At most REFERENCE_IMAGES rows, evenly over the manifest."""
    if len(rows) <= REFERENCE_IMAGES:
        return tuple(rows)
    return tuple(rows[position] for position in np.linspace(0, len(rows) - 1, REFERENCE_IMAGES).astype(int))


def small(inputs: Sequence[Gray]) -> Float64:
    """Thumbnails [N, SIDE, SIDE] of model inputs, uint8 [H, W, C]."""
    pixels = (np.stack(inputs[start : start + 64]).transpose(0, 3, 1, 2) for start in range(0, len(inputs), 64))
    return np.concatenate([make_thumbnails(part.astype(np.float32) / np.float32(255)) for part in pixels])
