"""Rows of the prediction log for images that were never served: the same numbers, by the same code."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path

import numpy as np

from pneumo.serving.contracts.errors import ImageError
from pneumo.serving.contracts.setting_types import MAX_PIXELS
from pneumo.serving.images.decode import read_stored
from pneumo.serving.images.descriptors import compute_descriptors
from pneumo.serving.images.preparation import to_input
from pneumo.serving.images.types import Picture
from pneumo.serving.model.predictor import BATCH, Predictor
from pneumo.serving.predictions.rows import LogRow

LANE = "offline"
"""Of rows that no service wrote."""


@dataclass(frozen=True)
class DescribedFiles:
    """Rows of the files that are images, and why others could not be read, by path."""

    rows: list[LogRow]
    unreadable: dict[Path, str]


def describe_images(predictor: Predictor, pictures: Iterable[Picture]) -> Iterator[LogRow]:
    """Predict and describe images, in their order.

    Args:
        predictor: A loaded bundle.
        pictures: Images as `read_stored` fits them for this bundle: gray uint8 [S, S].

    Raises:
        BundleError: The network gave values that are not finite.
    """
    info = predictor.bundle.info
    number = 0
    for chunk in batched(pictures, BATCH):
        began = time.perf_counter()
        outputs = predictor.run(np.stack([to_input(picture.gray, info.preparation) for picture in chunk]))
        share = (time.perf_counter() - began) * 1000 / len(chunk)
        predictions = predictor.interpret_outputs(outputs, elapsed_ms=share)
        embeddings = predictor.outlier_scorer.embedding.project(outputs.embedding).astype(np.float32)
        for picture, prediction, embedding in zip(chunk, predictions, embeddings, strict=True):
            yield LogRow.from_prediction(
                prediction,
                time=datetime.now(UTC),
                request_id=LANE,
                image_index=number,
                model=info.name,
                version=info.version,
                lane=LANE,
                file_format=picture.format,
                descriptors=compute_descriptors(picture, picture.gray),
                embedding=embedding,
            )
            number += 1


def describe_files(
    predictor: Predictor,
    paths: Sequence[Path],
    *,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int], object] | None = None,
) -> DescribedFiles:
    """Predict and describe image files, decoded as the service decodes them.

    Args:
        predictor: A loaded bundle.
        paths: The files.
        max_pixels: Largest image, width times height.
        progress: Told of each file.

    Returns:
        A row for each file that is an image, in their order, and the others.
    """
    preparation = predictor.bundle.info.preparation
    unreadable: dict[Path, str] = {}

    def pictures() -> Iterator[Picture]:
        for path in paths:
            try:
                data = path.read_bytes()
                yield read_stored(
                    data,
                    size=preparation.size,
                    how=preparation.fit,
                    decode=preparation.decode,
                    max_pixels=max_pixels,
                )
            except ImageError as error:
                unreadable[path] = str(error)
            except OSError as error:
                unreadable[path] = f"cannot be read: {error.strerror}"
            if progress:
                progress(1)

    return DescribedFiles(list(describe_images(predictor, pictures())), unreadable)
