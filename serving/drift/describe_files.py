"""Rows of the prediction log for images that were never served: the same numbers, by the same code."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import batched, count
from pathlib import Path

import numpy as np

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.preparation import to_input
from pneumo.serving.images.types import Picture
from pneumo.serving.model.predictor import BATCH, Predictor
from pneumo.serving.predictions.rows import LogRow, Origin

LANE = "offline"
"""Model slot of rows that no service wrote."""


def describe_images(predictor: Predictor, pictures: Iterable[Picture]) -> Iterator[LogRow]:
    """Predict images, gray uint8 [S, S] as `read_stored` fits them for this bundle, and compute their descriptors.

    Raises:
        BundleError: The network's output is not finite.
    """
    info, numbers = predictor.bundle.info, count()
    for chunk in batched(pictures, BATCH):
        began = time.perf_counter()
        outputs = predictor.run(np.stack([to_input(picture.gray, info.preparation) for picture in chunk]))
        share = (time.perf_counter() - began) * 1000 / len(chunk)
        predictions = predictor.interpret_outputs(outputs, elapsed_ms=share)
        embeddings = predictor.outlier_scorer.embedding.project(outputs.embedding).astype(np.float32)
        for picture, prediction, embedding in zip(chunk, predictions, embeddings, strict=True):
            origin = Origin(datetime.now(UTC), LANE, next(numbers), info.name, info.version, LANE, None)
            yield LogRow.from_prediction(prediction, origin, picture, embedding)


def describe_files(
    predictor: Predictor, paths: Sequence[Path], *, progress: Callable[[int], object] = lambda count: None
) -> tuple[list[LogRow], dict[Path, str]]:
    """Predict image files and compute their descriptors, decoded as the service decodes them.

    `progress` is called with 1 after each file. Returns a row for each image, and the reason for each file that could
    not be read.
    """
    preparation = predictor.bundle.info.preparation
    unreadable: dict[Path, str] = {}

    def read_pictures() -> Iterator[Picture]:
        for path in paths:
            try:
                data = path.read_bytes()
                yield read_stored(data, preparation)
            except ImageError as error:
                unreadable[path] = str(error)
            except OSError as error:
                unreadable[path] = f"cannot be read: {error.strerror}"
            progress(1)

    return list(describe_images(predictor, read_pictures())), unreadable
