"""The images of a case browser: thumbnails in sprites, features, and the nearest training images."""

from collections.abc import Sequence
from itertools import batched
from pathlib import Path

import numpy as np
from PIL import Image

from pneumo.pipeline.evaluation.cases import Ints
from pneumo.serving.contracts.arrays import Float32, Float64, Mask
from pneumo.serving.images.preparation import resize, to_input
from pneumo.serving.images.types import Gray
from pneumo.serving.model.predictor import BATCH, Predictor

SIDE = 96
"""Side of a thumbnail in a sprite, in pixels."""
COLUMNS = 10
PER_SPRITE = COLUMNS * COLUMNS
NEAREST = 6
_ROWS = 512


def write_sprite(path: Path, images: Sequence[Gray]) -> None:
    """Write up to `PER_SPRITE` images, uint8 [S, S] each, as thumbnails in rows of `COLUMNS`."""
    sprite = np.zeros((COLUMNS * SIDE, COLUMNS * SIDE), dtype=np.uint8)
    for place, image in enumerate(images):
        top, left = (SIDE * cell for cell in divmod(place, COLUMNS))
        sprite[top : top + SIDE, left : left + SIDE] = resize(image, SIDE, SIDE)
    Image.fromarray(sprite).save(path, quality=82)


def compute_features(images: Sequence[Gray], predictor: Predictor) -> tuple[Float32, Float64]:
    """Return embeddings less their mean over training images, of unit length [N, D], and outlier scores [N].

    Images are uint8 [S, S].
    """
    preparation, scorer = predictor.bundle.info.preparation, predictor.outlier_scorer
    inputs = batched((to_input(image, preparation) for image in images), BATCH)
    outputs = [predictor.run(np.stack(chunk)) for chunk in inputs]
    values = np.concatenate([each.embedding for each in outputs]) - scorer.embedding.mean
    values /= np.linalg.norm(values, axis=1, keepdims=True) + 1e-9
    return values.astype(np.float32), np.concatenate(
        [scorer.score(each.embedding, each.thumbnails) for each in outputs]
    )


def find_nearest(features: Float32, training: Mask, patient: Ints, asked: Ints) -> list[list[int]]:
    """Find the `NEAREST` training images of each asked image by cosine similarity, of other patients, nearest first.

    Args:
        features: Of unit length, [N, D].
        training: Images that may be found, [N].
        patient: Number of the patient, [N].
        asked: Positions of the asked images, [M].

    Returns:
        Positions for each asked image; fewer if there are not as many.
    """
    places = np.flatnonzero(training)
    nearest = []
    for start in range(0, len(asked), _ROWS):
        rows = asked[start : start + _ROWS]
        similarity = features[rows] @ features[places].T
        similarity[patient[rows, None] == patient[places]] = -np.inf
        for row, order in zip(similarity, np.argsort(-similarity, axis=1, kind="stable")[:, :NEAREST], strict=True):
            nearest.append(places[order[np.isfinite(row[order])]].tolist())
    return nearest
